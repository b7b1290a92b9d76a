"""Intervals in closed form: of a fraction, of a mean over runs, and of a mean difference over examples.

Every interval has two tails of equal size. A level of 0.95 means that each bound misses the truth with probability 0.025.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

EXTRA = 4
"""Examples that `of_differences` adds: two with the difference 1 and two with the difference -1."""

FEWEST = 30
"""With fewer examples no interval of a score without bounds is worth its name, and nothing is decided from it."""


def of_fraction(successes: np.ndarray, n: int, level: float = 0.95) -> np.ndarray:
    """Wilson's interval (1927) for the fraction of successes among n examples: ``[...] -> [..., 2]``.

    It never has width 0. Without a failure among n examples, its lower bound is 1 - 3.84 / (n + 3.84).

    Example:
      >>> of_fraction(np.array(100), 100).round(3).tolist()
      [0.963, 1.0]
    """
    z = normal_quantile(level)
    fraction = np.asarray(successes, np.float64) / n
    middle = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return np.clip(np.stack([middle - half, middle + half], axis=-1), 0, 1)


def of_runs(values: Sequence[float], level: float = 0.95) -> list[float] | None:
    """The t interval of the mean over n independent runs, with n - 1 degrees of freedom.

    It is None for a single run. Equal values have an interval of width 0: ask `without_spread` whether it means anything.

    Example:
      >>> [round(bound, 3) for bound in of_runs([0.80, 0.82, 0.81])]
      [0.785, 0.835]
    """
    if len(values) < 2:
        return None
    half = t_quantile(len(values) - 1, level) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return [mean - half, mean + half]


def without_spread(values: Sequence[float]) -> bool:
    """Whether a few runs have one value: a single run, or fewer than `FEWEST` equal ones. Scores of a small test set often agree.

    Example:
      >>> without_spread([0.94, 0.94])  # No certainty: two runs read the same number of images.
      True
    """
    n = len(values)
    return n < 2 or (n < FEWEST and float(np.std(values)) <= 1e-9 * abs(float(np.mean(values))))


def of_differences(
    differences: np.ndarray, level: float = 0.95, between: Sequence[float] = (), bounded: bool = True
) -> list[float]:
    """The interval of a mean of differences, one per example. They lie in [-1, 1], or are not ``bounded``.

    It is a t interval of the n differences and four more: 1, 1, -1 and -1. The four are to differences what Agresti and
    Coull's (1998) four examples are to a fraction. Without them a sample without a difference would have the interval
    [0, 0]. With them it has about [-3.9 / n, 3.9 / n], which agrees with the rule of three: a loss that no example of n
    shows may still happen with a probability of 3.7 / n. Differences that are not bounded have the t interval of the n
    differences alone, since nobody knows how large a loss may be that no example shows.

    Args:
      differences: ``[n]``, what is compared.
      level: how often the interval holds the truth.
      between: if the mean is also a mean over independent random draws, its value for every draw, ``[k]``. The interval
        then also holds the variance over draws. Its degrees of freedom are Satterthwaite's (1946), at least k - 1. A single
        draw says nothing, and its interval is [-1, 1].
      bounded: whether the differences lie in [-1, 1]. If they do not, a single example or draw has an infinite interval.
    """
    extra, widest = (EXTRA, 1.0) if bounded else (0, math.inf)
    n = len(differences) + extra
    if n == 1:
        return [-widest, widest]
    mean = float(np.sum(differences)) / n
    squares = float(np.sum((np.asarray(differences, np.float64) - mean) ** 2)) + extra * (1 + mean * mean)
    of_examples = squares / n / (n if bounded else n - 1)
    variance, freedom = of_examples, float(n - 1)
    if len(between) == 1:
        return [-widest, widest]
    if len(between):
        of_draws = float(np.var(between, ddof=1)) / len(between)
        variance += of_draws
        terms = of_draws**2 / (len(between) - 1) + of_examples**2 / (n - 1)
        freedom = variance**2 / terms if terms else freedom
    half = t_quantile(int(freedom), level) * math.sqrt(variance)
    return [max(mean - half, -widest), min(mean + half, widest)]


def of_bounded(values: np.ndarray, largest: float) -> tuple[float, float]:
    """The 95 % interval of the mean of numbers between 0 and ``largest``, one per example, by `of_differences`.

    Example:
      >>> low, high = of_bounded(np.zeros(100), 1.0)
      >>> low, round(high, 3)
      (0.0, 0.046)
    """
    if largest == 0:
        return 0.0, 0.0
    low, high = of_differences(2 * np.asarray(values, np.float64) / largest - 1)
    return max(largest * (low + 1) / 2, 0.0), min(largest * (high + 1) / 2, largest)


def normal_quantile(level: float = 0.95) -> float:
    """The number z with P(|Z| <= z) = level for a standard normal Z."""
    return NormalDist().inv_cdf((1 + level) / 2)


def t_quantile(freedom: int, level: float = 0.95) -> float:
    """The number t with P(|T| <= t) = level for Student's T.

    Example:
      >>> round(t_quantile(2), 4)
      4.3027
    """
    z = normal_quantile(level)
    if freedom > 200:  # The next term of this series is below 1e-5.
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    low, high = 0.0, 1.0
    while 1 - t_tails(high, freedom) < level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - t_tails(middle, freedom) < level else (low, middle)
    return high


def t_tails(t: float, freedom: int) -> float:
    """P(|T| > t) for Student's T with a whole number of degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Example:
      >>> round(t_tails(4.3027, 2), 4)
      0.05
    """
    angle = math.atan2(abs(t), math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine * cosine * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(1 - inside, 0.0)
