"""Inner products of whole networks, over the leaves that count, as if each network were one vector.

The products are summed in float32 or wider. How XLA compiles the products of a pair depends on the platform. On a GPU or TPU
they are computed in the pass that reads the endpoints for something else. On the CPU, XLA copies both rows, and reads the copies once
for each of the three products. There all products of a leaf are one sum, which reads the leaf as it is. The products of many networks
are a matrix product per leaf, because a program with m^2 / 2 sums per leaf would compile for minutes.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jsubspace.tree import accumulator
from jsubspace.types import Endpoints, LeafMask, Params

MANY = 8
"""The products of more networks than these are matrix products."""

Entries = Callable[[jax.Array, jax.Array], jax.Array]
"""A function of the entries of two networks, elementwise."""


def gram(networks: Sequence[Params], mask: LeafMask) -> jax.Array:
    """Inner products <omega_i, omega_j> over the masked leaves, taken as one vector: ``[p, p]`` for p networks."""
    if len(networks) > MANY:
        rows = zip(*(_counted(network, mask) for network in networks), strict=True)
        return functools.reduce(jnp.add, (_matrix_product(jnp.stack(leaf)) for leaf in rows))
    if len(networks) != 2:
        return _one_by_one(networks, mask)
    counted = [_counted(network, mask) for network in networks]
    return _of_pair(counted)


def over_pairs(function: Entries, endpoints: Endpoints, mask: LeafMask) -> jax.Array:
    """The sum of ``function(omega_i, omega_j)`` over all entries of the masked leaves: ``[m, m]``, for endpoints ``[m, *s]``.

    `operator.mul` gives all inner products. One loop compares an endpoint with all endpoints, so that many of them are compiled as fast
    as two. It reads every endpoint m times, which only a measurement can afford.
    """
    m = max(leaf.shape[0] for leaf in jax.tree.leaves(endpoints))
    return _over_pairs(function, m, _counted(endpoints, mask))


def inner(a: Params, b: Params, mask: LeafMask) -> jax.Array:
    """<a, b> over the masked leaves, taken as one vector: a scalar, float32 or wider."""

    def inner_leaf(x: jax.Array, y: jax.Array, counts: bool) -> jax.Array | None:
        return jnp.sum(x.astype(accumulator(x.dtype)) * y.astype(accumulator(y.dtype))) if counts else None

    return jax.tree.reduce(jnp.add, jax.tree.map(inner_leaf, a, b, mask))


def weighted_sums(weights: jax.Array, leaf: jax.Array) -> jax.Array:
    """sum_j weights[i, j] leaf[j]: ``[m, p], [p, *s] -> [m, *s]``, a matrix product in float32 or wider."""
    wide = accumulator(leaf.dtype)
    return jnp.tensordot(weights.astype(wide), leaf.astype(wide), 1, precision=jax.lax.Precision.HIGHEST)


def _matrix_product(leaf: jax.Array) -> jax.Array:
    """All inner products of rows: ``[p, *s] -> [p, p]``. The stacked rows of one array are this array to XLA, and are not copied."""
    rest, wide = tuple(range(1, leaf.ndim)), accumulator(leaf.dtype)
    exact = jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(leaf, leaf, ((rest, rest), ((), ())), precision=exact, preferred_element_type=wide)


def _one_by_one(networks: Sequence[Params], mask: LeafMask) -> jax.Array:
    p = len(networks)
    product = [[jnp.zeros(())] * p for _ in range(p)]
    for i, j in itertools.combinations_with_replacement(range(p), 2):
        product[i][j] = product[j][i] = inner(networks[i], networks[j], mask)
    return jnp.stack([jnp.stack(row) for row in product])


def _counted(network: Params, mask: LeafMask) -> list[jax.Array]:
    return [leaf for leaf, counts in zip(jax.tree.leaves(network), jax.tree.leaves(mask), strict=True) if counts]


@jax.jit  # Outside of jit, the choice of the platform would be compiled in every call.
def _of_pair(pair: list[list[jax.Array]]) -> jax.Array:
    every = [True] * len(pair[0])
    return jax.lax.platform_dependent(pair, cpu=_at_once, default=lambda pair: _one_by_one(pair, every))


def _at_once(pair: list[list[jax.Array]]) -> jax.Array:
    def of_leaf(*rows: jax.Array) -> jax.Array:
        stacked = jnp.stack([row.astype(accumulator(row.dtype)) for row in rows])
        products = stacked[:, None] * stacked[None]
        return jnp.sum(products, axis=tuple(range(2, products.ndim)))

    return functools.reduce(jnp.add, map(of_leaf, *pair))


@functools.partial(jax.jit, static_argnums=(0, 1))  # Outside of jit, the loop would be compiled in every call.
def _over_pairs(function: Entries, m: int, leaves: list[jax.Array]) -> jax.Array:
    wide = [leaf.astype(accumulator(leaf.dtype)) for leaf in leaves]

    @jax.checkpoint  # Its gradient would keep the entries of all pairs.
    def with_all(i: jax.Array) -> jax.Array:
        sums = (
            jnp.sum(function(leaf, row), axis=tuple(range(1, leaf.ndim)))
            for leaf, row in zip(wide, rows(i), strict=True)
        )
        return functools.reduce(jnp.add, sums)

    def rows(i: jax.Array) -> list[jax.Array]:
        return [leaf[0 if leaf.shape[0] == 1 else i][None] for leaf in wide]

    return jnp.broadcast_to(jax.lax.map(with_all, jnp.arange(m)), (m, m))
