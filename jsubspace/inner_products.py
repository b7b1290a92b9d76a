"""Inner products of whole networks, over the leaves that count, as if each network were one vector.

The products are summed in float32 or wider. How XLA compiles the products of a pair depends on the platform. On a GPU or TPU
they are computed in the pass that reads the endpoints for something else. On the CPU, XLA copies both rows, and reads the copies once
for each of the three products. There all products of a leaf are one sum, which reads the leaf as it is.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jsubspace.tree import accumulator
from jsubspace.types import LeafMask, Params


def gram(networks: Sequence[Params], mask: LeafMask) -> jax.Array:
    """Inner products <omega_i, omega_j> over the masked leaves, taken as one vector: ``[p, p]`` for p networks."""
    one_by_one = functools.partial(_one_by_one, mask=mask)
    if len(networks) != 2:
        return one_by_one(networks)
    return jax.lax.platform_dependent(networks, cpu=functools.partial(_at_once, mask=mask), default=one_by_one)


def inner(a: Params, b: Params, mask: LeafMask) -> jax.Array:
    """<a, b> over the masked leaves, taken as one vector: a scalar, float32 or wider."""

    def inner_leaf(x: jax.Array, y: jax.Array, counts: bool) -> jax.Array | None:
        return jnp.sum(x.astype(accumulator(x.dtype)) * y.astype(accumulator(y.dtype))) if counts else None

    return jax.tree.reduce(jnp.add, jax.tree.map(inner_leaf, a, b, mask))


def _one_by_one(networks: Sequence[Params], mask: LeafMask) -> jax.Array:
    p = len(networks)
    product = [[jnp.zeros(())] * p for _ in range(p)]
    for i, j in itertools.combinations_with_replacement(range(p), 2):
        product[i][j] = product[j][i] = inner(networks[i], networks[j], mask)
    return jnp.stack([jnp.stack(row) for row in product])


def _at_once(networks: Sequence[Params], mask: LeafMask) -> jax.Array:
    def of_leaf(counts: bool, *rows: jax.Array) -> jax.Array | None:
        if not counts:
            return None
        stacked = jnp.stack([row.astype(accumulator(row.dtype)) for row in rows])
        products = stacked[:, None] * stacked[None]
        return jnp.sum(products, axis=tuple(range(2, products.ndim)))

    return jax.tree.reduce(jnp.add, jax.tree.map(of_leaf, mask, *networks))
