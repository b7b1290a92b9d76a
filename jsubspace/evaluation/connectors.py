"""Is a subspace a connector of its ends (definitions 1 and 2 of the paper)?

P is a connector of psi_1, ..., psi_m if the mean accuracy along it is at least the mean accuracy of the ends,

    E_alpha [Acc(P(alpha))] >= (1 / m) sum_i Acc(psi_i),

where the paper's inequality is an approximate one. Here the difference of the two sides is estimated with a 95 % interval,
and the verdict allows for a tolerance.

The interval holds what another test set of this size would change (`bounds.of_differences`). Where the points are random
draws, it also holds what other draws would change. It cannot hold a pit so narrow that no draw and no grid point
lies in it. With fewer than about 3.9 / tolerance examples the verdict is never "yes".

Other tasks are judged by another score in the place of accuracy, for example the negative log-likelihood. Such a score has no
largest loss, so its interval is a plain t interval, and no number of examples is enough for every kind of loss.
"""

import math
from typing import Any

import numpy as np

from jsubspace.evaluation import bounds

_DRAWS = 2000
"""Draws of the largest error of all points, for levels up to `_HIGHEST_DRAWN`."""

_HIGHEST_DRAWN = 0.95
"""A level nearer to 1 would need more draws. There the union bound is nearly exact, unless most points are alike."""


def verdict(
    scores: np.ndarray,
    along: np.ndarray,
    ends: tuple[int, ...],
    end_weights: np.ndarray,
    *,
    draws: tuple[int, ...] = (),
    tolerance: float = 0.01,
    higher_is_better: bool = True,
    is_fraction: bool = True,
) -> dict[str, Any]:
    """Whether the points lie on a connector of the ends.

    Args:
      scores: ``[p, n]``, 1 where point p gets test example n right, else 0, or another score of the example.
      along: ``[p]``, weights of the points in the mean over the subspace, summing to 1: weights of a quadrature on a grid,
        equal weights of uniform draws.
      ends: the places of psi_1, ..., psi_m among the points.
      end_weights: ``[p, m]``, the convex combination of the ends that each point is compared with for its barrier:
        ``(1 - alpha, alpha)`` on a line or curve, alpha on a simplex.
      draws: the places of the points that are independent random draws, if the mean over the subspace is a mean over them.
      tolerance: how much accuracy may be missing for the paper's approximate inequality to hold.
      higher_is_better: whether a higher score is the better one.
      is_fraction: whether the scores lie between 0 and 1.

    Returns:
      A dictionary with

      mean_along, mean_of_ends: the two accuracies, or the two means of the score.
      difference: along minus ends, with its 95 % ``interval``. A loss is worse where it is positive.
      draws: the number of random draws behind the mean, or None for a grid.
      verdict: "yes" if the interval lies above -tolerance and there are enough examples for the tolerance, "no" if the
        interval lies below, else "undecided". For a loss, it is the interval of minus the difference. A score that is
        not finite leaves it undecided, and the numbers are NaN.
      tolerance: as given.
      barrier: the largest deficit of a point's accuracy against its combination of the ends' accuracies. The deficit is 0 at
        the ends, so the barrier is never negative. As a maximum of noisy numbers it is too high on average.
      barrier_interval: the 95 % interval of the largest true deficit of these points. It corrects this bias.
      barrier_at: the place of the point with the largest deficit.
    """
    sign = 1.0 if higher_is_better else -1.0
    correct = sign * np.asarray(scores, np.float64)
    if not np.isfinite(correct).all():
        return _unknown(correct, len(draws), tolerance)
    n, accuracy = correct.shape[-1], correct.mean(-1)
    of_ends = correct[list(ends)]
    of_example = along @ correct - of_ends.mean(0)
    between = accuracy[list(draws)] - accuracy[list(ends)].mean()
    low, high = bounds.of_differences(of_example, between=between, bounded=is_fraction)
    enough = bounds.of_differences(np.zeros(n))[0] >= -tolerance if is_fraction else n >= bounds.FEWEST
    deficits = end_weights @ of_ends - correct
    deficits[list(ends)] = 0  # exactly: the sum above may round
    deficit = deficits.mean(-1)
    highest = int(np.argmax(deficit))
    return {
        "mean_along": sign * float(along @ accuracy),
        "mean_of_ends": sign * float(accuracy[list(ends)].mean()),
        "difference": sign * float(of_example.mean()),
        "interval": [low, high] if higher_is_better else [-high, -low],
        "draws": len(draws) or None,
        "tolerance": tolerance,
        "verdict": _judged(low, high, tolerance, enough, is_fraction),
        "barrier": float(deficit[highest]),
        "barrier_interval": of_largest(np.delete(deficits, list(ends), axis=0), is_fraction),
        "barrier_at": highest,
    }


