"""Intervals in closed form against scipy, and at their edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jsubspace.evaluation import bounds
from jsubspace.examples.intervals import of_seeds


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 50, 199, 200, 201, 5000])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_quantiles_and_tails_of_student(freedom, level):
    assert bounds.t_quantile(freedom, level) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-5)
    for t in (0.0, 0.3, 2.0, -7.5):
        assert bounds.t_tails(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-6, abs=1e-13)


def test_the_interval_over_runs_is_scipys():
    values = [0.80, 0.83, 0.81, 0.79]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert bounds.of_runs(values) == pytest.approx(expected)
    assert bounds.of_runs([0.8]) is None


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.944444, -3e-9])
def test_a_few_equal_runs_tell_nothing_of_others(value):
    assert all(bounds.without_spread([value] * n) for n in (1, 2, 3, 5, bounds.FEWEST - 1))
    assert not bounds.without_spread([value] * bounds.FEWEST)
    assert not bounds.without_spread([value, value + 1e-6])
    assert of_seeds([value] * 3) == f"{value:.3f}"


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 5000), st.floats(0, 1))
def test_a_fraction_has_wilsons_interval_and_a_width(n, fraction):
    successes = round(n * fraction)
    found = bounds.of_fraction(np.array(successes), n)
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(found, [expected.low, expected.high], atol=1e-9)
    assert found[0] - 1e-12 <= successes / n <= found[1] + 1e-12
    assert found[1] - found[0] > 0.5 / n


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 0.3]), min_size=1, max_size=600))
def test_no_sample_is_certain_of_a_difference(differences):
    """The rule of three: what n examples do not show may still have a probability of 3.7 / n."""
    low, high = bounds.of_differences(np.array(differences))
    n, mean = len(differences), np.mean(differences)
    assert -1 <= low <= mean <= high <= 1
    assert low <= max((n * mean - 3.9) / (n + 4), -1)
    assert high >= min((n * mean + 3.9) / (n + 4), 1)


def test_a_sample_without_a_loss_follows_the_rule_of_three():
    low, high = bounds.of_differences(np.zeros(1000))
    assert low == -high == pytest.approx(-3.92 / 1004, rel=0.01)


def test_draws_add_their_variance():
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 100_000, p=[0.02, 0.97, 0.01])
    alone = bounds.of_differences(differences)
    between = differences.mean() + np.array([-0.03, 0.02, 0.01, 0.0])
    low, high = bounds.of_differences(differences, between=between)
    half = stats.t.ppf(0.975, 3) * np.std(between, ddof=1) / 2  # the draws dominate
    assert high - low == pytest.approx(2 * half, rel=0.01)
    assert high - low > 10 * (alone[1] - alone[0])
    assert bounds.of_differences(differences, between=[0.0]) == [-1.0, 1.0]
