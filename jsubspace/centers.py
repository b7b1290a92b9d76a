"""Two options that train the center of a subspace faster: weights of the pull-back, and the spread of alpha.

With the coefficients c of the sampled point as weights of the pull-back, the center of a simplex moves at 1/m of the rate.
The weights w are the nearest to c with which it moves at the whole rate, sum_i c*_i w_i = 1 for the center's coefficients c*:

    w = c + (1 - c* . c) c* / |c*|^2.

A network at a random position is trained under the noise of the position. The spread r scales this noise: the position is
(1 - r) center + r u for a position u that was drawn uniformly. docs/center.md derives both.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments
from jsubspace.subspaces import Subspace
from jsubspace.types import Alpha

PLAIN, CENTER = "plain", "center"
PULL_BACKS = (PLAIN, CENTER)
"""The weights of the pull-back: the coefficients of the point, as in the paper, or those that move the center like one network."""

UNEQUAL = 0.4
"""The least ratio of two coefficients of the center at which both endpoints are trained well. A curve with one bend has 0.5."""


def center_coefficients(subspace: Subspace) -> np.ndarray:
    """c*, the weights of the endpoints at the center: ``[m]``."""
    with jax.ensure_compile_time_eval():  # The center is a constant, also while a program is traced.
        return np.asarray(subspace.coefficients(jnp.asarray(subspace.center)))


def pull_back_weights(subspace: Subspace, weights: Any, kind: str) -> Any:
    """The weights with which the gradient at a point is pulled back.

    Args:
      subspace: the subspace that is trained.
      weights: c, ``[m]``, or (layerwise) a tree of them. Layers that are stacked for a scan have ``[m, L]``.
      kind: one of `PULL_BACKS`.

    Returns:
      w like the weights. For "plain" they are the weights themselves.

    Example:
      >>> import jsubspace
      >>> pull_back_weights(jsubspace.Line(), jnp.array([0.75, 0.25]), CENTER).tolist()
      [1.25, 0.75]
    """
    if kind == PLAIN:
        return weights
    center = center_coefficients(subspace)

    def nearest(c: jax.Array) -> jax.Array:
        start = jnp.reshape(jnp.asarray(center, c.dtype), (-1,) + (1,) * (c.ndim - 1))
        return c + (1 - jnp.sum(start * c, axis=0)) * (start / jnp.sum(start * start))

    return jax.tree.map(nearest, weights)


def drawn_together(subspace: Subspace, alpha: Alpha, spread: float | jax.Array) -> Alpha:
    """Positions ``alpha`` that are moved to the center: (1 - r) center + r alpha for the spread r.

    With r = 1 they are the same bits, and with the number 1 nothing is computed.
    """
    if not isinstance(spread, jax.Array) and spread == 1:
        return alpha

    def moved(alpha: jax.Array) -> jax.Array:
        r = jnp.asarray(spread, alpha.dtype)
        center = jnp.broadcast_to(jnp.asarray(subspace.center, alpha.dtype), alpha.shape)
        return (1 - r) * center + r * alpha

    return jax.tree.map(moved, alpha)


def check_center(subspace: Subspace, option: str) -> None:
    """Checks that training around the center trains all endpoints.

    Raises:
      ValueError: if an endpoint has no weight at the center, as the ends of a chain and a part of a ring have none.

    Warns:
      UserWarning: if the weights at the center are unequal, as on a curve with several bends.
    """
    center = center_coefficients(arguments.subspace(subspace))
    least, largest = int(center.argmin()), int(center.argmax())
    if center[least] <= 1e-6:
        raise ValueError(
            f"{option} trains the center of {subspace} faster, but endpoint {least} has the weight {center[least]:.2g} there and "
            "would be left behind. Use it for a line, a simplex or a curve with one bend."
        )
    if center[least] < UNEQUAL * center[largest]:
        warnings.warn(
            f"{option} trains the endpoints of {subspace} by their weights at the center. Endpoint {least} has the weight "
            f"{center[least]:.2g}, and endpoint {largest} has {center[largest]:.2g}, so the first learns less. The option is meant "
            "for a line, a simplex and a curve with one bend.",
            stacklevel=4,
        )
