"""Which points are evaluated."""

import jax
import numpy as np
import pytest

from jsubspace import Curve, Line, Point, Simplex
from jsubspace.survey import survey


@pytest.mark.parametrize("subspace", [Line(), Curve(), Curve(2)])
def test_a_grid_with_both_ends_and_the_middle(subspace):
    plan = survey(subspace)
    np.testing.assert_allclose(plan.alphas, np.arange(21) * 0.05, atol=1e-6)
    assert plan.names[plan.center] == "0.50"
    assert plan.weights.shape == (21, subspace.num_endpoints)
    np.testing.assert_array_equal(plan.weights[0], np.eye(subspace.num_endpoints)[0])
    np.testing.assert_array_equal(plan.weights[-1], np.eye(subspace.num_endpoints)[1])
    assert len(plan.ensembles) == 10
    for i, j in plan.ensembles:
        assert plan.alphas[i] + plan.alphas[j] == pytest.approx(1)


def test_a_simplex_has_center_corners_and_random_points():
    plan = survey(Simplex(3), num_random=4, key=jax.random.key(1))
    assert plan.names[plan.center] == "center"
    np.testing.assert_allclose(plan.weights[plan.center], 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(plan.weights[1:4], np.eye(3))
    np.testing.assert_allclose(plan.weights.sum(-1), 1, rtol=1e-6)
    assert plan.ensembles == ((1, 2, 3), (4, 5, 6, 7))
    assert (survey(Simplex(3), num_random=4, key=jax.random.key(2)).weights[4:] != plan.weights[4:]).all()


def test_one_network_has_no_ensemble():
    plan = survey(Point())
    assert plan.weights.tolist() == [[1.0]]
    assert plan.ensembles == ()
    assert survey(Simplex(1), num_random=1).ensembles == ()