def of_largest(deficits: np.ndarray, is_fraction: bool, level: float = 0.95) -> list[float]:
    """The interval of the largest mean of several deficits ``[p, n]`` per example, or of 0 if all are negative.

    It has the probability ``level`` of holding the largest true mean, as far as the means of n examples are normal.

    The upper bound is the largest of the points' own upper bounds, since one of them belongs to the point with the largest
    true deficit. The lower bound must hold for all points at once. It is the largest of the points' lower bounds with a
    quantile of the largest of p correlated normal errors. Up to the level 0.95 this quantile is simulated. Above, it is the
    quantile of one error at the level 1 - (1 - level) / p, which is never too small (the union bound). Four examples are added to the n as in `bounds.of_differences`, if the scores lie between 0 and 1.
    """
    p, n = deficits.shape
    extra, widest = (bounds.EXTRA, 1.0) if is_fraction else (0, np.inf)
    if not p:
        return [0.0, 0.0]
    total = n + extra
    if total == 1:
        return [0.0, widest]
    mean = deficits.sum(-1) / total
    centred = deficits - mean[:, None]
    covariance = (centred @ centred.T + extra * (np.eye(p) + np.outer(mean, mean))) / total
    error = np.sqrt(np.diag(covariance) / total)
    if not is_fraction:  # A t interval, from the variance with n - 1 degrees of freedom.
        error *= bounds.t_quantile(n - 1, level) / bounds.normal_quantile(level) * math.sqrt(n / (n - 1))
    at_once = _at_once(covariance, level)
    low, high = (mean - at_once * error).max(), (mean + bounds.normal_quantile(level) * error).max()
    return [float(np.clip(low, 0, widest)), float(np.clip(high, 0, widest))]


def _at_once(covariance: np.ndarray, level: float) -> float:
    """The number that all of p normal errors with this covariance stay below with probability (1 + level) / 2, in standard deviations."""
    p = len(covariance)
    if p == 1 or level > _HIGHEST_DRAWN:
        return bounds.normal_quantile(1 - (1 - level) / p)
    spread = np.sqrt(np.diag(covariance))
    errors = np.random.default_rng(0).normal(size=(_DRAWS, p)) @ _root(covariance).T / np.where(spread > 0, spread, 1)
    return float(np.quantile(errors.max(-1), (1 + level) / 2))


def _unknown(scores: np.ndarray, num_draws: int, tolerance: float) -> dict[str, Any]:
    """The verdict where a score is not finite."""
    numbers = dict.fromkeys(("mean_along", "mean_of_ends", "difference", "barrier"), math.nan)
    first = int(np.flatnonzero(~np.isfinite(scores).all(-1))[0])
    intervals = {"interval": [math.nan, math.nan], "barrier_interval": [math.nan, math.nan], "barrier_at": first}
    return numbers | intervals | {"draws": num_draws or None, "tolerance": tolerance, "verdict": "undecided"}


def _judged(low: float, high: float, tolerance: float, enough: bool, is_fraction: bool) -> str:
    """The verdict of an interval. It is "yes" only with enough examples, whatever these few examples say.

    The interval of a few fractions is wide enough for "no". The interval of a few numbers without bounds is not.
    """
    if low >= -tolerance and enough:
        return "yes"
    return "no" if high < -tolerance and (enough or is_fraction) else "undecided"


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix R with R R^T = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def trapezoid(alphas: np.ndarray) -> np.ndarray:
    """Weights ``[p]`` of the trapezoid rule for the mean over the interval that increasing ``alphas [p]`` span.

    Example:
      >>> trapezoid(np.array([0.0, 0.5, 1.0])).tolist()
      [0.25, 0.5, 0.25]
    """
    widths = np.diff(alphas)
    return np.concatenate([widths, [0.0]]) / 2 / widths.sum() + np.concatenate([[0.0], widths]) / 2 / widths.sum()


def mesh(num_endpoints: int, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """A regular grid on the simplex of two or three endpoints, and the weights of the trapezoid rule on it.

    Args:
      num_endpoints: m, 2 or 3.
      num_points: the number of grid points, at least 3, since two are the corners alone. On a triangle it is rounded down to a
        triangular number, at least 6.

    Returns:
      alphas ``[q, m]``, and weights ``[q]`` that sum to 1. A grid point's weight is its number of neighbouring cells.

    Example:
      >>> alphas, weights = mesh(3, 6)
      >>> alphas[0].tolist(), (12 * weights).round(6).tolist()
      ([0.0, 0.0, 1.0], [1.0, 3.0, 1.0, 3.0, 3.0, 1.0])
    """
    if num_endpoints == 2:
        first = np.linspace(0, 1, max(num_points, 3))
        return np.stack([first, 1 - first], axis=-1), trapezoid(first)
    side = max(int((np.sqrt(8 * num_points + 1) - 1) / 2), 3) - 1
    alphas = np.array([(i, j, side - i - j) for i in range(side + 1) for j in range(side + 1 - i)]) / side
    cells = np.array([6, 3, 1])[(alphas == 0).sum(-1)]
    return alphas, cells / cells.sum()
