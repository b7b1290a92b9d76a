"""The optimizer against its formulas, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jsubspace.runs import config, parts
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


SETTINGS = [
    {},
    {"optimizer.momentum": 0.0, "optimizer.weight_decay": 0.0},
    {"subspace.name": "curve", "subspace.fixed_ends": True},
]


@pytest.mark.parametrize("overrides", SETTINGS, ids=str)
def test_every_optimizer_of_a_config_is_elementwise_and_has_the_bits_of_optax(overrides):
    """A device may therefore hold a share of every leaf."""
    settings = config.default()
    with settings.unlocked():
        settings.update_from_flattened_dict(overrides)
    optimizer = parts.make_optimizer(settings, lambda count: 0.1 / (count + 1))
    m = 3 if settings.subspace.fixed_ends else 2
    endpoints = {
        "w": jax.random.normal(jax.random.key(0), (m, 8, 3)),
        "b": jax.random.normal(jax.random.key(1), (m, 8)),
    }

    def trained(optimizer, params):
        state = optimizer.init(params)
        for step in range(3):
            grads = jax.tree.map(lambda leaf, step=step: jnp.sin(leaf) * (step + 1), params)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    whole, state = trained(optimizer, endpoints)
    halves = [
        trained(optimizer, jax.tree.map(lambda leaf, i=i: leaf[:, 4 * i : 4 * i + 4], endpoints))[0] for i in (0, 1)
    ]
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *halves), whole)
    plain = optax.chain(
        optax.add_decayed_weights(settings.optimizer.weight_decay),
        optax.sgd(lambda count: 0.1 / (count + 1), settings.optimizer.momentum),
    )
    expected, plain_state = trained(plain, endpoints)
    if settings.subspace.fixed_ends:
        jax.tree.map(lambda new, old: np.testing.assert_array_equal(new[:2], old[:2]), whole, endpoints)
        whole, state, expected, plain_state = jax.tree.map(
            lambda leaf: leaf[2:] if leaf.ndim else leaf, (whole, state[0], expected, plain_state)
        )
    jax.tree.map(np.testing.assert_array_equal, whole, expected)
    jax.tree.map(np.testing.assert_array_equal, state, plain_state)  # A checkpoint has the arrays that it had before.
