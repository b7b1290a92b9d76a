"""The plane through three networks as a grid of points, for a picture of the loss around them (figure 2)."""

from typing import NamedTuple

import numpy as np


class Plane(NamedTuple):
    """A grid on a plane, in units of the L2 distance between networks.

    Attributes:
      corners: ``[3, 2]``, coordinates of the three networks. The first is the origin, the second lies on the x-axis.
      x, y: ``[g]``, coordinates of the grid's columns and rows.
      weights: ``[g * g, 3]``, the affine combination of the three networks at each grid point, row by row. Each row
        sums to 1.
    """

    corners: np.ndarray
    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray


def plane(distances: np.ndarray, num: int, margin: float = 0.2) -> Plane:
    """The plane through three networks with the given distances ``[3, 3]``.

    Three distances determine a triangle. Its corners are (0, 0), (d12, 0) and a third point above the x-axis, which
    follows from the law of cosines. The barycentric coordinates of a grid point are its weights.

    Args:
      distances: the distances between the networks over all parameters, symmetric.
      num: g, the number of grid points per side, at least 2.
      margin: how far the grid reaches beyond the triangle, as a fraction of its width and height.

    Raises:
      ValueError: if no triangle with a positive area has these distances, or num < 2.

    Example:
      >>> grid = plane(np.array([[0, 3, 4], [3, 0, 5], [4, 5, 0]]), num=3, margin=0.0)
      >>> grid.corners.tolist()
      [[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]
      >>> grid.weights[1].tolist()  # halfway between the first two
      [0.5, 0.5, 0.0]
    """
    if num < 2:
        raise ValueError(f"a plane's grid has at least 2 points per side, not {num}.")
    distances = np.asarray(distances, np.float64)
    if distances.shape != (3, 3):
        raise ValueError(
            f"a plane goes through 3 networks: distances are [3, 3], not {list(distances.shape)}. Choose three."
        )
    d12, d13, d23 = distances[0, 1], distances[0, 2], distances[1, 2]
    x3 = (d12**2 + d13**2 - d23**2) / (2 * d12) if d12 else 0.0
    height_squared = d13**2 - x3**2
    if d12 == 0 or height_squared <= 1e-6 * d12**2:
        raise ValueError(
            f"the networks have the distances {d12:.4g}, {d13:.4g} and {d23:.4g} and lie on a line: no plane is determined by them."
        )
    corners = np.array([[0.0, 0.0], [d12, 0.0], [x3, np.sqrt(height_squared)]])
    low, high = corners.min(0), corners.max(0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    x, y = np.linspace(low[0], high[0], num), np.linspace(low[1], high[1], num)
    columns, rows = np.meshgrid(x, y)
    third = rows / corners[2, 1]
    second = (columns - third * corners[2, 0]) / corners[1, 0]
    weights = np.stack([1 - second - third, second, third], axis=-1).reshape(-1, 3)
    return Plane(corners, x, y, weights)
