"""The optimizer against its formulas, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jsubspace.runs import config, optimizers
from jsubspace.training import averages, optim
from jsubspace.training.train_state import TrainState


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
    optimizer = optimizers.make(settings, lambda count: 0.1 / (count + 1))
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


def gradients(step, params):
    return jax.tree.map(lambda leaf: jnp.sin(3 * leaf + step), params)


def options_of(**options):
    settings = config.default()
    for name, value in options.items():
        config.change(settings, f"optimizer.{name}", str(value))
    return settings


def test_adamw_and_lion_shrink_each_parameter_by_the_rate_beside_their_update():
    """In numpy: the decay is neither in the moments nor in the sign."""
    grads = [np.array([0.3, -0.1]), np.array([0.2, 0.4]), np.array([-0.5, 0.1])]

    def expected(name):
        weights, first, second = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
        for step, gradient in enumerate(grads, start=1):
            rate = 0.1 / step
            if name == "adamw":
                first, second = 0.8 * first + 0.2 * gradient, 0.999 * second + 0.001 * gradient**2
                change = first / (1 - 0.8**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            else:
                change, first = np.sign(0.8 * first + 0.2 * gradient), 0.99 * first + 0.01 * gradient
            weights = weights - rate * change - rate * 0.05 * weights
        return weights

    for name in ("adamw", "lion"):
        settings = options_of(name=name, momentum=0.8, weight_decay=0.05)
        optimizer = optimizers.make(settings, lambda count: 0.1 / (count + 1))
        endpoints = {"w": jnp.array([[1.0, -2.0]] * 2)}
        state = optimizer.init(endpoints)
        for gradient in grads:
            updates, state = optimizer.update({"w": jnp.asarray([gradient] * 2, jnp.float32)}, state, endpoints)
            endpoints = optax.apply_updates(endpoints, updates)
        np.testing.assert_allclose(endpoints["w"], [expected(name)] * 2, rtol=1e-5)


def test_muon_turns_a_matrix_and_a_convolution_into_near_orthogonal_updates():
    """Of the size that AdamW's usually have, which trains the rest with Nesterov's momentum. Each endpoint is alone."""
    optimizer = optimizers.make(options_of(name="muon", weight_decay=0.0), lambda count: 0.1)
    shapes = {"matrix": (6, 4), "conv": (1, 2, 3, 4), "bias": (4,), "heads": (3, 2, 2)}
    endpoints = {name: jnp.zeros((2, *shape)) for name, shape in shapes.items()}
    grads = {name: jax.random.normal(jax.random.key(0), leaf.shape) for name, leaf in endpoints.items()}
    grads = jax.tree.map(lambda leaf: leaf * jnp.array([1.0, 100.0]).reshape(2, *(1,) * (leaf.ndim - 1)), grads)
    updates, _ = optimizer.update(grads, optimizer.init(endpoints), endpoints)
    for name in ("matrix", "conv"):
        for gradient, update in zip(grads[name], updates[name], strict=True):
            values = np.linalg.svd(np.asarray(update).reshape(6, 4), compute_uv=False)
            assert values.max() / values.min() < 2
            assert np.sqrt(np.mean(np.square(update))) == pytest.approx(0.1 * optim.RMS, rel=0.3)
            assert np.sum(gradient * update) < 0
    for name in ("bias", "heads"):
        nesterov = 0.9 * 0.1 / (1 - 0.9**2) + 0.1 / (1 - 0.9)
        np.testing.assert_allclose(updates[name], -0.1 * nesterov * np.sign(grads[name]), rtol=1e-4)


def test_an_update_of_several_steps_has_their_mean_gradient_and_the_rate_of_the_last():
    rates = [1.0, 0.5, 0.25, 0.125, 0.1, 0.05]
    optimizer = optimizers.make(
        options_of(accumulate_steps=3, momentum=0.0, weight_decay=0.0), lambda step: jnp.asarray(rates)[step]
    )
    params = {"w": jnp.array([[1.0], [2.0]])}
    state, seen = optimizer.init(params), []
    for step in range(6):
        updates, state = optimizer.update({"w": jnp.full((2, 1), step + 1.0)}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(float(params["w"][0, 0]))
    np.testing.assert_allclose(seen, [1, 1, 0.5, 0.5, 0.5, 0.5 - 0.05 * 5], rtol=1e-6)


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_is_a_mean_first_and_moves_by_its_decay_later(every):
    """What is averaged is trained as if there were no average. Steps that only accumulate do not count."""
    schedule = lambda step: 0.1  # noqa: E731
    plain = optimizers.make(options_of(accumulate_steps=every), schedule)
    optimizer = optimizers.make(options_of(accumulate_steps=every, ema_decay=0.75), schedule)
    alone, average = {"w": jnp.array([[1.0], [2.0]])}, {"w": jnp.array([[1.0], [2.0]])}
    plain_state, state = plain.init(alone), optimizer.init(average)
    expected, count = None, 0
    for step in range(7 * every):
        grads = gradients(step, alone)
        updates, plain_state = plain.update(grads, plain_state, alone)
        alone = optax.apply_updates(alone, updates)
        np.testing.assert_array_equal(
            gradients(step, averages.trained(TrainState(jnp.array(step), average, state)))["w"], grads["w"]
        )
        updates, state = optimizer.update(grads, state, average)
        average = optax.apply_updates(average, updates)
        if (step + 1) % every == 0:
            count += 1
            new = np.asarray(alone["w"], np.float64)
            expected = new if count == 1 else expected + max(0.25, 1 / count) * (new - expected)
            np.testing.assert_allclose(average["w"], expected, rtol=1e-5)


def test_the_average_of_endpoints_in_bfloat16_does_not_stall():
    """Against the average of the same trajectory in float64. A late step is smaller than half of bfloat16's last place."""
    optimizer = averages.averaged(optax.sgd(1.0), 0.999)
    average = {"w": jnp.zeros((2, 1), jnp.bfloat16), "b": jnp.zeros((2, 1))}
    state, expected = optimizer.init(average), 0.0

    @jax.jit
    def step(state, average):
        grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, -1 / 128, leaf.dtype), average)
        updates, state = optimizer.update(grads, state, average)
        return state, optax.apply_updates(average, updates)

    for count in range(1, 1001):
        state, average = step(state, average)
        expected += max(0.001, 1 / count) * (float(state.trained["w"][0, 0]) - expected)
    # The compiler may average the endpoints before they are rounded to eight bits.
    np.testing.assert_allclose(state.average["w"], expected, rtol=2**-8)
    np.testing.assert_allclose(np.float32(average["w"]), expected, rtol=2**-7)
    assert average["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(average["b"], state.average["b"], rtol=1e-5)


def test_the_gradient_at_the_point_is_shortened_as_one_vector():
    clipped = optimizers.clipping(options_of(clip_norm=1.0))({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])})
    np.testing.assert_allclose([clipped["a"][0], clipped["b"][0, 0]], [0.6, 0.8], rtol=1e-6)
    short = {"a": jnp.array([0.3]), "b": jnp.array([[0.4]])}
    jax.tree.map(np.testing.assert_array_equal, optimizers.clipping(options_of(clip_norm=1.0))(short), short)
    assert optimizers.clipping(options_of()) is None
