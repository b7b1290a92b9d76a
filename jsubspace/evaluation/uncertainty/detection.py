"""How well a number per example tells one data set from another: AUROC, and the false positives at 95 % true positives.

The examples of the data set that the network was trained for are "inside", all others "outside". A score is high where the network
takes an example for an outside one, for example the entropy. Everything runs on the host in float64.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from jsubspace.evaluation import bounds, estimates

TRUE_POSITIVES = 0.95
"""The part of the inside examples that is accepted when false positives are counted."""


class Detection(NamedTuple):
    """How well a score finds outside examples.

    Attributes:
      auroc: the probability that an outside example has a higher score than an inside example. Equal scores count half.
      auroc_interval: its 95 % interval.
      fpr95: the part of the outside examples that is accepted if 95 % of the inside examples are.
      fpr95_interval: its 95 % interval.
    """

    auroc: float
    auroc_interval: tuple[float, float]
    fpr95: float
    fpr95_interval: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """The numbers as a dictionary."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}


def detect(inside: np.ndarray, outside: np.ndarray, num_resamples: int = 1000, level: float = 0.95) -> Detection:
    """`Detection` of the outside examples by a score that is higher for them.

    Args:
      inside: the scores of the inside examples, ``[n]``.
      outside: the scores of the outside examples, ``[q]``.
      num_resamples: the number of bootstrap resamples for the interval of fpr95.
      level: of the intervals.

    Raises:
      ValueError: if one of the two is empty, or a score is NaN.

    Example:
      >>> found = detect(np.array([0.0, 1.0, 2.0]), np.array([1.5, 3.0]))
      >>> round(found.auroc, 4), found.fpr95
      (0.8333, 0.5)
    """
    inside, outside = np.asarray(inside, np.float64), np.asarray(outside, np.float64)
    for name, scores in (("inside", inside), ("outside", outside)):
        if scores.ndim != 1 or not len(scores):
            raise ValueError(
                f"the scores of the {name} examples have the shape {list(scores.shape)}. Give one per example."
            )
        if np.isnan(scores).any():
            raise ValueError(
                f"{int(np.isnan(scores).sum())} of {len(scores)} {name} scores are NaN, which is neither high nor low. Look at the "
                "outputs of the network."
            )
    return Detection(
        auroc(inside, outside),
        auroc_interval(inside, outside, level),
        false_positives(inside, outside),
        _false_positives_interval(inside, outside, num_resamples, level),
    )


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The area under the curve of true against false positives: the probability that ``outside`` is higher."""
    return float(_parts_below(outside, inside).mean())


def auroc_interval(inside: np.ndarray, outside: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The interval of `auroc`: all areas a with |found - a| <= z sqrt(V(a)), as Wilson's interval of a fraction.

    V is the variance for exponential scores (Hanley and McNeil, 1982) with both sample sizes replaced by their mean (method 5 of
    Newcombe, 2006). It is enlarged if the variance that DeLong et al. (1988) estimate from the scores themselves is larger. The interval is
    open where no pair is in the wrong order.
    """
    n, q, z = len(inside), len(outside), bounds.normal_quantile(level)
    found = auroc(inside, outside)

    def variance(area: np.ndarray | float) -> Any:
        spread = (1 - area) / (2 - area) + area / (1 + area)
        return area * (1 - area) * (1 + ((n + q) / 2 - 1) * spread) / (n * q)

    factor = 1.0
    if min(n, q) > 1 and 0 < found < 1:
        above, below = _parts_below(outside, inside), _parts_below(inside, outside)
        factor = max(1.0, float(above.var(ddof=1) / q + below.var(ddof=1) / n) / variance(found))
    areas = np.linspace(0, 1, 200_001)
    inside_interval = areas[(found - areas) ** 2 <= z * z * factor * variance(areas)]
    return min(float(inside_interval[0]), found), max(float(inside_interval[-1]), found)


def false_positives(inside: np.ndarray, outside: np.ndarray) -> float:
    """The part of ``outside`` that is accepted by the lowest threshold that accepts `TRUE_POSITIVES` of ``inside``."""
    return float((outside <= _threshold(inside)).mean())


def _threshold(inside: np.ndarray) -> float:
    place = _accepted(len(inside)) - 1
    return float(np.partition(inside, place)[place])


def _accepted(n: int) -> int:
    """The least number of n inside examples that is at least `TRUE_POSITIVES` of them."""
    return math.ceil(TRUE_POSITIVES * n - 1e-9)


def _false_positives_interval(
    inside: np.ndarray, outside: np.ndarray, num_resamples: int, level: float
) -> tuple[float, float]:
    """Percentiles over resamples of the inside examples, each widened by Wilson's interval for the outside examples."""
    found = false_positives(inside, outside)
    if num_resamples < 1:
        return (0.0, 1.0)
    ordered, n, rng = np.sort(outside), len(inside), np.random.default_rng(0)
    # The k-th smallest of a resample is the element number ceil(n U) in order, for the k-th smallest U of n uniform numbers.
    accepted = _accepted(n)
    places = np.ceil(n * rng.beta(accepted, n + 1 - accepted, num_resamples)).astype(int)
    draws = np.sort(inside)[np.clip(places, 1, n) - 1]
    parts = np.searchsorted(ordered, draws, side="right") / len(ordered)
    counts = rng.binomial(len(ordered), np.clip((parts * len(ordered) + 0.5) / (len(ordered) + 1), 0, 1))
    low, high = estimates.percentiles(counts / len(ordered), level)
    wilson = bounds.of_fraction(np.array(found * len(outside)), len(outside), level)
    return min(float(low), float(wilson[0])), max(float(high), float(wilson[1]))


def _parts_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value, the part of the others that is lower. An equal one counts half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(others))
