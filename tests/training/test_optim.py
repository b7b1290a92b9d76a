"""The optimizer against its formulas, written out."""

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.training import optim


def test_sgd_couples_decay_with_momentum():
    optimizer = optim.sgd(lambda step: 0.1 / (step + 1), momentum=0.9, weight_decay=0.01)
    weights, velocity = np.array([1.0, -2.0]), np.zeros(2)
    params = {"w": jnp.asarray(weights)}
    state = optimizer.init(params)
    for step in range(4):
        gradient = np.array([0.3, 0.1 * step])
        velocity = 0.9 * velocity + gradient + 0.01 * weights
        weights = weights - 0.1 / (step + 1) * velocity
        updates, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    np.testing.assert_allclose(params["w"], weights, rtol=1e-5)
