"""Scores that are functions of means: their intervals and their values per example."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jsubspace.evaluation import bounds, connectors, paired, summaries


def as_it_is(means):
    return means


def root(means):
    return {"rmse": np.sqrt(means["square"])}


def ratio(means):
    return {"nll": means["loss"] / means["tokens"]}


def test_a_mean_has_the_examples_own_numbers():
    loss = np.random.default_rng(0).normal(size=(3, 40))
    np.testing.assert_allclose(summaries.values({"loss": loss}, as_it_is)["loss"], loss, atol=1e-12)


def test_values_have_the_score_as_mean_and_the_delta_methods_variance():
    rng, n = np.random.default_rng(0), 2000
    square = rng.chisquare(1, size=(2, n))
    found = summaries.values({"square": square}, root)["rmse"]
    score = np.sqrt(square.mean(-1))
    np.testing.assert_allclose(found.mean(-1), score)
    np.testing.assert_allclose(found.std(-1), square.std(-1) / (2 * score), rtol=0.01)
    loss, tokens = rng.exponential(size=n) * 5, rng.integers(1, 9, size=n)
    found = summaries.values({"loss": loss, "tokens": tokens}, ratio)["nll"]
    assert found.mean() == pytest.approx(loss.sum() / tokens.sum())
    residuals = (loss - loss.sum() / tokens.sum() * tokens) / tokens.mean()
    assert found.std() == pytest.approx(residuals.std(), rel=0.01)


@pytest.mark.parametrize(("summary", "names"), [(root, ["square"]), (ratio, ["loss", "tokens"]), (as_it_is, ["loss"])])
def test_intervals_are_scipys(summary, names):
    rng, n = np.random.default_rng(0), 150
    arrays = {name: 1 + rng.exponential(size=n) for name in names}

    def statistic(*samples, axis):
        means = {name: sample.mean(axis) for name, sample in zip(names, samples, strict=True)}
        (score,) = summary(means).values()
        return score

    expected = stats.bootstrap(
        tuple(arrays.values()), statistic, paired=True, vectorized=True, method="percentile", n_resamples=4000, rng=1
    ).confidence_interval
    (found,) = summaries.intervals(arrays, summary, 4000).values()
    np.testing.assert_allclose(found, expected, atol=0.1 * (expected.high - expected.low))


@pytest.mark.parametrize("n", [3, 8, 20])
def test_intervals_of_few_normal_numbers_cover(n):
    """Percentiles alone hold the truth in 72 % of the cases with three numbers."""
    values = np.random.default_rng(n).normal(size=(1000, n))
    found = summaries.intervals({"loss": values}, as_it_is, 1000)["loss"]
    covered = np.mean((found[:, 0] <= 0) & (found[:, 1] >= 0))
    assert covered > (0.92 if n == 3 else 0.935)


def test_the_interval_of_a_root_is_not_negative():
    ((low, high),) = summaries.intervals({"square": np.array([0.1, 0.1, 3.0]) ** 2}, root, 1000).values()
    assert low == 0 < high


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.floats(-1e6, 1e6) | st.sampled_from([np.inf, -np.inf, np.nan]), min_size=1, max_size=20))
def test_infinite_losses_are_results_and_no_warnings(losses):
    array = {"loss": np.array(losses)}
    (low, high) = summaries.intervals(array, as_it_is, 50)["loss"]
    mean = summaries.scores(array, as_it_is)["loss"] if {np.inf, -np.inf} - set(losses) else np.nan
    values = summaries.values(array, as_it_is)["loss"]
    if np.isfinite(losses).all():
        assert low <= high
        assert values.mean() == pytest.approx(float(mean), rel=1e-9, abs=1e-6)
    elif len(losses) > 1:
        assert np.isnan(values).all()
    assert not np.isnan([low, high]).any() or np.isnan(losses).any() or {np.inf, -np.inf} <= set(losses)


def test_an_infinite_loss_reaches_the_bound_on_its_side():
    for sign in (1, -1):
        losses = np.append(np.zeros(50), sign * np.inf)
        low, high = summaries.intervals({"loss": losses}, as_it_is, 500)["loss"]
        assert {low, high} == {0, sign * np.inf}


def test_one_example_has_no_spread():
    found = summaries.intervals({"loss": np.array([3.0]), "inside": np.array([1.0])}, as_it_is, 20, ("inside",))
    assert found["loss"].tolist() == [-np.inf, np.inf]
    assert found["inside"].tolist() == pytest.approx(bounds.of_fraction(np.array(1), 1).tolist())


def line(losses, **options):
    """The verdict on a line of three points with the losses ``[3, n]``."""
    weights = np.array([[1, 0], [0.5, 0.5], [0, 1]])
    along = connectors.trapezoid(np.array([0, 0.5, 1.0]))
    return connectors.verdict(losses, along, (0, 2), weights, higher_is_better=False, is_fraction=False, **options)


def test_a_loss_is_judged_with_its_sign():
    rng, n = np.random.default_rng(0), 500
    ends = rng.exponential(size=(2, n))
    found = line(np.stack([ends[0], ends.mean(0) + 0.4 + 0.1 * rng.normal(size=n), ends[1]]))
    assert found["verdict"] == "no"
    assert found["difference"] == pytest.approx(found["mean_along"] - found["mean_of_ends"])
    assert found["mean_of_ends"] == pytest.approx(ends.mean())
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert found["barrier"] == pytest.approx(0.4, abs=0.02)
    assert found["barrier_interval"][0] < 0.4 < found["barrier_interval"][1]
    assert found["barrier_at"] == 1
    better = line(np.stack([ends[0], ends.mean(0) - 0.4, ends[1]]))
    assert better["verdict"] == "yes"
    assert better["barrier"] == 0
    assert line(np.tile(ends[:1], (3, 1)))["verdict"] == "yes"


def test_a_large_loss_is_not_cut_off():
    ends = np.random.default_rng(0).exponential(size=(2, 100))
    found = line(np.stack([ends[0], ends.mean(0) + 50, ends[1]]))
    assert found["barrier"] == pytest.approx(50)
    assert found["barrier_interval"] == pytest.approx([50, 50])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_leaves_it_undecided(bad):
    losses = np.zeros((3, 4))
    losses[1, 2] = bad
    found = line(losses)
    assert found["verdict"] == "undecided"
    assert found["barrier_at"] == 1
    assert np.isnan([found["difference"], *found["interval"], found["barrier"]]).all()


def test_a_single_example_leaves_it_undecided():
    found = line(np.zeros((3, 1)))
    assert found["verdict"] == "undecided"
    assert found["interval"] == [-np.inf, np.inf]
    assert found["barrier_interval"] == [0, np.inf]


def test_random_draws_widen_the_interval_of_a_loss():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=400)
    alone = bounds.of_differences(differences, bounded=False)
    expected = stats.t.interval(0.95, 399, differences.mean(), stats.sem(differences))
    assert alone == pytest.approx(expected, rel=1e-4)
    wide = bounds.of_differences(differences, between=differences.mean() + np.array([-2.0, 0, 2.0]), bounded=False)
    half = stats.t.ppf(0.975, 2) * 2 / np.sqrt(3)
    assert wide[1] - wide[0] == pytest.approx(2 * half, rel=0.05)
    assert bounds.of_differences(differences, between=[0.0], bounded=False) == [-np.inf, np.inf]
    assert bounds.of_differences(np.zeros(5), between=[0.0, 0.0], bounded=False) == [0, 0]


def test_verdicts_on_losses_hold_the_truth_as_often_as_they_say():
    """500 test sets. The losses of one example are related, and the truth of the difference along the line is 0.05."""
    rng, n, held, barrier_held = np.random.default_rng(0), 150, 0, 0
    for _ in range(500):
        hard = rng.exponential(size=n)
        ends = hard + 0.3 * rng.normal(size=(2, n))
        found = line(np.stack([ends[0], hard + 0.1 + 0.3 * rng.normal(size=n), ends[1]]))
        held += found["interval"][0] <= 0.05 <= found["interval"][1]
        barrier_held += found["barrier_interval"][0] <= 0.1 <= found["barrier_interval"][1]
    assert 0.92 <= held / 500 <= 0.98
    assert barrier_held / 500 >= 0.92


def test_paired_means_are_scipys():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 80)), rng.normal(size=(1, 80))
    difference, interval = paired.of_means([*ours], [*theirs])
    d = ours.mean(0) - theirs[0]
    assert difference == pytest.approx(d.mean())
    assert interval == pytest.approx(stats.t.interval(0.95, 79, d.mean(), stats.sem(d)), rel=1e-4)
    same = [np.ones(80)]
    assert paired.of_means(same, same)[1] == [0, 0]
    assert paired.of_means(same, same, is_fraction=True)[1][1] > 0.04  # 80 examples do not prove equality
    assert paired.of_means([np.array([np.inf, 0])], [np.zeros(2)]) is None
