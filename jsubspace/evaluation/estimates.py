"""From scores per example (`metrics`) to numbers for a table: means, calibration errors and intervals.

Everything here runs on the host in float64. `calibration` has the calibration errors and their intervals.

The intervals have a level of 95 %. They show how much a number would change with another test set of this size. They do not
show how much it would change with another training seed. docs/statistics.md has their coverage in a simulation.

- accuracy: Wilson's interval (`bounds.of_fraction`). It has a width even if every example is right.
- nll, brier: the 2.5 and 97.5 percentiles over bootstrap resamples of the test examples, moved away for few examples (`expanded`). All rows of a call use the same
  resamples, and so do all calls with the same number of examples. If losses are rare and large, as with a certain network,
  a small test set may contain no such loss, and the interval is then too short. An impossible label has an infinite
  NLL. The upper bound is then infinite, and the lower bound is finite if many resamples leave the label out.
- ece, ece_debiased, adaptive_ece: see `calibration`. The first two share one interval, because they estimate the same number.

A single example has no spread. The intervals of its nll, brier and calibration errors are then all that is possible.
"""

from typing import Any

import numpy as np

from jsubspace.evaluation import bounds, calibration
from jsubspace.evaluation.metrics import Difference, Scores

_BLOCK = 100  # resamples that are float64 at once: 40 MB for 50,000 examples
_POSSIBLE = {"nll": (0, np.inf), "brier": (0, 2), "ece": (0, 1), "ece_debiased": (0, 1), "adaptive_ece": (0, 1)}


def summarize(scores: Scores, num_bins: int = 20) -> dict[str, np.ndarray]:
    """Means over examples: accuracy, nll, brier, ece, ece_debiased and adaptive_ece, ``[..., n] -> [...]`` each.

    Example:
      >>> perfect = Scores(*(np.array([x, x]) for x in (1.0, 1.0, 0.0, 0.0)))
      >>> {name: float(value) for name, value in summarize(perfect).items()}
      {'accuracy': 1.0, 'nll': 0.0, 'brier': 0.0, 'ece': 0.0, 'ece_debiased': 0.0, 'adaptive_ece': 0.0}
    """
    host = _on_host(scores)
    by_width, by_mass = _binned(host, num_bins)
    return {
        "accuracy": host.correct.mean(-1),
        "nll": host.nll.mean(-1),
        "brier": host.brier.mean(-1),
        "ece": calibration.error(by_width),
        "ece_debiased": calibration.debiased_error(by_width),
        "adaptive_ece": calibration.error(by_mass),
    }


def intervals(
    scores: Scores, num_bins: int = 20, num_resamples: int = 1000, level: float = 0.95
) -> dict[str, np.ndarray]:
    """Intervals of what `summarize` returns: ``[..., n] -> [..., 2]`` each. The module's docstring explains them."""
    host = _on_host(scores)
    leading, n = host.correct.shape[:-1], host.correct.shape[-1]
    found = {"accuracy": bounds.of_fraction(host.correct.sum(-1), n, level)}
    if n == 1:
        return found | {name: np.broadcast_to(np.array(b, float), (*leading, 2)) for name, b in _POSSIBLE.items()}
    counts = resamples(n, num_resamples)
    by_width, by_mass = (calibration.error_interval(sums, level) for sums in _binned(host, num_bins))
    return found | {
        "nll": np.clip(_of_mean(counts, host.nll, level), *_POSSIBLE["nll"]),
        "brier": np.clip(_of_mean(counts, host.brier, level), *_POSSIBLE["brier"]),
        "ece": by_width,
        "ece_debiased": by_width,
        "adaptive_ece": by_mass,
    }


def resamples(num_examples: int, num_resamples: int) -> np.ndarray:
    """How often each of n examples is drawn in each of r resamples: ``[r, n]`` uint8, the same numbers in every call."""
    rng = np.random.default_rng(0)
    counts = np.empty((num_resamples, num_examples), np.uint8)
    for row in counts:
        row[:] = np.bincount(rng.integers(num_examples, size=num_examples), minlength=num_examples)
    return counts


