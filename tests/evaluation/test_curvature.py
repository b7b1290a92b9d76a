"""The largest eigenvalue against numpy's, for operators and for a network's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsubspace.evaluation import curvature


def symmetric(eigenvalues, seed=0):
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return jnp.asarray(basis @ np.diag(eigenvalues) @ basis.T)


@pytest.mark.parametrize("eigenvalues", [[5, 1, 0.5, -2], [3, 1, 0, -7], [-1, -2, -3, -4], [2, 2, 1, 0]])
def test_of_a_matrix(x64, eigenvalues):
    matrix = symmetric(eigenvalues)
    found = curvature.largest_eigenvalue(lambda v: matrix @ v, jnp.zeros(4), jax.random.key(0), 500, 1e-6)
    assert found.value == pytest.approx(max(eigenvalues), abs=1e-4)
    assert found.residual < 1e-4
    assert found.iterations <= 1000


def test_of_nothing():
    found = curvature.largest_eigenvalue(lambda v: 0 * v, jnp.zeros(4), jax.random.key(0))
    assert (found.value, found.residual) == (0, 0)
    with pytest.raises(ValueError, match="num_iterations"):
        curvature.largest_eigenvalue(lambda v: v, jnp.zeros(4), jax.random.key(0), 0)


def test_few_iterations_say_how_far_they_came(x64):
    matrix = symmetric([1.0, 0.99, 0.98])
    found = curvature.largest_eigenvalue(lambda v: matrix @ v, jnp.zeros(3), jax.random.key(0), 3)
    assert found.iterations == 3
    assert np.min(np.abs(np.linalg.eigvalsh(matrix) - found.value)) <= found.residual


def test_of_a_networks_loss_is_that_of_its_hessian(x64):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(20, 3))), jnp.asarray(rng.integers(2, size=20))
    point = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=(4, 2)))}

    def loss_fn(point, x, y):
        log_probs = jax.nn.log_softmax(jnp.tanh(x @ point["a"]) @ point["b"])
        return -jnp.mean(log_probs[jnp.arange(20), y])

    flat, unravel = jax.flatten_util.ravel_pytree(point)
    hessian = jax.hessian(lambda flat: loss_fn(unravel(flat), x, y))(flat)
    product = jax.jit(lambda v: curvature.hessian_vector_product(loss_fn, point, v, x, y))
    vector = jnp.asarray(rng.normal(size=flat.shape))
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(product(unravel(vector)))[0], hessian @ vector, atol=1e-12)
    found = curvature.largest_eigenvalue(product, point, jax.random.key(0), 500, 1e-6)
    assert found.value == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-5)
