"""Cosines from inner products, right for every norm whose square is a normal float32.

cos = G_ij / (|omega_i| |omega_j|) is taken before it is squared. The formula G_ij^2 / (G_ii G_jj) needs the fourth power
of a norm, and its derivative needs the eighth power. In float32 these powers vanish or overflow for ordinary networks.

The squares of single entries are smaller than the squared norm, and they vanish first. If a squared norm leaves the
range from 2^-64 to 2^64, the inner products are taken a second time, of endpoints that are scaled by a power of two.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jsubspace import tree
from jsubspace.types import Endpoints, Params

Result = TypeVar("Result")

LIMIT = 2.0**64
"""Squared norms between 1 / LIMIT and LIMIT are taken as they are."""

FACTOR = 2.0**62
"""Endpoints of smaller norms are multiplied by this factor, and endpoints of larger norms are divided by it."""


def cosines(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cosines ``[p, p]`` of inner products ``[p, p]``, and ``[p]`` the inverse norms 1 / |omega_i|.

    A zero vector has the inverse norm 0, and its cosines are 0. NaN stays NaN, and so does a norm that overflows. The
    diagonal is 0, because no endpoint is compared with itself.
    """
    norms = jnp.diagonal(gram)
    is_known = norms >= jnp.finfo(gram.dtype).tiny
    # The where stands twice, because the gradient of the branch that is not taken must not be 0 / 0.
    inverse = jnp.where(is_known, 1 / jnp.sqrt(jnp.where(is_known, norms, 1)), 0)
    inverse += 0 * jax.lax.stop_gradient(norms)  # NaN for a norm that is NaN or infinite.
    found = gram * inverse[:, None] * inverse[None, :]
    return jnp.where(jnp.eye(len(norms), dtype=bool), 0, found), inverse


def squared(cosine: jax.Array) -> jax.Array:
    """cos^2, at most 1. The rounding that would exceed 1 is subtracted, so that the derivative stays 2 cos."""
    square = cosine * cosine
    return square - jax.lax.stop_gradient(jnp.maximum(square - 1, 0))


def mean_over_pairs(cosine: jax.Array) -> jax.Array:
    """The mean of cos^2 above the diagonal of the cosines ``[p, p]``."""
    above = jnp.triu_indices(len(cosine), k=1)
    return jnp.mean(squared(cosine)[above])


def factors(gram: jax.Array) -> jax.Array:
    """``[p]``: the power of two by which each endpoint is multiplied before its inner products are right. Usually 1."""
    norms = jax.lax.stop_gradient(jnp.diagonal(gram))
    one = jnp.ones_like(norms)
    return jnp.where(norms < 1 / LIMIT, one * FACTOR, jnp.where(norms <= LIMIT, one, one / FACTOR))


def scaled_rows(endpoints: Endpoints, chosen: tuple[Any, ...], scales: jax.Array) -> list[Params]:
    """The rows ``chosen`` of the endpoints, each times its scale ``[p]``, in float32 or wider."""

    def scaled(i: Any, scale: jax.Array) -> Params:
        def scaled_leaf(row: jax.Array) -> jax.Array:
            row = row.astype(tree.accumulator(row.dtype))
            return row * scale.astype(row.dtype)

        return jax.tree.map(scaled_leaf, tree.row(endpoints, i))

    return [scaled(i, scales[n]) for n, i in enumerate(chosen)]


def corrected(is_usual: jax.Array, usual: Result, correct: Callable[[], Result]) -> Result:
    """``usual``, or ``correct()`` if it is not usual.

    Only one of the two is computed, except under vmap. Both can be differentiated, forwards and backwards.
    """
    if not isinstance(is_usual, jax.core.Tracer):  # Outside jit, the branches would be compiled in every call.
        return usual if is_usual else correct()
    return jax.lax.cond(is_usual, lambda: usual, correct)
