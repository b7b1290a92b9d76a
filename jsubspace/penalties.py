"""The penalty that keeps endpoints apart, and measures of how far apart they are.

By equation 5 of the paper, the penalty is beta times the mean over pairs j != k of

    cos^2(omega_j, omega_k) = <omega_j, omega_k>^2 / (|omega_j|^2 |omega_k|^2),

where inner products and norms are taken over all leaves that count, as one vector and not leaf by leaf.
Algorithm 1 estimates the mean by one random pair per step.

The penalty depends on the endpoints only through their inner products, the Gram matrix G. The penalty's gradient
is therefore linear in the endpoints, and its weights are functions of p x p numbers:

    d cos_ij^2 / d omega_i = 2 cos_ij (omega_j / |omega_j| - cos_ij omega_i / |omega_i|) / |omega_i|.

The gradient therefore costs one pass over the endpoints. It stores one row, the sum of a sampled pair, and reserves the
memory of a second row, which only norms far apart or at the edge of float32 need.
Inner products and norms are taken in float32 or wider, and cos^2 and its gradient are right wherever |omega|^2 is a
normal number (`cosines`). A NaN or an infinity in an endpoint makes cos^2 NaN.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, inner_products, leaf_kinds, tree
from jsubspace.cosines import corrected, cosines, factors, mean_over_pairs, scaled_rows, squared
from jsubspace.factors import Pairs
from jsubspace.product_cosines import counted, product_cosines
from jsubspace.task_vectors import task_vectors
from jsubspace.types import Endpoints, LeafMask, Params

ALIKE = 16.0
"""Two norms are alike if neither is more than this many times the other."""

Mask = LeafMask | Callable[[Endpoints], LeafMask] | None


def sample_pair(key: jax.Array, num_endpoints: int) -> tuple[Any, Any]:
    """Two different endpoints (j, k), with equal probability for each unordered pair (line 5 of Algorithm 1).

    With two endpoints there is only one pair. It is returned as plain integers, and nothing is drawn on the device.

    Raises:
      ValueError: if there are fewer than two endpoints.
    """
    arguments.key("sample_pair: key", key, "sample_pair(key, num_endpoints)")
    m = arguments.integer("sample_pair: num_endpoints", num_endpoints)
    if m < 2:
        raise ValueError(f"sample_pair: {m} endpoint has no pair, and the penalty needs two endpoints.")
    if m == 2:
        return 0, 1
    # Pairs are numbered row by row: (0, 1), (0, 2), ..., (m - 2, m - 1). Row j begins at the number starts[j].
    starts = np.concatenate([[0], np.cumsum(np.arange(m - 1, 1, -1))])
    number = jax.random.randint(key, (), 0, m * (m - 1) // 2)
    j = jnp.sum(number >= jnp.array(starts, number.dtype), dtype=number.dtype) - 1
    return j, number - jnp.array(starts, number.dtype)[j] + j + 1


def cosine_squared(
    endpoints: Endpoints,
    j: Any,
    k: Any,
    mask: Mask = None,
    *,
    origin: Params | None = None,
    products: Pairs | None = None,
) -> jax.Array:
    """cos^2 of endpoints j and k: a scalar in [0, 1]. It is 0 if one of the two endpoints is the zero vector.

    Args:
      endpoints: leaves ``[m, *s]``.
      j, k: the endpoints' rows, integers or traced.
      mask: the leaves that count: a tree of bools, a function ``endpoints -> tree``, or None for the
        kernels (`jsubspace.kernels`), as in the authors' program. `jsubspace.all_leaves` takes the formula
        literally. BatchNorm scales start at one in every endpoint, so with all leaves cos^2 starts near
        0.1 instead of 1e-6.
      origin: one network, leaves ``[*s]``, for the cosine of the task vectors omega - origin. None compares the endpoints
        themselves. Networks that were fine-tuned from the origin all have a cosine near 1 without it.
      products: names of low-rank factors, as in `jsubspace.as_products`. Their products are compared in their place.

    Raises:
      ValueError: if an endpoint j or k does not exist. A traced row cannot be checked, and gives NaN if it does not exist.

    Example:
      >>> round(float(cosine_squared({"kernel": jnp.array([[[1.0, 0.0]], [[1.0, 1.0]]])}, 0, 1)), 6)
      0.5
    """
    m = tree.num_endpoints(endpoints, "cosine_squared(endpoints, j, k, mask)")
    rows = arguments.row("j", j, m), arguments.row("k", k, m)
    exist = jnp.all(jnp.array([(row >= 0) & (row < m) for row in rows]))  # Traced rows are known only here.
    found = mean_cosine_squared(tree.chosen_rows(endpoints, rows), mask, origin=origin, products=products)
    return jnp.where(exist, found, jnp.nan)


def mean_cosine_squared(
    endpoints: Endpoints, mask: Mask = None, *, origin: Params | None = None, products: Pairs | None = None
) -> jax.Array:
    """The mean of `cosine_squared` over all pairs of different endpoints: the expectation in equation 5."""
    m = tree.num_endpoints(endpoints, "mean_cosine_squared(endpoints, mask)")
    return mean_over_pairs(_all_cosines(endpoints, mask, origin, products)[0]) if m > 1 else arguments.no_pair()


def cosines_squared(
    endpoints: Endpoints, mask: Mask = None, *, origin: Params | None = None, products: Pairs | None = None
) -> jax.Array:
    """cos^2 of every pair: ``[m, m]``, symmetric. The diagonal is 1, and 0 for an endpoint that is the zero vector."""
    found, inverse_norms = _all_cosines(endpoints, mask, origin, products)
    on_diagonal = jax.lax.stop_gradient(squared(jnp.sign(inverse_norms)))
    return jnp.where(jnp.eye(len(found), dtype=bool), on_diagonal[:, None], squared(found))


def distances(endpoints: Endpoints, mask: Mask = None) -> jax.Array:
    """L2 distance ``|omega_j - omega_k|`` of every pair over the counting leaves: ``[m, m]``, zeros on the diagonal.

    There is no ``origin`` here: task vectors are as far apart as the endpoints are.

    The distances are computed from the differences. Inner products would cancel for endpoints that are close together.
    The gradient of a distance of 0 is 0.
    """
    tree.num_endpoints(endpoints, "distances(endpoints, mask)")  # It refuses what are no endpoints.
    counts = leaf_kinds.resolve_mask(mask, endpoints)
    squares = inner_products.over_pairs(_squared_difference, endpoints, counts)
    others = ~jnp.eye(len(squares), dtype=bool)  # An endpoint with NaN has the distance 0 from itself, too.
    differs = (squares != 0) & others  # True for NaN. The derivative of sqrt at 0 is infinite.
    return jnp.where(differs, jnp.sqrt(jnp.where(differs, squares, 1)), 0)


def geometry(endpoints: Endpoints, mask: Mask = None, *, origin: Params | None = None) -> dict[str, jax.Array]:
    """How far apart the endpoints are: the means over pairs of L2 distance and of cos^2, scalars (figure 3).

    With an ``origin``, cos^2 compares the task vectors omega - origin. The distances do not depend on it.
    """
    above = jnp.triu_indices(tree.num_endpoints(endpoints), k=1)
    return {
        "l2": jnp.mean(distances(endpoints, mask)[above]),
        "cosine_squared": jnp.mean(cosines_squared(endpoints, mask, origin=origin)[above]),
    }


class Penalty(NamedTuple):
    """A penalty's value and its gradient. The gradient is written as weights of some of the endpoints.

    The inverse norms s_i stand apart from the weights, because their products may leave the range of float32:

        d value / d omega_i = s_i sum_l weights[i, l] s_chosen[l] omega_chosen[l].

    Attributes:
      value: the mean of cos^2 over the chosen pairs, a scalar.
      weights: ``[m, p]``.
      inverse_norms: s, ``[m]``, and 0 for an endpoint that does not take part.
      chosen: the rows of the p endpoints that take part, integers or traced.
      mask: the leaves that take part, a tree of bools.
      pair_sum: omega_j + omega_k if a pair was chosen among three or more endpoints, else None. If the two norms are far
        apart, it is s_j omega_j + s_k omega_k.
      sum_weights: ``[m, 2]``, the factors of omega_i and of the pair's sum that replace the weights if there is a sum.
    """

    value: jax.Array
    weights: jax.Array
    inverse_norms: jax.Array
    chosen: tuple[Any, ...]
    mask: LeafMask
    pair_sum: Params | None = None
    sum_weights: jax.Array | None = None

    def add_gradient(self, grads: Endpoints, endpoints: Endpoints, beta: float | jax.Array) -> Endpoints:
        """``grads + beta * d value / d endpoints``, leaves ``[m, *s]``."""

        def add_leaf(grad: jax.Array, leaf: jax.Array, counts: bool, pair_sum: jax.Array | None = None) -> jax.Array:
            if not counts:
                return grad
            wide = tree.accumulator(leaf.dtype)

            def times(factors: jax.Array, rows: jax.Array) -> jax.Array:
                return factors.reshape((-1,) + (1,) * (leaf.ndim - 1)).astype(wide) * rows.astype(wide)

            # XLA copies every row that is sliced out, and reads the copy again when it adds the row to all rows.
            # Two exchanged rows are not slices. For a pair among many endpoints, the sum is one row instead of two.
            s = self.inverse_norms
            if leaf.shape[0] == 2:
                own, other = self._own_and_other()
                change = times(own, times(s, leaf)) + times(other, times(s[::-1], leaf[::-1]))
            elif pair_sum is not None and self.sum_weights is not None:
                change = times(self.sum_weights[:, 0], leaf) + times(self.sum_weights[:, 1], pair_sum[None])
            elif len(self.chosen) > inner_products.MANY:
                change = inner_products.weighted_sums(self.weights * s, leaf)
            else:
                parts = [times(self.weights[:, n], times(s[i][None], leaf[i][None])) for n, i in enumerate(self.chosen)]
                change = sum(parts[1:], parts[0])
            return (grad.astype(wide) + times(beta * s, change)).astype(grad.dtype)

        sums = () if self.pair_sum is None else (self.pair_sum,)
        return jax.tree.map(add_leaf, grads, endpoints, self.mask, *sums)

    def _own_and_other(self) -> tuple[jax.Array, jax.Array]:
        """For a pair, two vectors ``[m]``.

        ``own[i]`` is the factor of omega_i in its own gradient, and ``other[i]`` is the factor of its partner.
        """
        rows, places = jnp.array(self.chosen), jnp.arange(2)
        own, other = self.weights[rows, places], self.weights[rows, places[::-1]]
        return _placed(own, self.chosen, 2), _placed(other, self.chosen, 2)


def penalty(
    endpoints: Endpoints,
    chosen: tuple[Any, ...],
    mask: LeafMask,
    gram_fn: Callable[[Sequence[Params], LeafMask], jax.Array] = inner_products.gram,
) -> Penalty:
    """The mean of cos^2 over the pairs among ``chosen``, with its gradient.

    Choose all m endpoints for the exact mean, or a sampled pair for an estimate. ``gram_fn`` takes the inner products.
    If the endpoints are divided among devices, ``gram_fn`` is `shares.Shares.gram`.
    """
    m = tree.num_endpoints(endpoints)
    chosen = arguments.rows_of_pairs("chosen", chosen, m)
    rows = [tree.row(endpoints, i) for i in chosen]
    gram, pair_sum = gram_fn(rows, mask), None
    if len(chosen) == 2 < m:
        pair_sum = _sum(rows)
        # Both are computed while the rows are read. Without the barrier, XLA would read the rows again later for the sum.
        gram, pair_sum = jax.lax.optimization_barrier((gram, pair_sum))

    scales = factors(gram)
    norms = jnp.diagonal(gram)
    is_usual = jnp.all(scales == 1)
    if pair_sum is not None:  # The sum of two rows forgets the shorter row if the other is much longer.
        is_usual &= jnp.max(norms) <= ALIKE**2 * jnp.min(norms)

    def scaled() -> tuple[jax.Array, Params | None]:
        gram = gram_fn(scaled_rows(endpoints, chosen, scales), mask)
        inverse_norms = cosines(gram)[1] * scales
        return gram, None if pair_sum is None else _sum(scaled_rows(endpoints, chosen, inverse_norms))

    gram, pair_sum = corrected(is_usual, (gram, pair_sum), scaled)
    cosine, inverse_norms = cosines(gram)
    inverse_norms *= scales
    p = len(chosen)
    num_pairs = p * (p - 1) // 2
    weights = 2 / num_pairs * (cosine - jnp.diag(jnp.sum(cosine * cosine, axis=1)))
    sum_weights = None
    if pair_sum is not None:
        own, other = jnp.diagonal(weights), weights[0, 1]
        usual = jnp.stack([own * inverse_norms - other * inverse_norms[::-1], other * inverse_norms[::-1]], axis=1)
        unlike = jnp.stack([(own - other) * inverse_norms, jnp.broadcast_to(other, (2,))], axis=1)
        sum_weights = _placed(jnp.where(is_usual, usual, unlike), chosen, m)
    return Penalty(
        value=mean_over_pairs(cosine),
        weights=_placed(weights, chosen, m),
        inverse_norms=_placed(inverse_norms, chosen, m),
        chosen=chosen,
        mask=mask,
        pair_sum=pair_sum,
        sum_weights=sum_weights,
    )


def _all_cosines(
    endpoints: Endpoints, mask: Mask, origin: Params | None, pairs: Pairs | None
) -> tuple[jax.Array, jax.Array]:
    """`cosines.cosines` of all endpoints, or of their task vectors. The inverse norms are those of scaled endpoints."""
    if pairs is not None:
        return product_cosines(endpoints, counted(mask, endpoints, pairs), pairs, origin)
    m = tree.num_endpoints(endpoints, "cosines_squared(endpoints, mask)")
    counts = leaf_kinds.resolve_mask(mask, endpoints)
    compared = task_vectors(endpoints, origin, counts)
    scales = factors(_gram(jax.lax.stop_gradient(compared), jnp.ones(m), counts))
    # The rows are always compared twice, without `corrected` and its condition. Only a measurement can afford it.
    return cosines(_gram(compared, scales, counts))


def _gram(endpoints: Endpoints, scales: jax.Array, counts: LeafMask) -> jax.Array:
    """The inner products ``[m, m]`` of the endpoints, each times its scale ``[m]``."""

    def scaled(leaf: jax.Array) -> jax.Array:
        wide = leaf.astype(tree.accumulator(leaf.dtype))
        return wide * scales.astype(wide.dtype).reshape((-1,) + (1,) * (leaf.ndim - 1))

    return inner_products.over_pairs(operator.mul, jax.tree.map(scaled, endpoints), counts)


def _squared_difference(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.square(x - y)


def _placed(values: jax.Array, chosen: tuple[Any, ...], m: int) -> jax.Array:
    """Numbers of the chosen endpoints ``[p, ...]`` in their rows of ``[m, ...]``, with zeros for the others."""
    is_all = all(isinstance(i, int) for i in chosen) and chosen == tuple(range(m))
    return values if is_all else jnp.zeros((m, *values.shape[1:]), values.dtype).at[jnp.array(chosen)].set(values)


def _sum(rows: Sequence[Params]) -> Params:
    return jax.tree.map(lambda *leaves: sum(leaf.astype(tree.accumulator(leaf.dtype)) for leaf in leaves), *rows)
