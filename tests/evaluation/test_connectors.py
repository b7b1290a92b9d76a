"""Verdicts on subspaces whose accuracies are known."""

import numpy as np
import pytest

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
