"""Differences of two predictors on the same examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jsubspace.evaluation import paired
from jsubspace.evaluation.metrics import Scores

NAMES = ("accuracy", "nll", "brier", "ece", "ece_debiased", "adaptive_ece")


def predictor(rng, n, gap=0.0):
    confidence = rng.uniform(0.4, 1, n)
    correct = (rng.uniform(size=n) < confidence - gap).astype(np.float32)
    return Scores(correct, confidence, rng.exponential(size=n), rng.uniform(0, 2, n))._asdict()


def test_means_are_compared_example_by_example():
    rng = np.random.default_rng(0)
    a, b = predictor(rng, 500), predictor(rng, 500)
    for name in ("nll", "brier"):
        d = a[name] - b[name]
        difference, interval = paired.difference([a], [b], name)
        assert difference == pytest.approx(d.mean())
        assert interval == pytest.approx(stats.t.interval(0.95, 499, d.mean(), stats.sem(d)), rel=1e-4)
    assert paired.difference([a], [b], "accuracy")[0] == pytest.approx(a["correct"].mean() - b["correct"].mean())


def test_a_predictor_does_not_differ_from_itself():
    a = predictor(np.random.default_rng(0), 300)
    for name in NAMES:
        difference, (low, high) = paired.difference([a], [a], name)
        assert difference == 0
        assert low <= 0 <= high
        assert (high - low > 0) == (name == "accuracy")  # 300 examples do not prove that answers are always equal


def test_runs_are_averaged():
    rng = np.random.default_rng(0)
    a, b, c = (predictor(rng, 300, gap) for gap in (0.0, 0.1, 0.05))
    for name in NAMES:
        to_each = [paired.difference([one], [c], name)[0] for one in (a, b)]
        assert paired.difference([a, b], [c], name)[0] == pytest.approx(np.mean(to_each))


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 30), st.integers(0, 1000), st.sampled_from(NAMES), st.booleans())
def test_every_difference_is_finite_or_none(n, seed, name, infinite):
    rng = np.random.default_rng(seed)
    a, b = predictor(rng, n), predictor(rng, n)
    if infinite:
        b["nll"][0] = np.inf
    found = paired.difference([a], [b], name)
    if (infinite and name == "nll") or (n == 1 and name != "accuracy"):
        assert found is None
    else:
        assert np.isfinite([found[0], *found[1]]).all()
        assert found[1][0] <= found[0] <= found[1][1]


@pytest.mark.parametrize(
    ("differences", "is_known"), [([0.5, 0.5], False), ([0.5] * 30, True), ([0.0, 0.0], True), ([0.4, 0.6], True)]
)
def test_a_few_equal_differences_have_no_interval(differences, is_known):
    found = paired.of_means([np.array(differences)], [np.zeros(len(differences))])
    assert (found is not None) == is_known
