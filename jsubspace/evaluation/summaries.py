"""Scores that are functions of means over examples, with intervals, for any task. Everything runs on the host in float64.

A score is f(m) for the means m over examples of a few numbers per example: the root of a mean square, or the sum of losses
divided by the sum of tokens. Examples are the units that are drawn independently. A sequence is one example, whatever the
number of its tokens is.

- Intervals (`intervals`) are percentiles of f over bootstrap resamples of the examples. A fraction has Wilson's interval.
- Values per example (`values`) make such a score a mean of one number per example. They are the jackknife's pseudo-values

      v_i = n f(m) - (n - 1) f(m without example i),

  shifted so that their mean is f(m). If f is a mean itself, v_i is the number of the example.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import numpy as np

from jsubspace.evaluation import bounds, estimates

PerExample: TypeAlias = Mapping[str, Any]
"""Arrays by name."""

Summary: TypeAlias = Callable[[PerExample], PerExample]
"""Scores from means, elementwise on arrays of any shape."""


def scores(per_example: PerExample, summary: Summary) -> dict[str, np.ndarray]:
    """The scores ``[...]`` by name, from numbers per example ``[..., n]``.

    Example:
      >>> found = scores({"square": np.array([1.0, 7.0])}, lambda means: {"root": means["square"] ** 0.5})
      >>> float(found["root"])
      2.0
    """
    return _of(summary, {name: _mean(values)[..., 0] for name, values in _on_host(per_example).items()})


def intervals(
    per_example: PerExample,
    summary: Summary,
    num_resamples: int = 1000,
    fractions: Collection[str] = (),
    level: float = 0.95,
) -> dict[str, np.ndarray]:
    """Intervals of `scores`: ``[..., 2]`` by name, from numbers per example ``[..., n]``.

    They are percentiles of resampled scores, which `estimates.expanded` moves away for few examples. A single example has no spread.
    The interval of a score that is no fraction is then all numbers. It does not go below 0 if no resample does.
    """
    host = _on_host(per_example)
    found, n = scores(host, summary), next(iter(host.values())).shape[-1]
    counts = estimates.resamples(n, num_resamples)
    resampled = _of(summary, {name: estimates.resampled_means(counts, values) for name, values in host.items()})
    everything = np.broadcast_to(np.array([-np.inf, np.inf]), (*np.shape(next(iter(found.values()))), 2))
    intervals = {}
    for name, values in found.items():
        if name in fractions:
            intervals[name] = bounds.of_fraction(values * n, n, level)
        elif n == 1:
            intervals[name] = everything
        else:
            pairs = zip(resampled[name].reshape(num_resamples, -1).T, np.ravel(values), strict=True)
            ends = [
                estimates.expanded(estimates.percentiles(column, level), score, n, level) for column, score in pairs
            ]
            never_negative = resampled[name].min() >= 0
            intervals[name] = np.maximum(np.stack(ends), 0 if never_negative else -np.inf).reshape(everything.shape)
    return intervals


def values(per_example: PerExample, summary: Summary) -> dict[str, np.ndarray]:
    """One number per example ``[..., n]`` for every score. Its mean is the score, and its variance shows the score's error.

    The numbers are NaN where a score is not finite.

    Example:
      >>> values({"loss": np.array([1.0, 5.0])}, lambda means: means)["loss"].tolist()
      [1.0, 5.0]
    """
    host = _on_host(per_example)
    n = next(iter(host.values())).shape[-1]
    whole = {name: _mean(array) for name, array in host.items()}
    found = _of(summary, whole)
    if n == 1:
        return found
    with np.errstate(invalid="ignore"):  # Infinity minus infinity is NaN, and means that there is no such number.
        without = _of(summary, {name: (n * whole[name] - array) / (n - 1) for name, array in host.items()})
        pseudo = {name: n * score - (n - 1) * without[name] for name, score in found.items()}
        return {name: array - array.mean(-1, keepdims=True) + found[name] for name, array in pseudo.items()}


def _of(summary: Summary, means: PerExample) -> dict[str, np.ndarray]:
    """The scores of means. A resample may have a score that is not finite. It is a result here and no reason for a warning."""
    with np.errstate(all="ignore"):
        return {name: np.asarray(score, np.float64) for name, score in summary(means).items()}


def _mean(array: np.ndarray) -> np.ndarray:
    """``[..., n] -> [..., 1]``. The mean of two infinities of different signs is NaN."""
    with np.errstate(invalid="ignore"):
        return array.mean(-1, keepdims=True)


def _on_host(per_example: PerExample) -> dict[str, np.ndarray]:
    return {name: np.asarray(array, np.float64) for name, array in per_example.items()}
