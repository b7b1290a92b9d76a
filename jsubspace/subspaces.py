"""Subspaces as mathematical objects: the weights that a position gives to the endpoints.

Every subspace of the paper is linear in its endpoints,

    P(alpha; omega_1, ..., omega_m) = sum_i c_i(alpha) omega_i,    sum_i c_i(alpha) = 1,

so a subspace *is* its coefficient map c, together with the distribution of alpha in training, the alpha of its
center, and the alphas that show it to a reader. A subspace holds no parameters. The endpoints are a pytree of their
own (`jsubspace.init_endpoints`).
"""

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments

MOST_BENDS = 98
"""The largest number of bends. The coefficients of a `Curve` are then products of normal float32 numbers."""


@runtime_checkable
class Subspace(Protocol):
    """The seven members that the library asks of a subspace.

    A subspace of your own with these members trains, and is measured and plotted like the library's.

    Example:
      >>> class Ring:
      ...   num_endpoints, alpha_shape, center, ends = 3, (), jnp.zeros(()), ()
      ...   def coefficients(self, alpha):
      ...     angles = 2 * jnp.pi * (jnp.asarray(alpha)[..., None] - jnp.arange(3) / 3)
      ...     return (1 + jnp.cos(angles)) / 3
      ...   def sample(self, key, shape=()):
      ...     return jax.random.uniform(key, shape)
      ...   def grid(self, n):
      ...     return np.arange(n) / n
      >>> isinstance(Ring(), Subspace)
      True
    """

    @property
    def num_endpoints(self) -> int:
        """m, the number of endpoints."""

    @property
    def alpha_shape(self) -> tuple[int, ...]:
        """Shape of one alpha: ``()`` for one-dimensional subspaces, ``(m,)`` for simplexes."""

    @property
    def center(self) -> jax.Array:
        """The alpha of the midpoint, ``[*alpha_shape]``."""

    @property
    def ends(self) -> tuple[Any, ...]:
        """The alphas of the networks that the subspace connects, each ``[*alpha_shape]``. A ring has no ends: ``()``.

        A subspace with two ends and a scalar alpha is a path from one end to the other.
        """

    def coefficients(self, alpha: jax.Array) -> jax.Array:
        """Weights of the endpoints: ``[*batch, *alpha_shape] -> [*batch, m]``, each row summing to 1."""

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Independent alphas, uniform on the domain: ``[*shape, *alpha_shape]``."""

    def grid(self, n: int) -> np.ndarray:
        """Alphas that show the whole subspace, ``[q, *alpha_shape]``, in the order of a plot.

        n is the number of alphas along each axis. A path's grid begins and ends with its ends. q may be 0 where a grid
        would be too large: the center, the ends and random alphas then represent the subspace.
        """


def is_path(subspace: Subspace) -> bool:
    """Whether the subspace is a path from one end to another: two ends and a scalar alpha."""
    return subspace.alpha_shape == () and len(subspace.ends) == 2


def is_hull(subspace: Subspace) -> bool:
    """Whether every endpoint is an end: end i has the coefficients e_i. True of lines and simplexes, not of curves."""
    m = subspace.num_endpoints
    if len(subspace.ends) != m:
        return False
    with jax.ensure_compile_time_eval():  # The ends are constants, also while a program is traced.
        weights = np.asarray(subspace.coefficients(jnp.asarray(np.asarray(subspace.ends, np.float32))))
    return bool(np.allclose(weights, np.eye(m), atol=1e-6))


def takes_weights(subspace: Subspace) -> bool:
    """Whether alpha is the vector of the endpoints' weights, as in a simplex."""
    return subspace.alpha_shape == (subspace.num_endpoints,) and is_hull(subspace)


@dataclasses.dataclass(frozen=True)
class Point:
    """A single network: standard training, as the subspace with one endpoint.

    Its alpha is a scalar, and the network does not depend on it.

    Example:
      >>> Point().coefficients(jnp.float32(0.3)).tolist()
      [1.0]
    """

    num_endpoints = 1
    alpha_shape = ()
    ends = ()

    @property
    def center(self) -> jax.Array:
        return jnp.zeros(())

    def coefficients(self, alpha: jax.Array) -> jax.Array:
        return jnp.ones((*jnp.shape(alpha), 1), jnp.result_type(alpha))

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        del key  # The only point needs no draw.
        return jnp.zeros(shape)

    def grid(self, n: int) -> np.ndarray:
        return np.zeros(1)


class _Path:
    """The interval [0, 1], from omega_1 at alpha = 0 to omega_2 at alpha = 1: the domain of lines, curves and chains."""

    alpha_shape = ()
    ends = (0.0, 1.0)

    @property
    def center(self) -> jax.Array:
        return jnp.full((), 0.5)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        return jax.random.uniform(key, shape)

    def grid(self, n: int) -> np.ndarray:
        return np.linspace(0, 1, n)


@dataclasses.dataclass(frozen=True)
class Line(_Path):
    """P(alpha) = (1 - alpha) omega_1 + alpha omega_2 for alpha in [0, 1] (section 3 of the paper).

    alpha = 0 and alpha = 1 are the endpoints, exactly. An alpha outside [0, 1] extrapolates.

    Example:
      >>> Line().coefficients(jnp.float32(0.25)).tolist()
      [0.75, 0.25]
    """

    num_endpoints = 2

    def coefficients(self, alpha: jax.Array) -> jax.Array:
        return jnp.stack([1 - alpha, alpha], axis=-1)


