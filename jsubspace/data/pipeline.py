"""What training and evaluation ask of a data pipeline, and which pipeline a data set has."""

import functools
from collections.abc import Callable, Iterator
from typing import Protocol

import jax
import numpy as np

from jsubspace.data import corruptions, imagenet, memory, prepare, sets, shards
from jsubspace.data.sets import DataSet

Batch = dict[str, np.ndarray]


class Pipeline(Protocol):
    """Batches of a data set, as a function of the seed and the step alone.

    Attributes:
      data_set: the facts.
      steps_per_epoch: number of batches that hold every training example once; the last may be smaller.
    """

    @property
    def data_set(self) -> DataSet: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """Endless training batches from step ``start_step`` on.

        Each has ``image`` uint8 ``[b, h, w, c]``, ``label`` int32 ``[b]`` and ``index`` int32 ``[b]``, the places
        in the batch.
        """

    def test_batches(self) -> Iterator[Batch]:
        """Every test example once: ``image``, ``label`` and ``mask`` bool ``[b]``, all of one size; padding has mask False."""

    def augment(self, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
        """Training images, inside the step: uint8 ``[b, h, w, c]`` to normalised float32."""

    def preprocess(self, images: jax.Array) -> jax.Array:
        """Test images, inside the step: uint8 ``[b, h, w, c]`` to normalised float32."""


def make_pipeline(
    name: str,
    data_dir: str,
    *,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    label_noise: float = 0.0,
    num_train: int = 0,
    pooling: int = 1,
    num_workers: int | None = None,
    num_samples: int = 1,
) -> Pipeline:
    """The pipeline of the data set ``name``, prepared under ``data_dir``.

    Args:
      name: one of `sets.SETS`.
      data_dir: the folder of prepared data; "" for the default one (`prepare.default_data_dir`).
      batch_size, eval_batch_size: of the whole batch, over all devices.
      seed: of the order of the training examples, and of what is done to them on the host.
      label_noise: fraction of training labels that are replaced (`labels.add_noise`).
      num_train: training examples, the first so many; 0 for all. Of data held in memory.
      pooling: side of the squares of pixels that are averaged. Of data held in memory.
      num_workers: processes that decode JPEGs; None for one a core, 0 for threads. Not for data held in memory.
      num_samples: parts into which a step cuts its batch; what a host reads of a batch is a multiple of it.

    Raises:
      UsageError: if the data set is unknown or not prepared; the message says how to prepare it.
    """
    data_set = sets.find(name)
    if data_set.in_memory:
        load: Callable[..., Pipeline] = functools.partial(memory.load, num_train=num_train, pooling=pooling)
    else:
        load = functools.partial(imagenet.load, num_workers=num_workers)
    return load(
        data_set,
        data_dir,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        seed=seed,
        label_noise=label_noise,
        num_samples=num_samples,
    )


def check_corrupted(name: str, data_dir: str, listed: str) -> None:
    """Sees to it that corrupted test sets will be there when they are asked for: those that ``listed`` names.

    Args:
      name, data_dir: of the clean data set.
      listed: as `corruptions.parse` takes it. Sets that are computed here are computed now.

    Raises:
      UsageError: if one does not exist or is not prepared; the message says how to prepare it.
    """
    for corruption, severity in corruptions.parse(listed):
        prepare.prepared(corruptions.corrupted(sets.find(name), corruption, severity), data_dir)


def corrupted_batches(
    name: str,
    data_dir: str,
    corruption: str,
    severity: int,
    eval_batch_size: int,
    pooling: int = 1,
    num_workers: int | None = None,
) -> Iterator[Batch]:
    """The corrupted test set of the data set ``name``, as `Pipeline.test_batches` gives the clean one.

    Raises:
      UsageError: if there is no such corruption of the data set, or it is not prepared; the message says how to prepare it.
    """
    data_set = sets.find(name)
    if data_set.in_memory:
        examples = memory.load_corrupted(data_set, corruption, severity, data_dir).pooled(pooling)
        return memory.padded_batches(examples, eval_batch_size, shards.of_this_process())
    corrupted = corruptions.corrupted(data_set, corruption, severity)
    return imagenet.corrupted_batches(corrupted, data_dir, eval_batch_size=eval_batch_size, num_workers=num_workers)
