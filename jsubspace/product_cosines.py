"""Cosines of products of low-rank factors, from matrices of the rank's size alone:

<A_i B_i, A_j B_j> = sum of (A_i^T A_j) * (B_i B_j^T), elementwise.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import inner_products, leaf_kinds, tree
from jsubspace.cosines import corrected, cosines, factors
from jsubspace.factors import Pairs, found, names_of_leaves
from jsubspace.task_vectors import check_origin, task_vectors
from jsubspace.types import Endpoints, LeafMask, Params


def counted(mask: Any, endpoints: Endpoints, pairs: Pairs) -> LeafMask:
    """The leaves that the penalty sees, as `leaf_kinds.resolve_mask` returns them. By default all factors are among them.

    Raises:
      ValueError: if the mask counts one factor of a product and not the other.
    """
    products, paths = found(endpoints, pairs), names_of_leaves(endpoints)
    chosen = leaf_kinds.tree_of_bools("mask", leaf_kinds.kernels if mask is None else mask, endpoints)
    leaves, structure = jax.tree.flatten(chosen)
    if mask is None:
        leaves = [counts or i in itertools.chain(*products) for i, counts in enumerate(leaves)]
    for first, second in products:
        if leaves[first] != leaves[second]:
            raise ValueError(
                f"the mask counts one of the leaves {'/'.join(paths[first])} and {'/'.join(paths[second])}, but they form a product. "
                "Count both or neither."
            )
    return leaf_kinds.resolve_mask(jax.tree.unflatten(structure, leaves), endpoints)


def product_cosines(
    endpoints: Endpoints, mask: LeafMask, pairs: Pairs, origin: Params | None = None
) -> tuple[jax.Array, jax.Array]:
    """`cosines.cosines` of all endpoints, with products in the place of their factors.

    Args:
      endpoints: leaves ``[p, *s]``.
      mask: of `counted`.
      pairs: as in `as_products`.
      origin: one network, to compare A_i B_i - A_0 B_0, or None.
    """
    products = found(endpoints, pairs)
    compared = _differences(endpoints, mask, products, origin)
    gram = _gram(compared, mask, products)
    scales = factors(gram)

    def scaled() -> jax.Array:
        firsts = {first for first, _ in products}
        leaves, structure = jax.tree.flatten(compared)
        leaves = [leaf if i in firsts else _times(scales, leaf) for i, leaf in enumerate(leaves)]
        return _gram(jax.tree.unflatten(structure, leaves), mask, products)

    return cosines(corrected(jnp.all(scales == 1), gram, scaled))


def _times(scales: jax.Array, leaf: jax.Array) -> jax.Array:
    """Each row times its scale. A leaf that all endpoints share does not count, and stays as it is."""
    return (
        leaf
        if leaf.shape[0] != len(scales)
        else leaf * scales.reshape((-1,) + (1,) * (leaf.ndim - 1)).astype(leaf.dtype)
    )


def _differences(
    endpoints: Endpoints, mask: LeafMask, products: list[tuple[int, int]], origin: Params | None
) -> Endpoints:
    """The endpoints in float32 or wider, minus the origin. The difference of two products is a product of rank 2 r:

        A_i B_i - A_0 B_0 = [A_i - A_0 | A_0] [B_i; B_i - B_0].

    In this form nothing cancels that is large beside the difference.
    """
    wide = jax.tree.map(lambda leaf: leaf.astype(tree.accumulator(leaf.dtype)), endpoints)
    if origin is None:
        return wide
    check_origin(endpoints, origin)
    before, starts, structure = jax.tree.leaves(wide), jax.tree.leaves(origin), jax.tree.structure(wide)
    leaves = jax.tree.leaves(task_vectors(wide, origin, mask))
    for first, second in products:
        if jax.tree.leaves(mask)[first]:
            start = jnp.broadcast_to(jnp.asarray(starts[first]).astype(before[first].dtype), before[first].shape)
            leaves[first] = jnp.concatenate([leaves[first], start], axis=-1)
            leaves[second] = jnp.concatenate([before[second], leaves[second]], axis=-2)
    differences: Endpoints = jax.tree.unflatten(structure, leaves)
    return differences


def _gram(endpoints: Endpoints, mask: LeafMask, products: list[tuple[int, int]]) -> jax.Array:
    """The inner products ``[p, p]`` over all leaves that count, of products in the place of their factors."""
    leaves, structure = jax.tree.flatten(endpoints)
    p, counts = tree.num_endpoints(endpoints), jax.tree.leaves(mask)
    in_products = set(itertools.chain(*products))
    others = [bool(counted) and i not in in_products for i, counted in enumerate(counts)]
    total: Any = 0
    if any(others):
        total = inner_products.gram([tree.row(endpoints, i) for i in range(p)], jax.tree.unflatten(structure, others))
    for first, second in products:
        if counts[first]:
            left = _inner("i...dr,j...ds->ij...rs", leaves[first])
            right = _inner("i...re,j...se->ij...rs", leaves[second])
            total += jnp.sum(left * right, axis=tuple(range(2, left.ndim)))
    return total


def _inner(indices: str, factor: jax.Array) -> jax.Array:
    """The products ``[p, p, *k, r, r]`` of all rows. Matrix units do not round their inputs to fewer digits."""
    return jnp.einsum(indices, factor, factor, precision=jax.lax.Precision.HIGHEST)
