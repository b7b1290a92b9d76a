"""Conformal prediction: sets of classes that hold the label with a probability of your choice.

Every class of an example has a score, high for a class that fits badly. On n calibration examples the scores of the labels are known, and
the threshold is their ceil((n + 1)(1 - miscoverage))-th smallest. The set of a new example holds the classes with scores up to the
threshold. If calibration and new examples are exchangeable, a set holds the label with a probability of at least 1 - miscoverage,
whatever the network is. This is a mean over examples: a class alone may have less (`Coverage.by_class`).

- "threshold": the score is 1 - p (Sadinle, Lei and Wasserman, 2019). Its sets are the smallest on average.
- "adaptive": the score is the probability of all likelier classes plus u p, with u drawn uniformly for each example (Romano, Sesia and
  Candes, 2020). Its sets are large where the network is uncertain.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.evaluation import bounds

THRESHOLD, ADAPTIVE = "threshold", "adaptive"
KINDS = (THRESHOLD, ADAPTIVE)


class Coverage(NamedTuple):
    """What sets of classes hold, on examples that were not used for calibration.

    Attributes:
      coverage: the part of the sets that holds the label.
      interval: its 95 % interval.
      size: the mean number of classes in a set.
      size_interval: its 95 % interval.
      by_class: the part for every class, ``[k]``, or NaN for a class without an example.
      by_class_intervals: ``[k, 2]``, each of 95 % for itself.
      threshold: above which scores are left out. It is infinite if there were too few calibration examples, and the sets then hold all
        classes.
    """

    coverage: float
    interval: tuple[float, float]
    size: float
    size_interval: tuple[float, float]
    by_class: np.ndarray
    by_class_intervals: np.ndarray
    threshold: float

    def to_json(self) -> dict[str, object]:
        """The numbers as lists. A class without an example has None, and so has an infinite threshold."""
        return {
            "coverage": self.coverage,
            "interval": list(self.interval),
            "size": self.size,
            "size_interval": list(self.size_interval),
            "by_class": [None if math.isnan(part) else float(part) for part in self.by_class],
            "by_class_intervals": self.by_class_intervals.tolist(),
            "threshold": self.threshold if math.isfinite(self.threshold) else None,
        }


def scores(probs: jax.Array, uniform: jax.Array, kind: str) -> jax.Array:
    """The score of every class: ``[n, k]``.

    Args:
      probs: ``[n, k]``.
      uniform: ``[n]``, between 0 and 1, drawn once for each example. Only "adaptive" uses it.
      kind: one of `KINDS`.

    Example:
      >>> probs = jnp.array([[0.5, 0.375, 0.125]])
      >>> scores(probs, jnp.array([0.5]), ADAPTIVE).tolist()
      [[0.25, 0.6875, 0.9375]]
    """
    if kind == THRESHOLD:
        return 1 - probs
    order = jnp.argsort(-probs, axis=-1)
    ordered = jnp.take_along_axis(probs, order, axis=-1)
    likelier = jnp.cumsum(ordered, axis=-1) - ordered
    back = jnp.argsort(order, axis=-1)
    return jnp.take_along_axis(likelier, back, axis=-1) + uniform[:, None] * probs


def quantile(calibration: np.ndarray, miscoverage: float) -> float:
    """The threshold from the scores of the calibration examples' labels, ``[n]``.

    Example:
      >>> quantile(np.arange(1, 10) / 10, 0.1), quantile(np.arange(1, 9) / 10, 0.1)
      (0.9, inf)
    """
    n = len(calibration)
    rank = math.ceil((n + 1) * (1 - miscoverage) - 1e-9)
    return math.inf if rank > n else float(np.partition(calibration, rank - 1)[rank - 1])


def coverage(
    covered: np.ndarray, sizes: np.ndarray, labels: np.ndarray, num_classes: int, threshold: float
) -> Coverage:
    """`Coverage` from what every new example says: whether its label is in its set, and how large the set is, ``[n]`` each."""
    n, covered = len(covered), np.asarray(covered, np.float64)
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels, covered, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        by_class = hits / counts
    intervals = np.array(
        [
            bounds.of_fraction(np.array(h), int(c)) if c else np.array([0.0, 1.0])
            for h, c in zip(hits, counts, strict=True)
        ]
    )
    whole = bounds.of_fraction(np.array(covered.sum()), n)
    return Coverage(
        coverage=float(covered.mean()),
        interval=(float(whole[0]), float(whole[1])),
        size=float(np.mean(sizes)),
        size_interval=bounds.of_bounded(sizes, num_classes),
        by_class=by_class,
        by_class_intervals=intervals,
        threshold=threshold,
    )
