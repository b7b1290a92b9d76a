"""The methods that training and evaluation need of a data pipeline, and the choice of a pipeline for a data set."""

from collections.abc import Iterator
from typing import Protocol

import jax

from jsubspace.data import corruptions, imagenet, memory, prepare, sets, shards
from jsubspace.data.batching import Batch, Batching
from jsubspace.data.resident import Resident
from jsubspace.data.sets import DataSet


class Pipeline(Protocol):
    """Batches of a data set, as a function of the seed and the step alone.

    Attributes:
      data_set: the facts about the data set.
      steps_per_epoch: the number of batches that hold every training example once. The last batch may be smaller.
      num_train, num_test: the numbers of training and test examples.
      num_bytes: the memory that the examples take on this host.
      num_validation: the number of validation examples, or 0. Training never reads them.
      resident: the training images and labels as arrays that may live on the devices, or None.
    """

    @property
    def data_set(self) -> DataSet: ...

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def num_train(self) -> int: ...

    @property
    def num_test(self) -> int: ...

    @property
    def num_bytes(self) -> int: ...

    @property
    def num_validation(self) -> int: ...

    @property
    def resident(self) -> Resident | None: ...

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """Endless training batches from step ``start_step`` on.

        Each batch has ``image`` uint8 ``[b, h, w, c]``, ``label`` int32 ``[b]`` and ``index`` int32 ``[b]``, the places
        of the examples in the batch.
        """

    def test_batches(self) -> Iterator[Batch]:
        """Every test example once, in batches of equal size.

        Each batch has ``image``, ``label`` and ``mask`` bool ``[b]``. The mask is False for padding.
        """

    def validation_batches(self) -> Iterator[Batch]:
        """Every validation example once, with its own label and without augmentation, as `test_batches` yields them."""

    def augment(self, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
        """Converts training images inside the step: uint8 ``[b, h, w, c]`` to augmented and normalised float32."""

    def preprocess(self, images: jax.Array) -> jax.Array:
        """Converts test and validation images inside the step: uint8 ``[b, h, w, c]`` to normalised float32."""


def make_pipeline(name: str, data_dir: str, batching: Batching) -> Pipeline:
    """The pipeline of the data set ``name``, prepared under ``data_dir``.

    Args:
      name: one of `sets.SETS`.
      data_dir: the folder of prepared data, or "" for the default folder (`prepare.default_data_dir`).
      batching: how the examples are read and put into batches.

    Raises:
      UsageError: if the data set is unknown or not prepared. The message says how to prepare it.
    """
    data_set = sets.find(name)
    return (memory if data_set.in_memory else imagenet).load(data_set, data_dir, batching)


def check_corrupted(name: str, data_dir: str, listed: str) -> None:
    """Checks that corrupted test sets will exist when they are asked for. Sets that are computed here are computed now.

    Args:
      name, data_dir: of the clean data set.
      listed: the corruptions, as `corruptions.parse` takes them.

    Raises:
      UsageError: if a set does not exist or is not prepared. The message says how to prepare it.
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
    """The corrupted test set of the data set ``name``, in batches as `Pipeline.test_batches` yields them.

    Raises:
      UsageError: if the data set has no such corruption, or it is not prepared. The message says how to prepare it.
    """
    data_set = sets.find(name)
    if data_set.in_memory:
        examples = memory.load_corrupted(data_set, corruption, severity, data_dir).pooled(pooling)
        return memory.padded_batches(examples, eval_batch_size, shards.of_this_process())
    corrupted = corruptions.corrupted(data_set, corruption, severity)
    return imagenet.corrupted_batches(corrupted, data_dir, eval_batch_size=eval_batch_size, num_workers=num_workers)
