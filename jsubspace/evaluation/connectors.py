"""Is a subspace a connector of its ends (definitions 1 and 2 of the paper)?

P is a connector of psi_1, ..., psi_m if the mean accuracy along it is at least the mean accuracy of the ends,

    E_alpha [Acc(P(alpha))] >= (1 / m) sum_i Acc(psi_i),

where the paper's inequality is an approximate one. Here the difference of the two sides is estimated with a bootstrap
interval over test examples, and the verdict allows for a tolerance.
"""

from typing import Any

import numpy as np

from jsubspace.evaluation import estimates


def verdict(
    correct: np.ndarray,
    along: np.ndarray,
    ends: tuple[int, ...],
    end_weights: np.ndarray,
    *,
    tolerance: float = 0.01,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Whether the points lie on a connector of the ends.

    Args:
      correct: ``[p, n]``, 1 where point p gets test example n right, else 0.
      along: ``[p]``, weights of the points in the mean over the subspace, summing to 1: of a quadrature on a line or
        curve, equal ones for uniform draws from a simplex.
      ends: the places of psi_1, ..., psi_m among the points.
      end_weights: ``[p, m]``, the convex combination of the ends that each point is compared with for its barrier:
        ``(1 - alpha, alpha)`` on a line or curve, alpha on a simplex.
      tolerance: how much accuracy may be missing for the paper's approximate inequality to hold.
      num_resamples: of the bootstrap.

    Returns:
      A dictionary with

      mean_along, mean_of_ends: the two accuracies.
      difference: along minus ends, with its 95 % ``interval``.
      verdict: "yes" if the interval lies above -tolerance, "no" if it lies below, else "undecided".
      tolerance: as given.
      barrier: the largest deficit of a point's accuracy against its combination of the ends' accuracies. The deficit is 0 at
        the ends, so the barrier is never negative.
      barrier_at: the place of the point with this deficit.
    """
    correct = np.asarray(correct, np.float64)
    accuracy = correct.mean(-1)
    of_example = along @ correct - correct[list(ends)].mean(0)
    n = len(of_example)
    low, high = estimates.percentiles(estimates.totals(estimates.resamples(n, num_resamples), of_example) / n)
    deficit = end_weights @ accuracy[list(ends)] - accuracy
    deficit[list(ends)] = 0  # exactly: the sum above may round
    highest = int(np.argmax(deficit))
    return {
        "mean_along": float(along @ accuracy),
        "mean_of_ends": float(accuracy[list(ends)].mean()),
        "difference": float(of_example.mean()),
        "interval": [float(low), float(high)],
        "tolerance": tolerance,
        "verdict": "yes" if low >= -tolerance else "no" if high < -tolerance else "undecided",
        "barrier": float(deficit[highest]),
        "barrier_at": highest,
    }


def trapezoid(alphas: np.ndarray) -> np.ndarray:
    """Weights ``[p]`` of the trapezoid rule for the mean over the interval that increasing ``alphas [p]`` span.

    Example:
      >>> trapezoid(np.array([0.0, 0.5, 1.0])).tolist()
      [0.25, 0.5, 0.25]
    """
    widths = np.diff(alphas)
    return np.concatenate([widths, [0.0]]) / 2 / widths.sum() + np.concatenate([[0.0], widths]) / 2 / widths.sum()
