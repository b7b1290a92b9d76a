"""Calibration errors from binned confidences: the plain estimate, an estimate without most of its bias, an interval.

The expected calibration error (Guo et al., 2017) adds up the gaps of bins of confidence:

    ECE = sum_b |d_b|,    d_b = (n_b / n) (mean confidence in b - accuracy in b).

The bins have equal widths, or equal numbers of examples (the adaptive error by Nguyen and O'Connor, 2015).

**Bias.** The accuracy of a bin is a mean over few examples. Its noise adds to |d_b| and never subtracts from it on average.
A perfectly calibrated network therefore has a positive ECE: often 0.02 to 0.04 for 1,000 examples and 20 bins.

**Debiased estimate** (Kumar et al., 2019, ``normal_debiased_ce`` in their code). The noise is added once more, and what
it adds to the ECE is subtracted from it:

    2 ECE - sum_b E|d_b + s_b Z|,    s_b^2 = (n_b / n^2) p_b (1 - p_b),

with Z standard normal and p_b the accuracy of the bin. The expectation has a closed form. Two details are ours. p_b counts
one more example, which is right with the mean confidence of the bin, so that a bin of one example has noise. A negative
estimate becomes 0. A bias remains where the true error is small against the noise.

**Interval.** The percentiles of a bootstrap are useless here, because every resample adds noise again. The interval instead
holds every t for which the measured ECE is plausible. For a hypothetical true error t the gaps are t a_b with sum_b |a_b| = 1,
each bin's noise follows from the accuracy that the gap implies, and the ECE has a distribution. t is plausible unless the
measured ECE lies in one of its tails. The shape a is unknown, so each bound uses a shape that makes the interval wider. The
lower bound uses the gaps that are larger than two standard errors (few bins have all the error). The upper bound uses the mean
of the measured gaps and of equal gaps (all bins have it), with the measured signs or with overconfidence everywhere, since
a network that is certain cannot be underconfident. It also counts one more wrong answer, so that a sample without a gap
does not claim an error of 0. The interval may lie below the plain ECE as a whole, because the plain ECE is too high.
With few examples it reaches down to 0 and says little.
"""

import math
from typing import NamedTuple

import numpy as np

_DRAWS = 1000  # draws of the noise
_STEPS = 15  # halvings: a bound is exact to 2^-16
_BLOCK = 4000  # the number of rows times bins that draw noise at once: 32 MB


class Binned(NamedTuple):
    """Sums over the examples of each bin, with leaves ``[..., b]``."""

    number: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray


def equal_width(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """The bin of each confidence, ``[..., n]`` integers. Bin i of b is ``(i / b, (i + 1) / b]``.

    The edges are rounded to float64. A float32 confidence that was rounded up at an edge is in the bin above.
    """
    bins = np.ceil(np.nan_to_num(confidence, posinf=0, neginf=0) * num_bins).astype(int) - 1
    return np.clip(bins, 0, num_bins - 1)


def equal_mass(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """The bin of each confidence, ``[..., n]`` integers, with nearly the same number of examples in every bin.

    Bins are chosen by rank. Examples of equal confidence are in one bin, the bin of their middle rank. The bins therefore do
    not depend on the order of the examples, and many equal confidences make a bin larger than others.

    Example:
      >>> equal_mass(np.array([0.5, 0.9, 0.5, 0.5, 0.9, 0.7]), 3).tolist()
      [0, 2, 0, 0, 2, 1]
    """
    n = confidence.shape[-1]
    order = np.argsort(confidence, axis=-1, kind="stable")
    ordered = np.take_along_axis(confidence, order, axis=-1)
    places = np.broadcast_to(np.arange(n), ordered.shape)
    starts = np.concatenate([np.ones_like(ordered[..., :1], bool), ordered[..., 1:] != ordered[..., :-1]], axis=-1)
    ends = np.concatenate([starts[..., 1:], np.ones_like(starts[..., :1])], axis=-1)
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, places, n - 1)[..., ::-1], axis=-1)[..., ::-1]
    bins = np.empty_like(order)
    np.put_along_axis(bins, order, (first + last) // 2 * num_bins // n, axis=-1)
    return bins


def binned(bins: np.ndarray, num_bins: int, confidence: np.ndarray, correct: np.ndarray) -> Binned:
    """Sums over bins of confidences and right answers ``[..., n]``."""
    leading, n = bins.shape[:-1], bins.shape[-1]
    rows = math.prod(leading)
    flat = (bins.reshape(rows, n) + num_bins * np.arange(rows)[:, None]).ravel()

    def sums(values: np.ndarray | None) -> np.ndarray:
        weights = None if values is None else np.asarray(values, np.float64).ravel()
        return np.bincount(flat, weights, rows * num_bins).astype(np.float64).reshape(*leading, num_bins)

    return Binned(sums(None), sums(confidence), sums(correct))


def error(found: Binned) -> np.ndarray:
    """The plain calibration error, ``[...]``."""
    return np.abs(_gaps(found)).sum(-1)


def debiased_error(found: Binned) -> np.ndarray:
    """The calibration error without most of its bias, ``[...]``. It is never negative."""
    gaps, noise = np.abs(_gaps(found)), np.sqrt(_noise(found))
    ratio = np.divide(gaps, noise, out=np.zeros_like(gaps), where=noise > 0)
    outside = np.vectorize(math.erfc, otypes=[float])(ratio / math.sqrt(2))  # P(|Z| > ratio)
    expected = noise * math.sqrt(2 / math.pi) * np.exp(-ratio * ratio / 2) + gaps * (1 - outside)
    return np.maximum(2 * gaps.sum(-1) - np.where(noise > 0, expected, gaps).sum(-1), 0)


def error_interval(found: Binned, level: float = 0.95) -> np.ndarray:
    """The interval of the true calibration error, ``[..., 2]``. It is NaN where a confidence is NaN."""
    leading, num_bins = found.number.shape[:-1], found.number.shape[-1]
    flat = Binned(*(leaf.reshape(-1, num_bins) for leaf in found))
    draws = np.random.default_rng(0).normal(size=(_DRAWS, num_bins))
    size = max(_BLOCK // num_bins, 1)
    parts = [
        _interval(Binned(*(leaf[i : i + size] for leaf in flat)), draws, level)
        for i in range(0, len(flat.number), size)
    ]
    return np.concatenate(parts).reshape(*leading, 2)


def _interval(found: Binned, draws: np.ndarray, level: float) -> np.ndarray:
    gaps, measured = _gaps(found), error(found)
    weight = found.number / found.number.sum(-1, keepdims=True)
    few = np.where(gaps * gaps > 4 * _noise(found), gaps, 0)
    lower = _largest(found, measured, _of_length_one(few, weight), draws, (1 + level) / 2)
    many = _of_length_one(np.abs(gaps), weight) + weight
    one_more = measured + 1 / found.number.sum(-1)
    upper = np.maximum(*(
        _largest(found, one_more, _of_length_one(sign * many, weight), draws, (1 - level) / 2)
        for sign in (np.where(gaps < 0, -1, 1), 1)
    ))  # fmt: skip
    lower = np.where(measured == 0, 0, np.minimum(lower, upper))
    return np.where(np.isfinite(measured)[:, None], np.stack([lower, upper], axis=-1), np.nan)


def _largest(found: Binned, measured: np.ndarray, shape: np.ndarray, draws: np.ndarray, tail: float) -> np.ndarray:
    """The largest true error ``[p]`` at which the ECE is at most the measured one with a probability above ``tail``, or 0."""
    low, high = np.zeros(len(measured)), np.ones(len(measured))
    possible = _probability(found, measured, 0 * low, shape, draws) > tail
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = _probability(found, measured, middle, shape, draws) > tail
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(possible, (low + high) / 2, 0)


def _probability(
    found: Binned, measured: np.ndarray, truth: np.ndarray, shape: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """How often the ECE is at most the measured one if the true gaps are ``truth`` times the shape: ``[p]``."""
    gaps, n = truth[:, None] * shape, found.number.sum(-1, keepdims=True)
    weight, mean = found.number / n, _mean(found.confidence, found.number)
    gap = _mean(gaps, weight)  # of an example of the bin
    accuracy = np.clip(mean - gap, 0, 1)
    variance = weight * (accuracy * (1 - accuracy) + gap * gap) - gaps * gaps
    noise = np.sqrt(np.maximum(variance, 0) / n)
    errors = np.abs(gaps[:, None] + draws * noise[:, None]).sum(-1)
    return (errors <= measured[:, None] * (1 + 1e-12)).mean(-1)


def _gaps(found: Binned) -> np.ndarray:
    return (found.confidence - found.correct) / found.number.sum(-1, keepdims=True)


def _noise(found: Binned) -> np.ndarray:
    """The variance of every gap, ``[..., b]``."""
    accuracy = (found.correct + _mean(found.confidence, found.number)) / (found.number + 1)
    return found.number * np.clip(accuracy * (1 - accuracy), 0, None) / found.number.sum(-1, keepdims=True) ** 2


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def _of_length_one(shape: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The shape divided by the sum of its absolute values, and ``otherwise`` divided by its own where that sum is 0."""
    length, other = np.abs(shape).sum(-1, keepdims=True), np.abs(otherwise).sum(-1, keepdims=True)
    chosen = np.where(length > 0, shape, otherwise)
    length = np.where(length > 0, length, other)
    return np.divide(chosen, length, out=np.zeros_like(chosen), where=length > 0)