def totals(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums over each resample: counts ``[r, n]`` and values ``[n]`` or ``[n, v]`` to ``[r]`` or ``[r, v]``."""
    blocks = range(0, len(counts), _BLOCK)
    return np.concatenate([counts[first : first + _BLOCK].astype(np.float64) @ values for first in blocks])


def resampled_means(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means over each resample: counts ``[r, n]`` and values ``[..., n]`` to ``[r, ...]``.

    A resample with an infinite value has this infinite mean, and NaN with infinite values of both signs.
    """
    n = counts.shape[1]
    flat = values.reshape(-1, n).T
    infinite = np.isinf(flat)
    means = totals(counts, np.where(infinite, 0, flat)) / n
    for sign in (1, -1) if infinite.any() else ():  # 0 times infinity would be NaN.
        drawn = totals(counts, (infinite & (flat * sign > 0)).astype(np.float64)) > 0
        with np.errstate(invalid="ignore"):
            means[drawn] += sign * np.inf
    return means.reshape(len(counts), *values.shape[:-1])


def percentiles(resampled: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The interval ``[2]`` that holds the fraction ``level`` of resampled numbers ``[r]``, which may be infinite."""
    tail = 50 * (1 - level)
    if np.isfinite(resampled).all():
        return np.percentile(resampled, [tail, 100 - tail])
    if np.isnan(resampled).any():
        return np.full(2, np.nan)
    # Between a finite and an infinite number there is no number to interpolate to.
    low, high = np.percentile(resampled, tail, method="lower"), np.percentile(resampled, 100 - tail, method="higher")
    return np.array([low, high])


def expanded(ends: np.ndarray, score: float, n: int, level: float = 0.95) -> np.ndarray:
    """Percentiles of resampled scores, moved away from the score of the n examples themselves.

    Resamples spread by sqrt((n - 1) / n) less than samples do, and their spread is itself an estimate. Both ends move away by the factor
    t / z sqrt(n / (n - 1)), with the quantiles of Student's t with n - 1 degrees of freedom and of a normal variable. The mean of
    normal numbers then has its t interval (Hesterberg, 2015, expands the percentiles by the same factor).
    """
    factor = bounds.t_quantile(n - 1, level) / bounds.normal_quantile(level) * (n / (n - 1)) ** 0.5
    return score + factor * (ends - score) if np.isfinite([*ends, score]).all() else ends


def reliability(scores: Scores, num_bins: int = 20) -> dict[str, Any]:
    """Count, mean confidence and accuracy of every bin for the scores ``[n]`` of one network, None for an empty bin."""
    host = _on_host(scores)
    bins = calibration.equal_width(host.confidence, num_bins)
    count = np.bincount(bins, minlength=num_bins)

    def mean(values: np.ndarray) -> list[float | None]:
        totals = np.bincount(bins, weights=values, minlength=num_bins)
        return [float(total / n) if n else None for total, n in zip(totals, count, strict=True)]

    return {"count": count.tolist(), "confidence": mean(host.confidence), "accuracy": mean(host.correct)}


def summarize_difference(differences: Difference) -> dict[str, Any]:
    """Means over examples, ``[..., n] -> [...]`` each.

    The means are disagreement, disagreement_where_one_is_right, tv_distance and feature_cosine_squared. The second mean is
    taken over the examples that at least one of the two networks gets right, and is 0 without such examples. For more than
    two networks it is taken over all cases of a pair and an example that one of the pair gets right. It is not the mean of
    the pairs' own fractions. feature_cosine_squared is None if no features are known.
    """
    host = Difference(*(None if leaf is None else np.asarray(leaf, np.float64) for leaf in differences))
    cosine = host.feature_cosine_squared
    right = host.one_is_right.sum(-1)
    useful = np.divide(host.disagreement_and_one_is_right.sum(-1), right, out=np.zeros_like(right), where=right > 0)
    return {
        "disagreement": host.disagreement.mean(-1),
        "disagreement_where_one_is_right": useful,
        "tv_distance": host.tv_distance.mean(-1),
        "feature_cosine_squared": None if cosine is None else cosine.mean(-1),
    }


def _binned(host: Scores, num_bins: int) -> tuple[calibration.Binned, calibration.Binned]:
    """The examples in bins of equal width, and in bins of equal numbers."""
    bins = calibration.equal_width(host.confidence, num_bins), calibration.equal_mass(host.confidence, num_bins)
    by_width, by_mass = (calibration.binned(one, num_bins, host.confidence, host.correct) for one in bins)
    return by_width, by_mass


def _of_mean(counts: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """Bootstrap intervals of means: ``[..., n] -> [..., 2]``."""
    n, of_values = values.shape[-1], values.reshape(-1, values.shape[-1])
    means = resampled_means(counts, of_values).reshape(len(counts), -1)
    pairs = zip(means.T, of_values, strict=True)
    found = [expanded(percentiles(column, level), one.mean(), n, level) for column, one in pairs]
    return np.stack(found).reshape(*values.shape[:-1], 2)


def _on_host(scores: Scores) -> Scores:
    return Scores(*(np.asarray(leaf, np.float64) for leaf in scores))
