"""A small problem for the stress test: ``python -m experiments.stress --kills=20 --problem=experiments/lib/sine.py``.

A network of plain functions with dropout learns a noisy sine. An epoch has three steps, and the last is smaller. The arrays
are shuffled and augmented, and the midpoint is tested on validation data.
"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.models import adapters


def get_config() -> ml_collections.ConfigDict:
    """Sixty epochs, with a checkpoint after each and windows of the log that are open at most of them."""
    config = training.default_settings(width=16, noise=0.1)
    config.optimizer.num_epochs, config.optimizer.learning_rate = 60, 0.02
    config.checkpoint_every_epochs, config.log_every_steps, config.num_devices = 1, 5, 1
    config.evaluation.num_points, config.evaluation.num_resamples, config.evaluation.every_epochs = 3, 100, 10
    return config


def get_problem(config: ml_collections.ConfigDict) -> training.Problem:
    """The network, the task and the data."""

    def init(key: jax.Array) -> Any:
        first, last = jax.random.split(key)
        return {
            "hidden": {
                "kernel": jax.random.normal(first, (1, config.problem.width)),
                "bias": jnp.zeros(config.problem.width),
            },
            "last": {"kernel": jax.random.normal(last, (config.problem.width, 1)) / config.problem.width},
        }

    def apply(point: Any, x: jax.Array, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        hidden = jnp.tanh(x @ point["hidden"]["kernel"] + point["hidden"]["bias"])
        if train:
            assert key is not None
            hidden *= jax.random.bernoulli(key, 0.9, hidden.shape) / 0.9
        return (hidden @ point["last"]["kernel"])[:, 0]

    def augment(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x, y + config.problem.noise * jax.random.normal(key, y.shape)

    x = np.linspace(-3, 3, 300, dtype=np.float32)[:, None]
    y = np.sin(x[:, 0])
    data = ArrayData(
        train=(x[::3], y[::3]),
        test=(x[1::3], y[1::3]),
        validation=(x[2::3], y[2::3]),
        batch_size=40,
        seed=config.seed,
        augment=augment,
    )
    return training.Problem(adapters.from_functions(init, apply), jsubspace.Regression(scale=0.2), data)
