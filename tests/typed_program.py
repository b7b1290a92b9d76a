"""A user's program with types. mypy and basedpyright accept it against the installed wheel (test_types, release-check)."""

from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.models import adapters

Network = dict[str, jax.Array]


def init_fn(key: jax.Array) -> Network:
    return {"kernel": jax.random.normal(key, (8, 3)), "bias": jnp.zeros(3)}


def predict_fn(point: Network, x: jax.Array) -> jax.Array:
    return x @ point["kernel"] + point["bias"]


def loss_fn(point: Network, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(predict_fn(point, x), y))


class Ring:
    """A subspace of the user's own: it has the members of `jsubspace.Subspace` and no base class."""

    num_endpoints = 3
    alpha_shape = ()
    ends = ()

    @property
    def center(self) -> jax.Array:
        return jnp.zeros(())

    def coefficients(self, alpha: jax.Array) -> jax.Array:
        return (1 + jnp.cos(2 * jnp.pi * (alpha[..., None] - jnp.arange(3) / 3))) / 3

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        return jax.random.uniform(key, shape)

    def grid(self, n: int) -> np.ndarray:
        return np.arange(n) / n


def in_a_loop(subspace: jsubspace.Subspace, x: jax.Array, y: jax.Array) -> jsubspace.Report:
    """Trains, and measures."""
    endpoints = jsubspace.init_endpoints(jax.random.key(0), init_fn, subspace)
    assert_type(endpoints, dict[str, jax.Array])
    assert_type(jsubspace.midpoint(endpoints), dict[str, jax.Array])
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, beta=1.0)
    optimizer = jsubspace.per_endpoint(optax.adam(1e-3))
    opt_state = optimizer.init(endpoints)
    (value, info), grads = grad_fn(jax.random.key(1), endpoints, x, y)
    assert_type(value, jax.Array)
    assert_type(info.loss, jax.Array)
    updates, opt_state = optimizer.update(grads, opt_state, endpoints)
    endpoints = optax.apply_updates(endpoints, updates)
    report = jsubspace.measure(predict_fn, endpoints, subspace, [(x, y)], num_points=5)
    chosen = jsubspace.measure(predict_fn, endpoints, subspace, validation_batches=[(x, y)], num_points=5)
    assert_type(report, jsubspace.Report)
    assert_type(chosen, jsubspace.ValidationReport)
    assert_type(chosen.best("nll").name, str)
    jsubspace.exchange.network_files.save("network.safetensors", {"params": jsubspace.midpoint(endpoints, subspace)})
    return report


def as_a_run(x: np.ndarray, y: np.ndarray, workdir: str) -> None:
    """Trains with checkpoints and results."""
    problem = training.Problem(
        network=adapters.from_functions(init_fn, predict_fn),
        task=jsubspace.Classification(),
        data=ArrayData(train=(x, y), test=(x, y), batch_size=32),
    )
    settings = training.default_settings()
    settings.subspace.name = "line"
    results = training.train(problem, settings, workdir)
    print(results["midpoint"])


if __name__ == "__main__":
    inputs = jax.random.normal(jax.random.key(2), (64, 8))
    labels = jnp.argmax(inputs[:, :3], axis=1)
    print(in_a_loop(jsubspace.Line(), inputs, labels).table())
    print(in_a_loop(Ring(), inputs, labels).center.accuracy)
    as_a_run(np.asarray(inputs), np.asarray(labels), "run")
