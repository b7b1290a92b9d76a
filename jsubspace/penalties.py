"""The penalty that keeps endpoints apart, and measures of how far apart they are.

By equation 5 of the paper, the penalty is beta times the mean over pairs j != k of

    cos^2(omega_j, omega_k) = <omega_j, omega_k>^2 / (|omega_j|^2 |omega_k|^2),

where inner products and norms are taken over all leaves that count, as one vector and not leaf by leaf.
Algorithm 1 estimates the mean by one random pair per step.

The penalty depends on the endpoints only through their inner products, the Gram matrix G. The penalty's gradient
is therefore linear in the endpoints, and its weights are the derivative of a function of p x p numbers:

    d penalty / d omega_i = sum_l (D + D^T)_il omega_l,    D = d penalty / d G.

The gradient therefore costs one pass over the endpoints. It stores at most one row, the sum of a sampled pair.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jsubspace import tree
from jsubspace.types import Endpoints, LeafMask, Params

Mask = LeafMask | Callable[[Endpoints], LeafMask] | None


def sample_pair(key: jax.Array, num_endpoints: int) -> tuple[Any, Any]:
    """Two different endpoints (j, k), with equal probability for each unordered pair (line 5 of Algorithm 1).

    With two endpoints there is only one pair. It is returned as plain integers, and nothing is drawn on the device.

    Raises:
      ValueError: if there are fewer than two endpoints.
    """
    pairs = list(itertools.combinations(range(num_endpoints), 2))
    if not pairs:
        raise ValueError(f"sample_pair: {num_endpoints} endpoint has no pair, and the penalty needs two endpoints.")
    if len(pairs) == 1:
        return pairs[0]
    j, k = jnp.array(pairs)[jax.random.randint(key, (), 0, len(pairs))]
    return j, k


def cosine_squared(endpoints: Endpoints, j: Any, k: Any, mask: Mask = None) -> jax.Array:
    """cos^2 of endpoints j and k: a scalar in [0, 1]. It is 0 if one of the two endpoints is the zero vector.

    Args:
      endpoints: leaves ``[m, *s]``.
      j, k: the endpoints' rows, integers or traced.
      mask: the leaves that count: a tree of bools, a function ``endpoints -> tree``, or None for the
        kernels (`jsubspace.kernels`), as in the authors' program. `jsubspace.all_leaves` takes the formula
        literally. BatchNorm scales start at one in every endpoint, so with all leaves cos^2 starts near
        0.1 instead of 1e-6.

    Raises:
      ValueError: if an endpoint j or k does not exist. (Without the check, jax would silently use the last one.)

    Example:
      >>> round(float(cosine_squared({"kernel": jnp.array([[[1.0, 0.0]], [[1.0, 1.0]]])}, 0, 1)), 6)
      0.5
    """
    m = tree.num_endpoints(endpoints)
    for row in (j, k):
        if isinstance(row, int) and not 0 <= row < m:
            raise ValueError(f"there is no endpoint {row}. The {m} endpoints are 0 to {m - 1}.")
    return mean_cosine_squared(_rows(endpoints, (j, k)), mask)


def mean_cosine_squared(endpoints: Endpoints, mask: Mask = None) -> jax.Array:
    """The mean of `cosine_squared` over all pairs of different endpoints: the expectation in equation 5."""
    m = tree.num_endpoints(endpoints)
    return _mean_over_pairs(tree.gram([_row(endpoints, i) for i in range(m)], tree.resolve_mask(mask, endpoints)))


def cosines_squared(endpoints: Endpoints, mask: Mask = None) -> jax.Array:
    """cos^2 of every pair: ``[m, m]``, symmetric, ones on the diagonal."""
    m = tree.num_endpoints(endpoints)
    return _cosines_squared(tree.gram([_row(endpoints, i) for i in range(m)], tree.resolve_mask(mask, endpoints)))


def distances(endpoints: Endpoints, mask: Mask = None) -> jax.Array:
    """L2 distance |omega_j - omega_k| of every pair over the counting leaves: ``[m, m]``, zeros on the diagonal.

    The distances are computed from the differences. Inner products would cancel for endpoints that are close together.
    """
    m = tree.num_endpoints(endpoints)
    counts = tree.resolve_mask(mask, endpoints)
    rows = [jax.tree.map(lambda leaf: leaf.astype(tree.accumulator(leaf.dtype)), _row(endpoints, i)) for i in range(m)]

    def distance(j: int, k: int) -> jax.Array:
        difference = jax.tree.map(jnp.subtract, rows[j], rows[k])
        return jnp.sqrt(tree.inner(difference, difference, counts))

    upper = {(j, k): distance(j, k) for j, k in itertools.combinations(range(m), 2)}
    zero = jnp.zeros((), next(iter(upper.values())).dtype if upper else jnp.float32)
    return jnp.stack([jnp.stack([zero if j == k else upper[min(j, k), max(j, k)] for k in range(m)]) for j in range(m)])


def geometry(endpoints: Endpoints, mask: Mask = None) -> dict[str, jax.Array]:
    """How far apart the endpoints are: the means over pairs of L2 distance and of cos^2, scalars (figure 3)."""
    above = jnp.triu_indices(tree.num_endpoints(endpoints), k=1)
    return {
        "l2": jnp.mean(distances(endpoints, mask)[above]),
        "cosine_squared": jnp.mean(cosines_squared(endpoints, mask)[above]),
    }


class Penalty(NamedTuple):
    """A penalty's value and its gradient. The gradient is written as weights of some of the endpoints.

    Attributes:
      value: the mean of cos^2 over the chosen pairs, a scalar.
      weights: ``[m, p]``, with d value / d omega_i = sum_l weights[i, l] omega_{chosen[l]}.
      chosen: the rows of the p endpoints that take part, integers or traced.
      mask: the leaves that take part, a tree of bools.
      pair_sum: omega_j + omega_k if a pair was chosen among three or more endpoints, else None.
    """

    value: jax.Array
    weights: jax.Array
    chosen: tuple[Any, ...]
    mask: LeafMask
    pair_sum: Params | None = None

    def add_gradient(self, grads: Endpoints, endpoints: Endpoints, beta: float) -> Endpoints:
        """``grads + beta * d value / d endpoints``, leaves ``[m, *s]``."""

        def add_leaf(grad: jax.Array, leaf: jax.Array, counts: bool, pair_sum: jax.Array | None = None) -> jax.Array:
            if not counts:
                return grad
            wide = tree.accumulator(leaf.dtype)
            column = (-1,) + (1,) * (leaf.ndim - 1)
            total = grad.astype(wide)

            def add(weights: jax.Array, rows: jax.Array) -> None:
                nonlocal total
                total += (beta * weights).reshape(column).astype(wide) * rows.astype(wide)

            # XLA copies every row that is sliced out, and reads the copy again when it adds the row to all rows.
            # Two exchanged rows are not slices. For a pair among many endpoints, the sum is one row instead of two.
            if leaf.shape[0] == 2:
                own, other = self._own_and_other()
                add(own, leaf)
                add(other, leaf[::-1])
            elif pair_sum is not None:
                own, other = self._own_and_other()
                add(own - other, leaf)
                add(other, pair_sum[None])
            else:
                for n, i in enumerate(self.chosen):
                    add(self.weights[:, n], leaf[i][None])
            return total.astype(grad.dtype)

        sums = () if self.pair_sum is None else (self.pair_sum,)
        return jax.tree.map(add_leaf, grads, endpoints, self.mask, *sums)

    def _own_and_other(self) -> tuple[jax.Array, jax.Array]:
        """For a pair, two vectors ``[m]``.

        ``own[i]`` is the factor of omega_i in its own gradient, and ``other[i]`` is the factor of its partner.
        """
        rows, zeros = jnp.array(self.chosen), jnp.zeros_like(self.weights[:, 0])
        places = jnp.arange(2)
        return zeros.at[rows].set(self.weights[rows, places]), zeros.at[rows].set(self.weights[rows, places[::-1]])


def penalty(
    endpoints: Endpoints,
    chosen: tuple[Any, ...],
    mask: LeafMask,
    gram_fn: Callable[[Sequence[Params], LeafMask], jax.Array] = tree.gram,
) -> Penalty:
    """The mean of cos^2 over the pairs among ``chosen``, with its gradient.

    Choose all m endpoints for the exact mean, or a sampled pair for an estimate. ``gram_fn`` takes the inner products.
    If the endpoints are divided among devices, ``gram_fn`` is `shares.Shares.gram`.
    """
    rows, m = [_row(endpoints, i) for i in chosen], tree.num_endpoints(endpoints)
    gram, pair_sum = gram_fn(rows, mask), None
    if len(chosen) == 2 < m:
        pair_sum = jax.tree.map(
            lambda *leaves: sum(leaf.astype(tree.accumulator(leaf.dtype)) for leaf in leaves), *rows
        )
        # Both are computed while the rows are read. Without the barrier, XLA would read the rows again later for the sum.
        gram, pair_sum = jax.lax.optimization_barrier((gram, pair_sum))
    value, d_gram = jax.value_and_grad(_mean_over_pairs)(gram)
    weights = jnp.zeros((m, len(chosen)), gram.dtype).at[jnp.array(chosen)].set(d_gram + d_gram.T)
    return Penalty(value, weights, chosen, mask, pair_sum)


def _cosines_squared(gram: jax.Array) -> jax.Array:
    """``[p, p]`` inner products -> ``[p, p]`` cos^2. A zero vector counts as orthogonal to everything, itself included."""
    norms = jnp.diagonal(gram)
    products = norms[:, None] * norms[None, :]
    # The where stands twice, because the gradient of the branch that is not taken must not be 0 / 0.
    return jnp.where(products > 0, gram**2 / jnp.where(products > 0, products, 1), 0)


def _mean_over_pairs(gram: jax.Array) -> jax.Array:
    p = gram.shape[0]
    if p < 2:
        raise ValueError("one endpoint has no pair, and the penalty needs two endpoints.")
    above = jnp.triu_indices(p, k=1)
    return jnp.mean(_cosines_squared(gram)[above])


def _row(endpoints: Endpoints, i: Any) -> Params:
    return jax.tree.map(lambda leaf: leaf[i], endpoints)


def _rows(endpoints: Endpoints, chosen: tuple[Any, ...]) -> Endpoints:
    return jax.tree.map(lambda leaf: jnp.stack([leaf[i] for i in chosen]), endpoints)
