"""Draws from a stack of networks: moments, identities, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.evaluation import averaging


@pytest.fixture
def stack():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {"conv": {"kernel": draw(3, 2, 4), "bias": draw(3, 4)}, "head": {"kernel": draw(3, 4, 2)}}


def test_the_gaussian_has_the_mean_and_covariance_that_its_formula_says(stack):
    drawn = averaging.gaussian(jax.random.key(0), stack, 20_000)["conv"]["kernel"].reshape(20_000, -1)
    checkpoints = np.asarray(stack["conv"]["kernel"], np.float64).reshape(3, -1)
    deviations = checkpoints - checkpoints.mean(0)
    covariance = np.diag(deviations.var(0)) / 2 + deviations.T @ deviations / (2 * (3 - 1))
    np.testing.assert_allclose(np.mean(drawn, 0), checkpoints.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(np.asarray(drawn).T), covariance, atol=0.06)


def test_equal_checkpoints_have_no_variance_and_no_nan():
    """The mean of squares minus the square of the mean, as the authors have it, is negative by rounding here."""
    network = {"kernel": jnp.full((2, 3), 1000.1)}
    drawn = averaging.gaussian(jax.random.key(0), jsubspace.stack([network] * 3), 5)
    np.testing.assert_allclose(drawn["kernel"], 1000.1, rtol=1e-6)


def test_one_checkpoint_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 checkpoints"):
        averaging.gaussian(jax.random.key(0), {"kernel": jnp.zeros((1, 2, 3))}, 5)
    with pytest.raises(ValueError, match="Simplex of checkpoints"):
        averaging.gaussian_points(jax.random.key(0), {"kernel": jnp.zeros((3, 2, 3))}, jsubspace.Curve(), 5)
    with pytest.raises(ValueError, match="num_samples is 0"):
        averaging.gaussian(jax.random.key(0), {"kernel": jnp.zeros((2, 2, 3))}, 0)


@pytest.mark.parametrize("subspace", [jsubspace.Simplex(3), jsubspace.Curve()], ids=repr)
def test_random_points_lie_where_they_say(stack, subspace):
    """Solve for the weights that a drawn network has of the endpoints: one set a network, a layer, or a parameter."""
    for draw, alike in (
        (averaging.random_points, "network"),
        (averaging.layerwise_points, "layer"),
        (averaging.weightwise_points, "weight"),
    ):
        drawn = draw(jax.random.key(1), stack, subspace, 2)
        assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(lambda leaf: (2, *leaf.shape[1:]), stack)

        def weights(layer, name, drawn=drawn):
            rows = np.asarray(stack[layer][name], np.float64).reshape(3, -1)
            found = np.linalg.lstsq(rows.T, np.asarray(drawn[layer][name][0], np.float64).ravel(), rcond=None)
            return found[0], np.linalg.norm(rows.T @ found[0] - np.asarray(drawn[layer][name][0]).ravel())

        kernel, residual = weights("conv", "kernel")
        head, _ = weights("head", "kernel")
        if alike == "weight":
            assert residual > 1e-2
            continue
        assert residual < 1e-5
        assert kernel.sum() == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(weights("conv", "bias")[0], kernel, atol=1e-4)  # of one layer
        assert np.allclose(kernel, head, atol=1e-4) == (alike == "network")


def test_weightwise_points_stay_between_the_endpoints(stack):
    drawn = averaging.weightwise_points(jax.random.key(1), stack, jsubspace.Simplex(3), 4)
    jax.tree.map(
        lambda leaf, rows: np.testing.assert_array_equal(
            (leaf >= rows.min(0) - 1e-6) & (leaf <= rows.max(0) + 1e-6), True
        ),
        drawn,
        stack,
    )
