"""The same value_and_grad and interpolate train a small network of Flax linen, Flax nnx, Equinox and a plain dictionary."""

import equinox
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jsubspace

WIDTH = 16


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.tanh(nn.Dense(WIDTH)(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.tanh(self.hidden(x)))


def linen():
    return lambda key: Linen().init(key, jnp.ones((1, 2)))["params"], lambda point, x: Linen().apply(
        {"params": point}, x
    )


def flax_nnx():
    graph = nnx.graphdef(Nnx(nnx.Rngs(0)))

    def init_fn(key):
        return nnx.state(Nnx(nnx.Rngs(key)), nnx.Param)

    return init_fn, lambda point, x: nnx.merge(graph, point)(x)


def equinox_mlp():
    def make(key):
        return equinox.partition(
            equinox.nn.MLP(2, 2, WIDTH, depth=1, activation=jnp.tanh, key=key), equinox.is_inexact_array
        )

    static = make(jax.random.key(0))[1]
    return lambda key: make(key)[0], lambda point, x: jax.vmap(equinox.combine(point, static))(x)


def dictionary():
    def init_fn(key):
        hidden_key, head_key = jax.random.split(key)
        return {
            "hidden": {"kernel": jax.random.normal(hidden_key, (2, WIDTH)), "bias": jnp.zeros(WIDTH)},
            "head": {"kernel": 0.2 * jax.random.normal(head_key, (WIDTH, 2))},
        }

    def apply_fn(point, x):
        hidden = jnp.tanh(x @ point["hidden"]["kernel"] + point["hidden"]["bias"])
        return hidden @ point["head"]["kernel"]

    return init_fn, apply_fn


@pytest.mark.parametrize(
    "make_optimizer", [lambda: optax.sgd(0.2, momentum=0.9), lambda: optax.adam(0.02)], ids=["sgd", "adam"]
)
@pytest.mark.parametrize("make", [linen, flax_nnx, equinox_mlp, dictionary])
def test_a_line_is_trained_to_convergence(make, make_optimizer):
    """A linearly inseparable task is solved at both ends, between them, and by endpoints that differ."""
    init_fn, apply_fn = make()
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(256, 2)).astype(np.float32)
    y = (np.sum(x**2, axis=1) > 2).astype(np.int32)
    subspace, optimizer = jsubspace.Line(), make_optimizer()

    def loss_fn(point, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(apply_fn(point, x), y).mean()

    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, beta=1.0)

    @jax.jit
    def train(key):
        init_key, train_key = jax.random.split(key)
        endpoints = jsubspace.init_endpoints(init_key, init_fn, subspace.num_endpoints)

        def step(carry, key):
            endpoints, state = carry
            (_, info), grads = grad_fn(key, endpoints, x, y)
            updates, state = optimizer.update(grads, state, endpoints)
            return (optax.apply_updates(endpoints, updates), state), info.loss

        (trained, _), losses = jax.lax.scan(
            step, (endpoints, optimizer.init(endpoints)), jax.random.split(train_key, 1000)
        )
        return trained, losses

    endpoints, losses = train(jax.random.key(0))
    assert jnp.mean(losses[-50:]) < 0.15 < 0.5 < losses[0]

    @jax.jit
    def accuracy(endpoints, alpha):
        point = jsubspace.interpolate(endpoints, alpha)
        assert jax.tree.structure(point) == jax.tree.structure(jax.eval_shape(init_fn, jax.random.key(0)))
        return jnp.mean(jnp.argmax(apply_fn(point, x), axis=-1) == y)

    assert min(accuracy(endpoints, alpha) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)) > 0.93
    assert jsubspace.cosine_squared(endpoints, 0, 1) < 0.2
    assert jsubspace.distances(endpoints)[0, 1] > 1
