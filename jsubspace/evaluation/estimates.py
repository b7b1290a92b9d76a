"""From scores per example (`metrics`) to numbers for a table: means, calibration errors and intervals.

Everything here runs on the host in float64.

The expected calibration error (Guo et al., 2017) sorts examples into bins by confidence and adds up the gaps:

    ECE = sum_b (n_b / n) |mean confidence in b - accuracy in b|.

The bins have equal widths (20 bins, as in the paper) or equal numbers of examples (the adaptive error by Nguyen and
O'Connor, 2015).

Intervals are the 2.5 and 97.5 percentiles over bootstrap resamples of the test examples. They show how much the number
would change with another test set of this size. They do not show how much it would change with another training seed.
All rows of a call use the same resamples, and so do all calls with the same number of examples. The ECE of a resample
is larger on average than the ECE of the sample, so the interval of a small ECE may lie above the ECE.
"""

from typing import Any

import numpy as np

from jsubspace.evaluation.metrics import Difference, Scores

_BLOCK = 100  # resamples that are float64 at once: 40 MB for 50,000 examples


def summarize(scores: Scores, num_bins: int = 20) -> dict[str, np.ndarray]:
    """Means over examples: accuracy, nll, brier, ece and adaptive_ece, ``[..., n] -> [...]`` each.

    Example:
      >>> perfect = Scores(*(np.array([x, x]) for x in (1.0, 1.0, 0.0, 0.0)))
      >>> {name: float(value) for name, value in summarize(perfect).items()}
      {'accuracy': 1.0, 'nll': 0.0, 'brier': 0.0, 'ece': 0.0, 'adaptive_ece': 0.0}
    """
    host = _on_host(scores)
    return {
        "accuracy": host.correct.mean(-1),
        "nll": host.nll.mean(-1),
        "brier": host.brier.mean(-1),
        "ece": _calibration_error(host, equal_width(host.confidence, num_bins), num_bins),
        "adaptive_ece": _calibration_error(host, equal_mass(host.confidence, num_bins), num_bins),
    }


def intervals(
    scores: Scores, num_bins: int = 20, num_resamples: int = 1000, level: float = 0.95
) -> dict[str, np.ndarray]:
    """Bootstrap intervals of what `summarize` returns: ``[..., n] -> [..., 2]`` each.

    The adaptive ECE uses the bins of the sample in every resample.
    """
    host = _on_host(scores)
    leading, n = host.correct.shape[:-1], host.correct.shape[-1]
    counts = resamples(n, num_resamples)
    rows = [
        _resampled(Scores(*leaves), counts, num_bins)
        for leaves in zip(*(leaf.reshape(-1, n) for leaf in host), strict=True)
    ]
    return {name: np.stack([percentiles(row[name], level) for row in rows]).reshape(*leading, 2) for name in rows[0]}


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


def percentiles(resampled: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The interval ``[2]`` that holds the fraction ``level`` of resampled numbers ``[r]``."""
    tail = 50 * (1 - level)
    return np.percentile(resampled, [tail, 100 - tail])


def reliability(scores: Scores, num_bins: int = 20) -> dict[str, Any]:
    """Count, mean confidence and accuracy of every bin for the scores ``[n]`` of one network, None for an empty bin."""
    host = _on_host(scores)
    bins = equal_width(host.confidence, num_bins)
    count = np.bincount(bins, minlength=num_bins)

    def mean(values: np.ndarray) -> list[float | None]:
        totals = np.bincount(bins, weights=values, minlength=num_bins)
        return [float(total / n) if n else None for total, n in zip(totals, count, strict=True)]

    return {"count": count.tolist(), "confidence": mean(host.confidence), "accuracy": mean(host.correct)}


def summarize_difference(differences: Difference) -> dict[str, Any]:
    """Means over examples, ``[..., n] -> [...]`` each.

    The means are disagreement, disagreement_where_one_is_right, tv_distance and feature_cosine_squared. The second mean
    is taken over the examples that at least one of the two networks gets right, and is 0 without such examples.
    feature_cosine_squared is None if no features are known.
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


def equal_width(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """The bin of each confidence, ``[..., n]`` integers. Bin i of b is ``(i / b, (i + 1) / b]``."""
    # NaN has no bin. It lands in the first one and makes the mean confidence there NaN.
    return np.clip(np.ceil(np.nan_to_num(confidence) * num_bins).astype(int) - 1, 0, num_bins - 1)


def equal_mass(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """The bin of each confidence, ``[..., n]`` integers, with nearly the same number of examples in every bin.

    Bins are chosen by rank. Examples of equal confidence keep their order.
    """
    n = confidence.shape[-1]
    rank = np.argsort(np.argsort(confidence, axis=-1, kind="stable"), axis=-1, kind="stable")
    return rank * num_bins // n


def _resampled(host: Scores, counts: np.ndarray, num_bins: int) -> dict[str, np.ndarray]:
    """The numbers of `summarize` for one network in each resample: scores ``[n]``, counts ``[r, n]`` to ``[r]`` each."""
    gap, n = host.confidence - host.correct, counts.shape[1]

    def calibration_error(bins: np.ndarray) -> np.ndarray:
        in_its_bin = np.where(bins[:, None] == np.arange(num_bins), gap[:, None], 0.0)
        return np.abs(totals(counts, in_its_bin)).sum(-1) / n

    return {
        "accuracy": totals(counts, host.correct) / n,
        "nll": totals(counts, host.nll) / n,
        "brier": totals(counts, host.brier) / n,
        "ece": calibration_error(equal_width(host.confidence, num_bins)),
        "adaptive_ece": calibration_error(equal_mass(host.confidence, num_bins)),
    }


def _calibration_error(host: Scores, bins: np.ndarray, num_bins: int) -> np.ndarray:
    gap = host.confidence - host.correct
    per_bin = np.stack([np.where(bins == b, gap, 0.0).sum(-1) for b in range(num_bins)], axis=-1)
    return np.abs(per_bin).sum(-1) / gap.shape[-1]


def _on_host(scores: Scores) -> Scores:
    return Scores(*(np.asarray(leaf, np.float64) for leaf in scores))
