"""The barrier between networks: how much higher the loss is between them than the losses at the ends let expect.

On the segment (1 - t) a + t b, the barrier is

    max over t of  loss(t) - ((1 - t) loss(0) + t loss(1)),

and never negative, since it is 0 at the ends (Frankle et al., 2020, and Entezari et al., 2022). It is estimated on a grid of
positions. Its interval holds what other examples would change, and accounts for the maximum (`connectors.of_largest`). A
peak between two positions of the grid is not seen.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jsubspace.evaluation import bounds, connectors

CONNECTED, NOT_CONNECTED, NOT_DECIDED = "connected", "not connected", "not decided"


@dataclasses.dataclass(frozen=True)
class Barrier:
    """The barrier on a segment between two networks, or at the mean of several.

    Attributes:
      names: of the networks.
      positions: t of the points, from 0 to 1. For a mean of several networks it is empty.
      losses: the mean loss of every point. For a mean of several networks it is the mean's loss alone.
      height: the largest excess of the loss, at least 0.
      interval: of the largest true excess of these points.
      at: t of the largest excess, or None for a mean.
      verdict: "connected" if the interval ends at or below the tolerance, "not connected" if it begins above the tolerance, else
        "not decided". With fewer than 30 examples it is "not decided". A loss that is not finite between the ends is an infinite
        barrier.
    """

    names: tuple[str, ...]
    positions: tuple[float, ...]
    losses: tuple[float, ...]
    height: float
    interval: tuple[float, float]
    at: float | None
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The fields as dictionaries, lists and numbers."""
        return dataclasses.asdict(self)


def along(
    names: Sequence[str], positions: np.ndarray, losses: np.ndarray, tolerance: float, level: float = 0.95
) -> Barrier:
    """The barrier on a segment.

    Args:
      names: of the two networks.
      positions: ``[q]``, increasing from 0 to 1.
      losses: ``[q, n]``, of every point and example. The two ends are finite.
      tolerance: the excess of the loss that is allowed.
      level: of the interval.

    Example:
      >>> losses = np.tile([[1.0], [3.0], [2.0]], 50)
      >>> found = along(("a", "b"), np.array([0, 0.5, 1]), losses, tolerance=0.02)
      >>> found.height, found.at, found.verdict
      (1.5, 0.5, 'not connected')
    """
    losses = np.asarray(losses, np.float64)
    chord = (1 - positions)[1:-1, None] * losses[0] + positions[1:-1, None] * losses[-1]
    height, interval, verdict, worst = _judged(losses[1:-1] - chord, tolerance, level)
    return Barrier(
        tuple(names), tuple(positions.tolist()), tuple(losses.mean(-1).tolist()), height, interval,
        float(positions[1:-1][worst]) if height > 0 else 0.0, verdict,
    )  # fmt: skip


def at_mean(
    names: Sequence[str], of_networks: np.ndarray, of_mean: np.ndarray, tolerance: float, level: float = 0.95
) -> Barrier:
    """The excess of the loss at the mean of m networks over the mean of their losses.

    Args:
      names: of the networks.
      of_networks: ``[m, n]``, finite losses of the networks.
      of_mean: ``[n]``, losses of their mean.
      tolerance: the excess that is allowed.
      level: of the interval.
    """
    of_mean = np.asarray(of_mean, np.float64)
    excess = of_mean - np.asarray(of_networks, np.float64).mean(0)
    height, interval, verdict, _ = _judged(excess[None], tolerance, level)
    return Barrier(tuple(names), (), (float(of_mean.mean()),), height, interval, None, verdict)


def _judged(excess: np.ndarray, tolerance: float, level: float) -> tuple[float, tuple[float, float], str, int]:
    """Height, interval, verdict and the place of the highest of several excesses ``[p, n]``."""
    finite = np.isfinite(excess).all(-1)
    if not finite.all():
        return math.inf, (math.inf, math.inf), NOT_CONNECTED, int(np.argmin(finite))
    means = excess.mean(-1)
    low, high = connectors.of_largest(excess, is_fraction=False, level=level)
    verdict = CONNECTED if high <= tolerance else NOT_CONNECTED if low > tolerance else NOT_DECIDED
    height = max(float(means.max()), 0.0)
    return height, (low, high), verdict if excess.shape[-1] >= bounds.FEWEST else NOT_DECIDED, int(np.argmax(means))
