"""Small problems of a user's own, for the tests of whole runs."""

import jax
import jax.numpy as jnp
import numpy as np

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.models import adapters

FILE = '''
"""Regression on a sine, as a user writes it."""

import jax
import jax.numpy as jnp
import numpy as np

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.models import adapters


def get_config():
    config = training.default_settings(width=6, noise=0.1)
    config.optimizer.num_epochs, config.optimizer.warmup_epochs, config.optimizer.learning_rate = 3, 1, 0.02
    config.log_every_steps, config.checkpoint_every_epochs, config.num_devices = 4, 1, 1
    config.evaluation.num_points, config.evaluation.num_resamples, config.evaluation.every_epochs = 3, 20, 1
    return config


def get_problem(config):
    width = config.problem.width

    def init(key):
        first, last = jax.random.split(key)
        return {
            "hidden": {"kernel": jax.random.normal(first, (1, width)), "bias": jnp.zeros(width)},
            "last": {"kernel": jax.random.normal(last, (width, 1)) / width},
        }

    def apply(point, x, key=None, train=False):
        hidden = jnp.tanh(x @ point["hidden"]["kernel"] + point["hidden"]["bias"])
        if train:
            hidden *= jax.random.bernoulli(key, 0.9, hidden.shape) / 0.9
        return (hidden @ point["last"]["kernel"])[:, 0]

    def augment(key, x, y):
        return x, y + config.problem.noise * jax.random.normal(key, y.shape)

    x = np.linspace(-3, 3, 90, dtype=np.float32)[:, None]
    y = np.sin(x[:, 0])
    data = ArrayData(
        train=(x[::2], y[::2]), test=(x[1::2], y[1::2]), validation=(x[5::9], y[5::9]), batch_size=20, seed=config.seed,
        augment=augment,
    )
    return training.Problem(adapters.from_functions(init, apply), jsubspace.Regression(scale=0.2), data)
'''


def of_file(text=FILE):
    """``get_config`` and ``get_problem`` of a user's file."""
    names = {}
    exec(compile(text, "mine.py", "exec"), names)
    return names["get_config"], names["get_problem"]


def classes(num_examples=60, seed=0):
    """Two classes of points in four dimensions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_examples, 4)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int32)


def dense(key):
    return {"dense": {"kernel": jax.random.normal(key, (4, 2)), "bias": jnp.zeros(2)}}


def apply_dense(point, x):
    return x @ point["dense"]["kernel"] + point["dense"]["bias"]


def classifier(network=None, task=None, **data):
    """A problem of two classes, of which parts may be replaced."""
    x, y = classes()
    splits = {"train": (x, y), "test": (x, y), "batch_size": 20} | data
    network = adapters.from_functions(dense, apply_dense) if network is None else network
    return training.Problem(network, jsubspace.Classification() if task is None else task, ArrayData(**splits))


def short_settings(**problem):
    """Settings of a run of three steps."""
    settings = training.default_settings(**problem)
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs = 1, 0
    settings.evaluation.num_points, settings.evaluation.num_resamples = 3, 20
    settings.log_every_steps, settings.num_devices = 3, 1
    return settings
