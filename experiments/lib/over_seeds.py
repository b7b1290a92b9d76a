"""t intervals of a mean over seeds, for runs that are independent and for pairs that share networks."""

import math
from collections.abc import Sequence

import numpy as np

from jsubspace.evaluation import bounds


def error(values: Sequence[float], ring: bool = False) -> tuple[float, int]:
    """The standard error of the mean over n seeds, and its degrees of freedom.

    With ``ring``, the values are of the pairs (0, 1), (1, 2), ..., (n - 1, 0) of n networks. Neighbouring pairs share a network,
    so their values have a correlation rho. It is 1/2 at most: two pairs with a common network have at most half of a pair's
    variance in common (Hoeffding, 1948). The mean has the variance s^2 (1 + 2 rho) / n, and the sample variance is
    s^2 (1 - 2 rho / (n - 1)) on average. At rho = 1/2, the standard error of independent values is therefore too small by

        sqrt(2 (n - 1) / (n - 2)),

    and the sample variance has 2 (n - 2)^2 / (3 n - 8) degrees of freedom (Satterthwaite, 1946). Fewer than three networks have a
    single pair, and no error.

    Returns:
      The error, which is infinite if it is not known, and the degrees of freedom.
    """
    n = len(values)
    if n < (3 if ring else 2):
        return math.inf, 1
    plain = float(np.std(values, ddof=1)) / math.sqrt(n)
    return (plain * math.sqrt(2 * (n - 1) / (n - 2)), 2 * (n - 2) ** 2 // (3 * n - 8)) if ring else (plain, n - 1)


def interval(values: Sequence[float], ring: bool = False) -> list[float] | None:
    """The 95 % t interval of the mean over seeds, or None if `error` is not known.

    Example:
      >>> [round(end, 3) for end in interval([0.80, 0.82, 0.81])]
      [0.785, 0.835]
      >>> [round(end, 3) for end in interval([0.80, 0.82, 0.81], ring=True)]
      [0.76, 0.86]
    """
    of_mean, freedom = error(values, ring)
    if math.isinf(of_mean):
        return None
    half, mean = bounds.t_quantile(freedom) * of_mean, float(np.mean(values))
    return [mean - half, mean + half]
