"""Calibration errors: ties, edges, the debiased estimate, and the interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jsubspace.evaluation import calibration, estimates
from jsubspace.evaluation.metrics import Scores

FAST = settings(deadline=None, derandomize=True, max_examples=30)
# Few different confidences make ties.
EXAMPLES = st.lists(
    st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.93, 1.0]), st.booleans()), min_size=1, max_size=60
)


def scores(examples):
    confidence, correct = np.array(examples, float).T
    return Scores(correct, confidence, 1 - correct, 1 - correct)


@FAST
@given(EXAMPLES, st.integers(1, 25), st.randoms(use_true_random=False))
def test_the_order_of_examples_does_not_matter(examples, num_bins, random):
    before = estimates.summarize(scores(examples), num_bins)
    random.shuffle(examples)
    after = estimates.summarize(scores(examples), num_bins)
    for name in ("ece", "ece_debiased", "adaptive_ece"):
        assert after[name] == pytest.approx(before[name], abs=1e-12)


@pytest.mark.parametrize("order", [np.arange(100), np.random.default_rng(0).permutation(100)])
def test_a_constant_and_calibrated_predictor_has_no_error(order):
    right = np.repeat([1.0, 0.0], 50)
    found = estimates.summarize(Scores(right[order], np.full(100, 0.5), np.zeros(100), np.zeros(100)))
    assert found["ece"] == found["adaptive_ece"] == found["ece_debiased"] == 0


@FAST
@given(EXAMPLES, st.integers(1, 25))
def test_errors_and_intervals_are_in_range(examples, num_bins):
    """One example, one class and constant predictors are among the examples."""
    means = estimates.summarize(scores(examples), num_bins)
    found = estimates.intervals(scores(examples), num_bins, num_resamples=20)
    assert set(found) == set(means)
    assert 0 <= means["ece_debiased"] <= means["ece"] <= 1
    assert means["adaptive_ece"] <= 1
    for low, high in found.values():
        assert 0 <= low <= high
    assert found["accuracy"][1] - found["accuracy"][0] > 0
    for name in ("ece", "ece_debiased", "adaptive_ece"):
        assert found[name][1] <= 1


def test_without_ties_bins_hold_equal_numbers():
    confidence = np.random.default_rng(0).uniform(size=(3, 40))
    bins = calibration.equal_mass(confidence, 8)
    assert all((np.bincount(row) == 5).all() for row in bins)
    assert np.all(np.diff(np.take_along_axis(bins, np.argsort(confidence, -1), -1), axis=-1) >= 0)
    assert calibration.equal_mass(confidence[:, :3], 20).max() < 20


def test_the_debiased_estimate_is_kumars():
    """2 ECE minus the mean ECE after the noise of every bin was added once more, by drawing it."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 2000)
    correct = (rng.uniform(size=2000) < confidence - 0.03).astype(float)
    bins = calibration.equal_width(confidence, 20)
    found = calibration.binned(bins, 20, confidence, correct)
    inside = [bins == b for b in range(20) if (bins == b).any()]
    weight = np.array([part.mean() for part in inside])
    mean = np.array([confidence[part].mean() for part in inside])
    right = np.array([correct[part].mean() for part in inside])
    count = np.array([part.sum() for part in inside])
    ece = (weight * np.abs(mean - right)).sum()
    noise = np.sqrt(right * (1 - right) / count) * rng.normal(size=(200_000, len(inside)))
    again = (weight * np.abs(right + noise - mean)).sum(-1).mean()
    assert calibration.error(found) == pytest.approx(ece)
    assert calibration.debiased_error(found) == pytest.approx(2 * ece - again, rel=0.02)


def test_the_debiased_estimate_has_less_bias():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, (200, 1000))
    for error in (0.0, 0.02):
        correct = (rng.uniform(size=confidence.shape) < confidence - error).astype(float)
        means = estimates.summarize(Scores(correct, confidence, correct, correct))
        plain, debiased = means["ece"].mean() - error, means["ece_debiased"].mean() - error
        assert 0 < debiased < 0.65 * plain


def test_the_interval_does_not_contain_what_is_impossible():
    """A large error is told from 0, and an interval of many examples is short."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 50_000)
    correct = (rng.uniform(size=50_000) < confidence - 0.1).astype(float)
    low, high = estimates.intervals(Scores(correct, confidence, correct, correct), num_resamples=2)["ece"]
    assert 0.085 < low < 0.1 < high < 0.115


def test_a_confidence_that_is_nan_makes_the_error_nan():
    found = scores([(np.nan, True), (0.5, False), (0.7, True)])
    assert np.isnan(estimates.summarize(found)["ece"])
    assert np.isnan(estimates.intervals(found, num_resamples=5)["ece_debiased"]).all()


@FAST
@given(st.lists(st.sampled_from([0.1, 2.0, np.inf]), min_size=1, max_size=40))
def test_an_infinite_loss_is_reported_as_infinite(losses):
    nll = np.array(losses)
    half = np.full(len(nll), 0.5)
    low, high = estimates.intervals(Scores(half, half, nll, half), num_resamples=50)["nll"]
    assert not np.isnan([low, high]).any()
    assert low <= high
    if np.isinf(nll).any():
        assert high == np.inf
    elif len(nll) > 1:
        assert 0 <= low <= nll.mean() + 1e-9  # The ends of few losses lie outside of them.
        assert high >= nll.mean() - 1e-9


def test_one_infinite_loss_leaves_the_lower_bound_finite():
    nll = np.append(np.ones(99), np.inf)
    half = np.full(100, 0.5)
    assert estimates.intervals(Scores(half, half, nll, half))["nll"].tolist() == [1.0, np.inf]
