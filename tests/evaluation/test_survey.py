"""Which points are evaluated."""

import jax
import numpy as np
import pytest
from own_subspaces import Patch, Ring

from jsubspace import Curve, Line, Point, Simplex
from jsubspace.evaluation.survey import affine, center_alone, survey


def names(plan):
    return tuple(position.name for position in plan.positions)


def kinds(plan):
    return tuple(position.kind for position in plan.positions)


def ensembles(plan):
    return {ensemble.name: ensemble for ensemble in plan.ensembles}


@pytest.mark.parametrize("subspace", [Line(), Curve(), Curve(2)])
def test_a_grid_with_both_ends_and_the_middle(subspace):
    plan = survey(subspace)
    alphas = [position.alpha for position in plan.positions]
    np.testing.assert_allclose(alphas, np.arange(21) * 0.05, atol=1e-6)
    assert plan.ends == (0, 20)
    assert [ensemble.name for ensemble in plan.ensembles if ensemble.kind != "pair"] == ["0.00 & 1.00"]
    assert ensembles(plan)["0.00 & 1.00"].kind == "ends"
    assert names(plan)[plan.center] == "0.50"
    assert set(kinds(plan)) == {"grid"}
    assert plan.weights.shape == (21, subspace.num_endpoints)
    np.testing.assert_array_equal(plan.weights[0], np.eye(subspace.num_endpoints)[0])
    np.testing.assert_array_equal(plan.weights[-1], np.eye(subspace.num_endpoints)[1])
    assert len(plan.ensembles) == 10
    for i, j in plan.groups:
        assert alphas[i] + alphas[j] == pytest.approx(1)
    np.testing.assert_allclose(plan.along @ alphas, 0.5)  # the trapezoid rule is exact for a straight line
    np.testing.assert_allclose(plan.combinations[5], [0.75, 0.25])


@pytest.mark.parametrize(("subspace", "kinds"), [(Line(), ()), (Curve(), ()), (Simplex(2), ("random",))])
@pytest.mark.parametrize("num_points", [2, 4])
def test_a_mean_along_a_subspace_is_never_of_its_ends_alone(subspace, kinds, num_points):
    """The center of an even grid counts too. With two points, a mean over the grid would be that of the ends, whatever lies between."""
    plan = survey(subspace, num_points, num_random=2, kinds=kinds)
    assert plan.along.sum() == pytest.approx(1)
    np.testing.assert_allclose(plan.along @ plan.combinations, 0.5)
    assert plan.along[list(plan.ends)].sum() <= 0.5
    if num_points == 2 or not kinds:
        assert plan.along[plan.center] > 0


@pytest.mark.parametrize("num_points", [3, 21, 99, 101, 103, 131, 1001, 1003])
def test_no_two_points_of_a_fine_grid_have_one_name(num_points):
    plan = survey(Line(), num_points)
    assert len(set(names(plan))) == num_points
    assert len(ensembles(plan)) == num_points // 2