@dataclasses.dataclass(frozen=True)
class _Bent(_Path):
    """A path by way of the bends omega_3, omega_4, ...: what `Curve` and `Chain` share."""

    num_bends: int = 1

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "num_bends", arguments.integer(f"{name}: num_bends", self.num_bends))
        if not 1 <= self.num_bends <= MOST_BENDS:
            allowed = f"at least one bend and at most {MOST_BENDS}. Without a bend it is a Line()"
            raise ValueError(f"{name}(num_bends={self.num_bends}): a {name.lower()} has {allowed}.")

    @property
    def num_endpoints(self) -> int:
        return self.num_bends + 2


@dataclasses.dataclass(frozen=True)
class Curve(_Bent):
    """A Bezier curve from omega_1 to omega_2, pulled towards its bends omega_3, omega_4, ...

    With one bend, the paper's P(alpha) = (1-alpha)^2 omega_1 + alpha^2 omega_2 + 2 alpha (1-alpha) omega_3.
    With b bends, the Bezier curve of degree b + 1 whose control points in order are omega_1, omega_3, ..., omega_m, omega_2.
    The two ends come first whatever the number of bends, as in the authors' program.

    Args:
      num_bends: number of control points between the two ends, from 1 to `MOST_BENDS`.

    Example:
      >>> Curve().coefficients(jnp.float32(0.5)).tolist()
      [0.25, 0.25, 0.5]
    """

    def coefficients(self, alpha: jax.Array) -> jax.Array:
        degree = self.num_bends + 1
        bernstein = [float(math.comb(degree, k)) * (1 - alpha) ** (degree - k) * alpha**k for k in range(degree + 1)]
        first, *bends, last = bernstein
        return jnp.stack([first, last, *bends], axis=-1)


@dataclasses.dataclass(frozen=True)
class Chain(_Bent):
    """Line segments from omega_1 over the bends omega_3, omega_4 and so on to omega_2: a polygonal chain.

    With b bends, alpha = i / (b + 1) is exactly the i-th point of the chain, also where alpha is rounded. P is linear between two neighbouring points.
    Garipov et al. (2018) connect two trained networks by such a chain. The two ends come first, as in `Curve`. An alpha
    outside [0, 1] continues along the first or the last segment.

    Args:
      num_bends: number of points between the two ends, from 1 to `MOST_BENDS`.

    Example:
      >>> Chain().coefficients(jnp.float32(0.25)).tolist()
      [0.5, 0.0, 0.5]
    """

    def coefficients(self, alpha: jax.Array) -> jax.Array:
        segments = self.num_bends + 1
        alpha = jnp.asarray(alpha)
        alpha = alpha if jnp.issubdtype(alpha.dtype, jnp.floating) else alpha.astype(float)
        position = alpha * segments
        segment = jnp.clip(jnp.floor(position), 0, segments - 1)
        start = segment
        for i in range(1, segments):  # At i / (b + 1) the product is often a rounding below or above i.
            is_point = alpha == np.asarray(i / segments, alpha.dtype)
            segment = jnp.where(is_point, i, segment)
            start = jnp.where(is_point, jax.lax.stop_gradient(position), start)
        rest = position - start
        first, *bends, last = [
            jnp.where(segment == i, 1 - rest, 0) + jnp.where(segment == i - 1, rest, 0) for i in range(segments + 1)
        ]
        return jnp.stack([first, last, *bends], axis=-1)


@dataclasses.dataclass(frozen=True)
class Simplex:
    """The convex hull P(alpha) = sum_i alpha_i omega_i for alpha on the probability simplex.

    alpha is the vector of weights ``[m]``. Weights outside the simplex extrapolate as long as they sum to 1. Training draws
    them uniformly, as normalised Exp(1) variables: the distribution is Dirichlet(1, ..., 1). If all variables are 0, which float32 allows, the draw is the center.
    The grid is empty, since a grid of an m-simplex grows with n^(m - 1).

    Args:
      num_endpoints: m, at least 1. ``Simplex(2)`` is a line whose alpha is written as two weights.

    Example:
      >>> Simplex(4).center.tolist()
      [0.25, 0.25, 0.25, 0.25]
    """

    num_endpoints: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_endpoints", arguments.integer("Simplex: num_endpoints", self.num_endpoints))
        if self.num_endpoints < 1:
            raise ValueError(f"Simplex(num_endpoints={self.num_endpoints}): a simplex has at least one endpoint.")

    @property
    def alpha_shape(self) -> tuple[int, ...]:
        return (self.num_endpoints,)

    @property
    def center(self) -> jax.Array:
        return jnp.full(self.num_endpoints, 1 / self.num_endpoints)

    @property
    def ends(self) -> tuple[np.ndarray, ...]:
        return tuple(np.eye(self.num_endpoints))

    def grid(self, n: int) -> np.ndarray:
        return np.zeros((0, self.num_endpoints))

    def coefficients(self, alpha: jax.Array) -> jax.Array:
        return alpha

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        return _normalized(jax.random.exponential(key, (*shape, self.num_endpoints)))


def _normalized(exponentials: jax.Array) -> jax.Array:
    """``[..., m]`` divided by the sum over the last axis, and 1 / m where the sum is 0."""
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    return jnp.where(total > 0, exponentials / jnp.where(total > 0, total, 1), 1 / exponentials.shape[-1])
