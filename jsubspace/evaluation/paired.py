"""How much two predictors differ on the same test examples, with an interval.

The examples are shared, so what is hard for both cancels. The interval holds what another test set of this size would change
for these networks. It knows nothing of other training seeds.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jsubspace.evaluation import bounds, calibration, estimates

_RESAMPLES = 500


def difference(
    ours: Sequence[Mapping[str, np.ndarray]],
    theirs: Sequence[Mapping[str, np.ndarray]],
    score: str,
    num_bins: int = 20,
) -> tuple[float, list[float]] | None:
    """For classifications, a score of ours minus the same score of theirs, with its 95 % interval.

    - accuracy: the interval of `bounds.of_differences`.
    - nll, brier: a t interval of the differences per example.
    - ece, ece_debiased, adaptive_ece: the difference of debiased errors, because plain errors have different biases. Its
      standard error comes from bootstrap resamples of the examples, which both predictors share. Where both true errors are
      small against their noise, the interval is about how the noise differs.

    Args:
      ours: the fields of `metrics.Scores` of one predictor, ``[n]`` each, one element per run. Runs are averaged.
      theirs: the same of the other predictor on the same examples.
      score: the name of the score.
      num_bins: the number of bins of the calibration errors.

    Returns:
      The difference and its interval, or None if they do not exist: scores that are not finite, or one example alone.
    """
    if score in ("ece", "ece_debiased", "adaptive_ece"):
        return _of_errors(ours, theirs, score, num_bins)
    leaf = {"accuracy": "correct"}.get(score, score)
    return of_means([run[leaf] for run in ours], [run[leaf] for run in theirs], is_fraction=score == "accuracy")


def of_means(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], is_fraction: bool = False
) -> tuple[float, list[float]] | None:
    """The mean of ours minus the mean of theirs, with its 95 % interval, for any number per example ``[n]`` of every run.

    It is a t interval of the differences per example, and for numbers between 0 and 1 (``is_fraction``) the interval of
    `bounds.of_differences`. It is None for numbers that are not finite, and for one example that is no fraction. Fewer than
    `bounds.FEWEST` equal differences tell nothing about others either, unless all are 0.
    """
    per_example, other = (np.asarray(side, np.float64).mean(0) for side in (ours, theirs))
    n = len(per_example)
    if not (np.isfinite(per_example).all() and np.isfinite(other).all()):
        return None
    per_example -= other
    mean = float(per_example.mean())
    if is_fraction:
        return mean, bounds.of_differences(per_example)
    spread = float(per_example.std(ddof=1)) if n > 1 else 0.0
    if n == 1 or (n < bounds.FEWEST and spread < 1e-9 * abs(mean)):
        return None
    half = bounds.t_quantile(n - 1) * spread / n**0.5
    return mean, [mean - half, mean + half]


def _of_errors(
    ours: Sequence[Mapping[str, np.ndarray]], theirs: Sequence[Mapping[str, np.ndarray]], score: str, num_bins: int
) -> tuple[float, list[float]] | None:
    n = len(ours[0]["correct"])
    if n == 1 or not all(np.isfinite(run["confidence"]).all() for run in (*ours, *theirs)):
        return None
    bins_of = calibration.equal_mass if score == "adaptive_ece" else calibration.equal_width
    counts, mean, resampled = estimates.resamples(n, _RESAMPLES), 0.0, np.zeros(_RESAMPLES)
    for side, sign in ((ours, 1), (theirs, -1)):
        for run in side:
            confidence, correct = (np.asarray(run[leaf], np.float64) for leaf in ("confidence", "correct"))
            bins = bins_of(confidence, num_bins)
            debiased, plain = _errors(bins, num_bins, confidence, correct, counts)
            mean += sign * debiased / len(side)
            resampled += sign * plain / len(side)
    half = bounds.normal_quantile() * float(np.std(resampled, ddof=1))
    return mean, [mean - half, mean + half]


def _errors(
    bins: np.ndarray, num_bins: int, confidence: np.ndarray, correct: np.ndarray, counts: np.ndarray
) -> tuple[float, np.ndarray]:
    """The debiased calibration error, and the plain one of every resample ``[r]``."""
    in_its_bin = np.where(bins[:, None] == np.arange(num_bins), (confidence - correct)[:, None], 0.0)
    resampled = np.abs(estimates.totals(counts, in_its_bin)).sum(-1) / len(correct)
    return float(calibration.debiased_error(calibration.binned(bins, num_bins, confidence, correct))), resampled
