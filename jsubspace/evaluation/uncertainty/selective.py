"""Answers that may be refused: the risk among the most confident examples, and the area under the curve.

The coverage is the part of the examples that is answered, the most confident first. The risk is the part of the answers that is wrong.
A user reads the curve as: if the network may refuse one example in ten, how many of its answers are wrong?
Everything runs on the host in float64.
"""

import math
from typing import NamedTuple

import numpy as np

from jsubspace.evaluation import bounds


class Selective(NamedTuple):
    """The risk of answers that may be refused.

    Attributes:
      aurc: the area under the risk-coverage curve, the mean of the risk over coverages 1/n, 2/n, ..., 1 (Geifman and El-Yaniv,
        2017). Lower is better.
      aurc_interval: its 95 % interval.
      excess_aurc: the area minus the area of the best order, in which every error comes last.
      coverage, risk: the curve, ``[s]`` each.
    """

    aurc: float
    aurc_interval: tuple[float, float]
    excess_aurc: float
    coverage: np.ndarray
    risk: np.ndarray

    def to_json(self) -> dict[str, object]:
        """The numbers as dictionaries and lists."""
        return {
            "aurc": self.aurc,
            "aurc_interval": list(self.aurc_interval),
            "excess_aurc": self.excess_aurc,
            "coverage": self.coverage.tolist(),
            "risk": self.risk.tolist(),
        }


def selective(
    confidence: np.ndarray, correct: np.ndarray, num_resamples: int = 1000, num_points: int = 100, level: float = 0.95
) -> Selective:
    """The risk-coverage curve of one network.

    Examples of the same confidence have no order. Each of them counts as the mean of them all.

    Args:
      confidence: ``[n]``, higher for examples that are answered first.
      correct: ``[n]``, 1 for a right answer, else 0.
      num_resamples: the number of bootstrap resamples for the interval.
      num_points: the most points of the curve that is returned.
      level: of the interval.

    Raises:
      ValueError: if there is no example, or a confidence is NaN.

    Example:
      >>> found = selective(np.array([0.9, 0.8, 0.6]), np.array([1, 1, 0]))
      >>> round(found.aurc, 4), found.excess_aurc
      (0.1111, 0.0)
    """
    confidence, wrong = np.asarray(confidence, np.float64), 1 - np.asarray(correct, np.float64)
    n = len(confidence)
    if confidence.ndim != 1 or n == 0 or wrong.shape != confidence.shape:
        raise ValueError(
            f"the confidences have the shape {list(confidence.shape)} and the answers {list(wrong.shape)}. Give one of each per example."
        )
    if np.isnan(confidence).any():
        raise ValueError(
            f"{int(np.isnan(confidence).sum())} of {n} confidences are NaN. Look at the outputs of the network."
        )
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], wrong[order]
    risks = _risks(confidence, wrong)
    area = float(risks.mean())
    best = float((np.cumsum(np.sort(wrong)) / np.arange(1, n + 1)).mean())
    rng = np.random.default_rng(0)
    resampled = [np.sort(rng.integers(0, n, n)) for _ in range(num_resamples if n > 1 else 0)]
    areas = np.array([_risks(confidence[drawn], wrong[drawn]).mean() for drawn in resampled])
    interval = _interval(area, areas, int(wrong.sum()), n, level)
    places = np.unique(np.linspace(0, n - 1, min(num_points, n)).round().astype(int))
    return Selective(
        area,
        (float(interval[0]), float(interval[1])),
        max(area - best, 0.0),
        (places + 1) / n,
        risks[places],
    )


def _risks(confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The risk after every example ``[n]``, for examples in order of their confidence."""
    _, group = np.unique(-confidence, return_inverse=True)
    mean = np.bincount(group, wrong) / np.bincount(group)
    return np.cumsum(mean[group]) / np.arange(1, len(wrong) + 1)


def _interval(area: float, resampled: np.ndarray, num_wrong: int, n: int, level: float) -> tuple[float, float]:
    """An interval of the logarithm, with the standard deviation over resamples.

    Percentiles are too short for a few hundred examples. The errors alone say how much the area varies, so the standard deviation has
    as many degrees of freedom as there are errors. Without an error among n examples, the area is at most the error rate, and
    Wilson's interval bounds this rate. If every example is an error, Wilson's interval bounds the rate r from below. The least area
    with this rate puts all errors last, and is the integral of max(1 - (1 - r) / x, 0) over the coverage x from 0 to 1.
    """
    if not len(resampled):
        return (0.0, 1.0)
    if num_wrong == n:
        rate = float(bounds.of_fraction(np.array(n), n, level)[0])
        return (rate + (1 - rate) * math.log(1 - rate), 1.0)
    if area == 0:
        return (0.0, float(bounds.of_fraction(np.array(0), n, level)[1]))
    positive = resampled[resampled > 0]
    half = bounds.t_quantile(num_wrong, level) * float(np.std(np.log(positive))) * (n / (n - 1)) ** 0.5
    return (area * math.exp(-half), min(area * math.exp(min(half, 700.0)), 1.0))
