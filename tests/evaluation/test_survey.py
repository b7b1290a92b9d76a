"""Which points are evaluated."""

import jax
import numpy as np
import pytest

from jsubspace import Curve, Line, Point, Simplex
from jsubspace.evaluation.survey import affine, center_alone, survey


@pytest.mark.parametrize("subspace", [Line(), Curve(), Curve(2)])
def test_a_grid_with_both_ends_and_the_middle(subspace):
    plan = survey(subspace)
    np.testing.assert_allclose(plan.alphas, np.arange(21) * 0.05, atol=1e-6)
    assert plan.ends == (0, 20)
    assert plan.main_ensembles == ("0.00 & 1.00",)
    assert plan.names[plan.center] == "0.50"
    assert plan.weights.shape == (21, subspace.num_endpoints)
    np.testing.assert_array_equal(plan.weights[0], np.eye(subspace.num_endpoints)[0])
    np.testing.assert_array_equal(plan.weights[-1], np.eye(subspace.num_endpoints)[1])
    assert len(plan.ensembles) == 10
    for i, j in plan.ensembles:
        assert plan.alphas[i] + plan.alphas[j] == pytest.approx(1)


@pytest.mark.parametrize("num_points", [3, 21, 99, 101, 103, 131, 1001, 1003])
def test_no_two_points_of_a_fine_grid_have_one_name(num_points):
    plan = survey(Line(), num_points)
    assert len(set(plan.names)) == num_points
    assert len(set(plan.ensemble_names)) == num_points // 2


def test_a_simplex_has_center_corners_and_random_points():
    plan = survey(Simplex(3), num_random=4, key=jax.random.key(1), kinds=("random",))
    assert plan.names[plan.center] == "center"
    np.testing.assert_allclose(plan.weights[plan.center], 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(plan.weights[1:4], np.eye(3))
    np.testing.assert_allclose(plan.weights.sum(-1), 1, rtol=1e-6)
    assert plan.ensembles == ((1, 2, 3), (4, 5, 6, 7))
    other = survey(Simplex(3), num_random=4, key=jax.random.key(2), kinds=("random",))
    assert (other.weights[4:] != plan.weights[4:]).all()


def test_one_network_has_no_ensemble():
    plan = survey(Point())
    assert plan.weights.tolist() == [[1.0]]
    assert plan.ensembles == ()
    assert survey(Simplex(1), num_random=1).ensembles == ()


def test_networks_that_are_drawn_are_rows_behind_the_endpoints():
    plan = survey(Simplex(2), num_random=3, kinds=("layerwise", "random", "gaussian"))
    assert plan.names[3:] == (*(f"{kind} {i}" for kind in ("random", "layerwise", "gaussian") for i in (1, 2, 3)),)
    assert plan.weights.shape == (3 + 9, 2 + 6)
    np.testing.assert_array_equal(plan.weights[6:, 2:], np.eye(6))
    np.testing.assert_array_equal(plan.weights[6:, :2], 0)
    np.testing.assert_array_equal(plan.weights[:6, 2:], 0)
    assert plan.drawn == (("layerwise", 3), ("gaussian", 3))
    assert plan.ensemble_names == ("all corners", "3 random", "3 layerwise", "3 gaussian") == plan.main_ensembles
    np.testing.assert_allclose(plan.along, [0, 0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_an_ensemble_of_any_alphas_may_extrapolate():
    plan = survey(Line(), num_points=3, ensemble=(-0.05, 0.5, 1.05))
    assert plan.names[3:] == ("at -0.05", "at 0.5", "at 1.05")
    assert plan.ensembles[-1] == (3, 4, 5)
    assert plan.ensemble_names[-1] == "-0.05 & 0.5 & 1.05" == plan.main_ensembles[-1]
    np.testing.assert_allclose(plan.weights[3], [1.05, -0.05], rtol=1e-6)
    assert len(plan.along) == 3  # the verdict on the line does not look beyond it


def test_center_alone_and_combinations():
    assert center_alone(Curve()).weights.tolist() == [[0.25, 0.25, 0.5]]
    plan = affine(np.array([[2.0, -1.0], [0.5, 0.5]]))
    assert plan.weights.tolist() == [[2.0, -1.0], [0.5, 0.5]]
    assert plan.ensembles == ()
