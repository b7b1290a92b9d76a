"""Verdicts on subspaces whose accuracies are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jsubspace.evaluation import connectors


def outcomes(accuracies, n=2000):
    """``[p, n]``: point i gets a random accuracies[i] of the examples right, exactly that many."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(np.arange(n) < round(accuracy * n)) for accuracy in accuracies]).astype(float)


def on_line(accuracies, **kwargs):
    alphas = np.linspace(0, 1, len(accuracies))
    weights = np.stack([1 - alphas, alphas], -1)
    last = len(accuracies) - 1
    return connectors.verdict(outcomes(accuracies), connectors.trapezoid(alphas), (0, last), weights, **kwargs)


def test_a_flat_line_is_a_connector():
    found = on_line([0.9] * 5)
    assert found["verdict"] == "yes"
    assert found["difference"] == pytest.approx(0)
    assert found["barrier"] == pytest.approx(0)


def test_a_barrier_is_found_where_it_is():
    found = on_line([0.9, 0.8, 0.3, 0.6, 0.7])
    assert found["verdict"] == "no"
    assert found["barrier_at"] == 2
    assert found["barrier"] == pytest.approx((0.9 + 0.7) / 2 - 0.3)
    assert found["mean_of_ends"] == pytest.approx(0.8)
    along = np.trapezoid([0.9, 0.8, 0.3, 0.6, 0.7], dx=0.25)
    assert found["mean_along"] == pytest.approx(along)
    low, high = found["interval"]
    assert found["difference"] == pytest.approx(along - 0.8)
    assert low < found["difference"] < high < 0


def test_a_line_above_its_ends_has_no_barrier():
    found = on_line([0.8, 0.9, 0.95, 0.9, 0.8])
    assert found["verdict"] == "yes"
    assert found["barrier"] == 0


def test_too_few_examples_leave_it_undecided():
    alphas = np.linspace(0, 1, 3)
    weights = np.stack([1 - alphas, alphas], -1)
    few = outcomes([0.8, 0.8, 0.8], n=20)
    assert connectors.verdict(few, connectors.trapezoid(alphas), (0, 2), weights)["verdict"] == "undecided"


def test_the_tolerance_is_what_the_definition_allows():
    slightly_lower = [0.9, 0.88, 0.88, 0.88, 0.9]
    assert on_line(slightly_lower, tolerance=0.1)["verdict"] == "yes"
    assert on_line(slightly_lower, tolerance=0.0)["verdict"] == "no"


def test_a_simplex_is_compared_with_its_corners():
    correct = outcomes([0.9, 0.6, 0.3, 0.5, 0.6])  # corners, then two draws
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    found = connectors.verdict(correct, np.array([0, 0, 0, 0.5, 0.5]), (0, 1, 2), weights)
    assert found["mean_of_ends"] == pytest.approx(0.6)
    assert found["mean_along"] == pytest.approx(0.55)
    assert found["barrier_at"] == 3
    assert found["barrier"] == pytest.approx(0.75 - 0.5)


def test_trapezoid_integrates_straight_lines_exactly():
    alphas = np.array([0.0, 0.1, 0.4, 1.0])
    assert connectors.trapezoid(alphas) @ (3 * alphas + 1) == pytest.approx(2.5)


def test_no_verdict_is_yes_without_enough_examples():
    """By the rule of three, 300 examples without a loss may hide a loss of 1 %."""
    alphas = np.linspace(0, 1, 3)
    weights = np.stack([1 - alphas, alphas], -1)
    for n, verdict in ((10, "undecided"), (370, "undecided"), (400, "yes")):
        same = np.tile(np.arange(n) < 0.9 * n, (3, 1)).astype(float)
        found = connectors.verdict(same, connectors.trapezoid(alphas), (0, 2), weights)
        assert found["verdict"] == verdict
        assert found["interval"][0] < 0 < found["interval"][1]
        assert found["barrier"] == 0
        assert 3.6 / (n + 4) < found["barrier_interval"][1]
    better = np.array([[0.0] * 10, [1.0] * 10, [0.0] * 10])
    found = connectors.verdict(better, connectors.trapezoid(alphas), (0, 2), weights)
    assert found["interval"][0] > 0
    assert found["verdict"] == "undecided"


@pytest.mark.parametrize(("n", "verdict"), [(2, "undecided"), (29, "undecided"), (30, "yes")])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_few_equal_losses_decide_nothing(n, verdict, sign):
    """Their t interval has no width."""
    losses = np.tile(sign * np.array([[0.0], [1.0], [0.0]]), (1, n))
    weights = np.array([[1, 0], [0.5, 0.5], [0, 1]])
    found = connectors.verdict(
        losses, connectors.trapezoid(np.linspace(0, 1, 3)), (0, 2), weights, higher_is_better=True, is_fraction=False
    )
    assert found["verdict"] == ("no" if verdict == "yes" and sign < 0 else verdict)


def test_random_draws_widen_the_interval_of_a_simplex():
    rng = np.random.default_rng(0)
    weights = np.concatenate([np.eye(4), rng.dirichlet(np.ones(4), 6)])
    correct = outcomes([0.9] * 4 + [0.9, 0.85, 0.9, 0.6, 0.9, 0.88], n=5000)
    along = np.repeat([0, 1 / 6], [4, 6])
    as_grid = connectors.verdict(correct, along, (0, 1, 2, 3), weights)
    as_draws = connectors.verdict(correct, along, (0, 1, 2, 3), weights, draws=tuple(range(4, 10)))
    assert as_grid["verdict"] == "no"  # of these six points
    assert as_draws["verdict"] == "undecided"
    assert as_grid["draws"] is None
    assert as_draws["draws"] == 6
    one = connectors.verdict(correct[:5], np.eye(5)[4], (0, 1, 2, 3), weights[:5], draws=(4,))
    assert one["interval"] == [-1.0, 1.0]


def test_a_barrier_has_an_interval():
    low, high = on_line([0.9, 0.8, 0.3, 0.6, 0.7])["barrier_interval"]
    assert low < 0.5 < high < 0.56
    assert low > 0.44
    flat = on_line([0.9] * 21)["barrier_interval"]
    assert flat[0] == 0
    assert 0 < flat[1] < 0.03


@pytest.mark.parametrize("m", [2, 3])
def test_a_mesh_integrates_straight_functions_exactly(m):
    alphas, weights = connectors.mesh(m, 21)
    assert len(alphas) == 21
    np.testing.assert_allclose(alphas.sum(-1), 1)
    np.testing.assert_allclose(weights @ alphas, np.full(m, 1 / m))
    np.testing.assert_allclose(weights @ (alphas**2).sum(-1), 2 / (m + 1), rtol=0.05)  # the uniform distribution's


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 40), st.integers(3, 6), st.randoms(use_true_random=False))
def test_every_verdict_is_finite_and_ordered(n, p, random):
    """One example, and points that are all right or all wrong, are among them."""
    correct = np.array([[random.random() < random.choice([0, 0.5, 1]) for _ in range(n)] for _ in range(p)], float)
    alphas = np.linspace(0, 1, p)
    found = connectors.verdict(
        correct, connectors.trapezoid(alphas), (0, p - 1), np.stack([1 - alphas, alphas], axis=-1)
    )
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    assert 0 <= found["barrier_interval"][0] <= found["barrier_interval"][1] <= 1
    assert found["verdict"] != "yes"
