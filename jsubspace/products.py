"""A subspace of products of low-rank factors, as LoRA adds them to a kernel.

The product of means is not the mean of products: the product of sum_i c_i A_i and sum_i c_i B_i is not sum_i c_i A_i B_i. But
this sum of products is a product itself, of factors with a rank that is m times as large:

    sum_i c_i A_i B_i = [A_1 | ... | A_m] [c_1 B_1; ...; c_m B_m].

Its first factor does not depend on c. Its second factor is linear in c, with endpoints that are B_i in the rows of block i and
zero elsewhere. So the products form an ordinary subspace with one shared leaf, and no matrix of the kernel's size is made.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import axis_names, tree
from jsubspace.factors import Pairs, found, named
from jsubspace.types import Endpoints, Params, Tree


def as_products(endpoints: Tree, pairs: Pairs) -> Tree:
    """Endpoints of products: their points have sum_i c_i A_i B_i, the mean of products, as the product of two leaves.

    `jsubspace.interpolate`, `jsubspace.midpoint` and `jsubspace.measure` take the result as it is. A point of it is a network
    with factors of rank m r, and any code that multiplies the factors runs with it. If that code divides by the rank (alpha /
    r of LoRA), give it the rank r of one endpoint. Only the functions that take ``products`` compare products. The blocks
    of this result are orthogonal.

    Args:
      endpoints: leaves ``[m, *s]``.
      pairs: the names of the two factors in the order of their product, as in ``("lora_a", "lora_b")`` for x @ a @ b and
        ``("lora_B", "lora_A")`` for PyTorch's B A, or several such pairs. The two leaves of a product have the same path but
        for these names. A name may be a path itself, as in ``"lora_a/kernel"``.

    Returns:
      The endpoints, with the first factors ``[m, *k, d, r]`` as one shared leaf ``[1, *k, d, m r]`` and the second factors
      ``[m, *k, r, e]`` as leaves ``[m, *k, m r, e]``. All other leaves are untouched. With a layerwise alpha, a product has the
      position of its second factor.

    Raises:
      ValueError: if a name belongs to no leaf, a factor has no partner, two factors have no product, or endpoints share one.

    Example:
      >>> import jsubspace
      >>> a, b = jnp.ones((2, 8, 1)), jnp.stack([jnp.ones((1, 5)), 3 * jnp.ones((1, 5))])
      >>> point = jsubspace.midpoint(as_products({"lora_a": a, "lora_b": b}, ("lora_a", "lora_b")))
      >>> point["lora_a"].shape, point["lora_b"].shape, float((point["lora_a"] @ point["lora_b"])[0, 0])
      ((8, 2), (2, 5), 2.0)
    """
    leaves, structure = jax.tree.flatten(endpoints)
    for first, second in found(endpoints, pairs):
        leaves[first], leaves[second] = _side_by_side(leaves[first]), _blocks(leaves[second])
    expanded: Endpoints = jax.tree.unflatten(structure, leaves)
    return expanded


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """`tree.weights_per_leaf`, `tree.contract` and `tree.pull_back` of `as_products`, computed from the factors.

    Nothing is larger than the factors of a point here, while the second factors of `as_products` are m times as large.

    Attributes:
      pairs: as in `as_products`.
    """

    pairs: Pairs

    def weights_per_leaf(self, endpoints: Endpoints, weights: Any) -> Any:
        """A tree of weights ``[m]``. They are ones for the first factors, which a point has as they are."""
        some = tree.weights_per_leaf(endpoints, weights)
        leaves, structure = jax.tree.flatten(endpoints)
        each = jax.tree.leaves(some) if tree.same_structure(some, endpoints) else [some] * len(leaves)
        for first, _ in found(endpoints, self.pairs):
            each[first] = jnp.ones_like(each[first])
        return jax.tree.unflatten(structure, each)

    def contract(self, endpoints: Endpoints, weights: Any) -> Params:
        """The network with the A_i side by side and the c_i B_i on top of each other, leaves ``[*s]``."""

        def side_by_side(leaf: jax.Array, c: jax.Array, axis: int) -> jax.Array:
            wide = leaf.astype(tree.accumulator(leaf.dtype))
            scaled = tree.product(tree.column(c, wide), wide).astype(leaf.dtype)
            return jnp.concatenate([scaled[i] for i in range(len(c))], axis=axis)

        return axis_names.removed(
            self._each_leaf(endpoints, self.weights_per_leaf(endpoints, weights), tree.contract, side_by_side)
        )

    def pull_back(self, point: Params, weights: Any) -> Endpoints:
        """The transpose of `contract`, with leaves ``[m, *s]``. It takes the weights of `weights_per_leaf`."""

        def cut(leaf: jax.Array, c: jax.Array, axis: int) -> jax.Array:
            parts = jnp.stack(jnp.split(leaf, len(c), axis=axis)).astype(tree.accumulator(leaf.dtype))
            return (tree.column(c, parts) * parts).astype(leaf.dtype)

        return axis_names.added(self._each_leaf(point, weights, tree.pull_back, cut))

    def _each_leaf(self, of: Any, weights: Any, usual: Callable[..., Any], of_factor: Callable[..., jax.Array]) -> Any:
        """``of_factor(leaf, weights, axis)`` of the factors, and ``usual`` of all other leaves."""
        leaves, structure = jax.tree.flatten(of)
        each = jax.tree.leaves(weights)
        axes = {place: axis for pair in named(of, self.pairs) for place, axis in zip(pair, (-1, -2), strict=True)}
        others = [i for i in range(len(leaves)) if i not in axes]
        made = {i: of_factor(leaves[i], each[i], axis) for i, axis in axes.items()}
        made |= zip(others, usual([leaves[i] for i in others], [each[i] for i in others]), strict=True)
        return jax.tree.unflatten(structure, [made[i] for i in range(len(leaves))])


def _side_by_side(first: jax.Array) -> jax.Array:
    """[A_1 | ... | A_m]: ``[m, *k, d, r] -> [1, *k, d, m r]``."""
    return jnp.concatenate([first[i] for i in range(len(first))], axis=-1)[None]


def _blocks(second: jax.Array) -> jax.Array:
    """B_i in block i of endpoint i: ``[m, *k, r, e] -> [m, *k, m r, e]``."""
    m, r = len(second), second.shape[-2]
    padding = [[(0, 0)] * (second.ndim - 3) + [(i * r, (m - 1 - i) * r), (0, 0)] for i in range(m)]
    return jnp.stack([jnp.pad(second[i], padding[i]) for i in range(m)])