def test_a_simplex_has_center_corners_and_random_points():
    plan = survey(Simplex(3), num_random=4, key=jax.random.key(1), kinds=("random",))
    assert names(plan)[plan.center] == "center"
    assert plan.ends == (1, 2, 3)
    assert kinds(plan) == ("center", *("corner",) * 3, *("random",) * 4, *("mesh",) * 18)  # corners are on the mesh
    assert survey(Simplex(4), kinds=("random",)).positions[-1].kind == "random"
    np.testing.assert_array_equal(plan.along[4:8], 0)
    np.testing.assert_allclose(plan.along @ plan.weights, 1 / 3)
    np.testing.assert_allclose(plan.weights[plan.center], 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(plan.weights[1:4], np.eye(3))
    np.testing.assert_allclose(plan.weights.sum(-1), 1, rtol=1e-6)
    assert plan.groups == ((1, 2, 3), (4, 5, 6, 7))
    assert [ensemble.kind for ensemble in plan.ensembles] == ["ends", "random"]
    np.testing.assert_allclose(plan.combinations[4:], plan.weights[4:, :3])
    other = survey(Simplex(3), num_random=4, key=jax.random.key(2), kinds=("random",))
    assert (other.weights[4:8] != plan.weights[4:8]).all()


def test_one_network_has_no_ensemble():
    plan = survey(Point())
    assert plan.weights.tolist() == [[1.0]]
    assert plan.ensembles == ()
    assert plan.positions[0][:3] == ("network", "network", ("center",))
    assert survey(Simplex(1), num_random=1).ensembles == ()


def test_networks_that_are_drawn_are_rows_behind_the_endpoints():
    plan = survey(Simplex(4), num_random=3, kinds=("layerwise", "random", "gaussian"))
    assert names(plan)[5:] == (*(f"{kind} {i}" for kind in ("random", "layerwise", "gaussian") for i in (1, 2, 3)),)
    assert plan.weights.shape == (5 + 9, 4 + 6)
    np.testing.assert_array_equal(plan.weights[8:, 4:], np.eye(6))
    np.testing.assert_array_equal(plan.weights[8:, :4], 0)
    np.testing.assert_array_equal(plan.weights[:8, 4:], 0)
    assert plan.drawn == (("layerwise", 3), ("gaussian", 3))
    assert tuple(ensembles(plan)) == ("all corners", "3 random", "3 layerwise", "3 gaussian")
    assert kinds(plan)[8:] == ("layerwise",) * 3 + ("gaussian",) * 3
    np.testing.assert_allclose(plan.along, [0, 0, 0, 0, 0, 1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize(("m", "num_points", "count"), [(2, 21, 21), (2, 3, 3), (3, 21, 21), (3, 10, 10), (3, 3, 6)])
def test_a_small_simplex_has_a_mesh_beside_its_random_points(m, num_points, count):
    plan = survey(Simplex(m), num_points, num_random=2, kinds=("random", "layerwise"), ensemble=((1 / m,) * m,))
    used = plan.along > 0
    assert used.sum() == count
    assert plan.along.sum() == pytest.approx(1)
    np.testing.assert_allclose(plan.along @ plan.combinations, 1 / m)
    assert {plan.positions[i].kind for i in np.flatnonzero(used)} <= {"mesh", "corner", "center"}
    alphas = [
        np.round(position.alpha, 6).tolist()
        for position in plan.positions
        if position.kind != "listed" and position.alpha is not None
    ]
    assert len({str(alpha) for alpha in alphas}) == len(alphas)  # no point is evaluated twice


def test_an_ensemble_of_any_alphas_may_extrapolate():
    plan = survey(Line(), num_points=3, ensemble=(-0.05, 0.5, 1.05))
    assert names(plan)[3:] == ("at -0.05", "at 0.5", "at 1.05")
    assert plan.ensembles[-1] == ("-0.05 & 0.5 & 1.05", "listed", (3, 4, 5))
    assert kinds(plan)[3:] == ("listed",) * 3
    np.testing.assert_allclose(plan.weights[3], [1.05, -0.05], rtol=1e-6)
    assert len(plan.along) == 3  # the verdict on the line does not look beyond it


def test_center_alone_and_combinations():
    assert center_alone(Curve()).weights.tolist() == [[0.25, 0.25, 0.5]]
    plan = affine(np.array([[2.0, -1.0], [0.5, 0.5]]))
    assert plan.weights.tolist() == [[2.0, -1.0], [0.5, 0.5]]
    assert plan.ensembles == ()


def test_a_patch_has_a_grid_with_its_corners_and_its_center_on_it():
    plan = survey(Patch(), num_points=3, num_random=5, kinds=("random",))
    assert plan.ends == (0, 2, 6, 8)
    assert names(plan)[plan.center] == "(0.50, 0.50)"
    assert ensembles(plan)["all corners"].members == plan.ends
    np.testing.assert_allclose(plan.along, [*np.zeros(9), *np.full(5, 1 / 5)])
    np.testing.assert_allclose(plan.combinations, plan.weights)
    assert survey(Patch(), num_points=2).positions[-1].kind == "center"  # no center on this grid


def test_a_ring_has_no_ends_and_nothing_to_connect():
    plan = survey(Ring(), num_points=4, num_random=2, kinds=("random",))
    assert names(plan) == ("0.00", "0.25", "0.50", "0.75", "center", "random 1", "random 2")
    assert plan.ends == ()
    assert plan.center == 4
    assert tuple(ensembles(plan)) == ("2 random",)
    assert len(plan.along) == 0
