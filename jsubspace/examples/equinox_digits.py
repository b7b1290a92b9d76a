"""A convolutional network in Equinox on scikit-learn's digits, as a problem that `jsubspace.training.train` trains."""

from typing import Any

import equinox as eqx
import jax

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.examples import small_images
from jsubspace.models import adapters


class Net(eqx.Module):
    """Two convolutions with GroupNorm, the mean over the image, and a linear layer.

    Args:
      key: of the initialisation.
      width: the number of channels of the first convolution. The second has twice as many.
    """

    convolutions: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.GroupNorm]
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array, width: int):
        keys = jax.random.split(key, 3)
        self.convolutions = [
            eqx.nn.Conv2d(1, width, 3, padding=1, use_bias=False, key=keys[0]),
            eqx.nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, use_bias=False, key=keys[1]),
        ]
        self.norms = [eqx.nn.GroupNorm(4, width), eqx.nn.GroupNorm(4, 2 * width)]
        self.head = eqx.nn.Linear(2 * width, 10, key=keys[2])

    def __call__(self, image: jax.Array) -> jax.Array:
        """The logits ``[10]`` of one image ``[1, 8, 8]``."""
        x = image
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.relu(norm(convolution(x)))
        return self.head(x.mean(axis=(1, 2)))


def make_settings(num_epochs: int = 30, **problem: Any) -> Any:
    """The settings of a line, with the two options that train its midpoint faster. The group ``problem`` has the settings of `make_problem`: ``width`` and ``batch_size``."""
    settings = training.default_settings(**{"width": 16, "batch_size": 64} | problem)
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs = num_epochs, min(5, num_epochs // 4)
    settings.optimizer.learning_rate = 0.2
    settings.subspace.name, settings.subspace.pull_back, settings.subspace.spread_growth = "line", "center", 0.5
    settings.evaluation.num_points = 11
    settings.log_every_steps = 17
    return settings


def make_problem(settings: Any) -> training.Problem:
    """The network, the task and the data."""
    asked = settings.problem
    parts: dict[str, Any] = {
        name: (x.reshape(-1, 1, 8, 8), y) for name, (x, y) in small_images.digits()._asdict().items()
    }  # Equinox has the channels first.
    return training.Problem(
        network=adapters.from_equinox(lambda key: Net(key, asked.width)),
        task=jsubspace.Classification(),
        data=ArrayData(**parts, batch_size=asked.batch_size, seed=settings.seed, eval_batch_size=360),
    )
