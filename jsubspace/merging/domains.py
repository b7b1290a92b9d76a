"""Where alpha may lie in a subspace, and the nearest such alpha."""

from collections.abc import Callable

import numpy as np

from jsubspace import subspaces
from jsubspace.subspaces import Subspace

Projection = Callable[[np.ndarray], np.ndarray]


def projection(subspace: Subspace) -> Projection:
    """The function that moves alphas ``[..., *alpha_shape]`` to the nearest alphas inside of the subspace's domain.

    The domain is the probability simplex where alpha is a vector of weights, the interval between the two ends on a path, and
    the smallest box around the grid elsewhere. A subspace with an empty grid that is no simplex has no bounds.

    Example:
      >>> projection(subspaces.Line())(np.array([-0.5, 0.3, 1.5])).tolist()
      [0.0, 0.3, 1.0]
    """
    if subspaces.takes_weights(subspace):
        return onto_simplex
    corners = subspace.ends if subspaces.is_path(subspace) else subspace.grid(_SIDE)
    if not len(corners):
        return lambda alphas: alphas
    points = np.asarray([np.asarray(corner, np.float64) for corner in corners])
    low, high = points.min(0), points.max(0)
    return lambda alphas: np.clip(alphas, low, high)


_SIDE = 33
"""The points along each axis of the grid that shows where a domain ends."""


def onto_simplex(weights: np.ndarray) -> np.ndarray:
    """The nearest weights ``[..., m]`` that are at least 0 and sum to 1 (Held, Wolfe and Crowder, 1974).

    Example:
      >>> onto_simplex(np.array([1.2, 0.4, -0.6])).round(6).tolist()
      [0.9, 0.1, 0.0]
    """
    descending = -np.sort(-weights, axis=-1)
    excess = (np.cumsum(descending, axis=-1) - 1) / np.arange(1, weights.shape[-1] + 1)
    last = np.sum(descending > excess, axis=-1, keepdims=True) - 1
    return np.maximum(weights - np.take_along_axis(excess, last, axis=-1), 0)
