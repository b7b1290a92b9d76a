"""A small GPT on the source text of Python, for the stress test: ``--problem=experiments/lib/text.py``.

It is a line of tiny GPTs of Flax nnx (`jsubspace.examples.gpt`). The settings are made for many kills and not for a good network.
"""

import ml_collections
import numpy as np

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.examples import gpt, source_text
from jsubspace.models import adapters


def get_config() -> ml_collections.ConfigDict:
    """Sixty epochs of eight steps, with a checkpoint after each."""
    config = training.default_settings(width=16, blocks=1, length=16)
    config.optimizer.num_epochs, config.optimizer.learning_rate = 60, 0.3
    config.checkpoint_every_epochs, config.log_every_steps, config.num_devices = 1, 5, 1
    config.evaluation.num_points, config.evaluation.num_resamples, config.evaluation.every_epochs = 3, 100, 20
    return config


def get_problem(config: ml_collections.ConfigDict) -> training.Problem:
    """The network, the task and the data."""
    length = config.problem.length
    model = gpt.GPT(gpt.Shape(length=length, width=config.problem.width, heads=2, blocks=config.problem.blocks))

    def pairs(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = source_text.sequences(source_text.read(split), length, count)
        return tokens[:, :-1], tokens[:, 1:]

    data = ArrayData(
        train=pairs("train", 250),
        test=pairs("test", 64),
        validation=pairs("validation", 64),
        batch_size=32,
        seed=config.seed,
    )
    return training.Problem(adapters.from_functions(model.init_fn, model.predict_fn), jsubspace.Tokens(), data)
