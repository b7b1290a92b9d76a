"""What the loop and evaluation ask of data."""

import abc
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jsubspace.data.resident import Resident
from jsubspace.data.shards import WHOLE_BATCH, Shard

Arrays = tuple[Any, ...]
"""The arrays of a batch, ``[n, ...]``: the inputs of the network, and last the targets of the task."""


class Data(abc.ABC):
    """Batches as a function of the seed and the step. Data of your own is a subclass.

    `arrays.ArrayData` holds arrays in memory, and `from_grain.from_grain` reads data sets of Grain. A subclass has the three
    attributes and the methods `train_batches` and `test_batches`. All other members have defaults.

    A host reads only its part of a batch: ``shard.places(n)`` are its places in a batch of n examples.

    Attributes:
      batch_size: the number of examples in a training batch, over all devices and hosts.
      steps_per_epoch: the number of training batches of an epoch. The last batch of an epoch may be smaller.
      num_train: the number of training examples.
    """

    batch_size: int
    steps_per_epoch: int
    num_train: int

    eval_batch_size: int = 0
    """The number of examples in a test or validation batch, over all devices and hosts. 0 stands for ``batch_size``."""
    num_test: int = 0
    """The number of test examples, for the estimate of the memory. It may be 0 if it is not known."""
    num_validation: int = 0
    """The number of validation examples. It may be 0."""
    num_bytes: int = 0
    """The memory that the examples take on this host."""
    is_stream: bool = False
    """Whether training resumes from a saved position and not from the number of the step alone."""
    resident: Resident | None = None
    """The training examples as arrays that may live on the devices, or None if the host makes every batch. A step then gathers
    what `train_batches` yields."""

    def of_run(self, seed: int) -> "Data":
        """The data as a run with this seed reads it. The default is the data itself, with an order of its own.

        A run calls it once, before it reads a batch. Data with an order that the run's seed determines returns a copy, because
        other runs may read the same object.
        """
        del seed
        return self

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The shapes and dtypes of the arrays of one training example. The default reads a batch."""
        batch = next(iter(self.train_batches(0, WHOLE_BATCH)))
        arrays = map(np.asarray, batch)
        return tuple(
            jax.ShapeDtypeStruct(array.shape[1:], jax.dtypes.canonicalize_dtype(array.dtype)) for array in arrays
        )

    def in_memory(self, split: str) -> Arrays | None:
        """All examples of a split as host arrays ``[n, ...]``, with the targets last. None if the split is not such arrays.

        A run checks the targets of these examples before it trains. The targets of other data are checked when they are read.

        Args:
          split: "training", "test" or "validation".
        """
        del split
        return None

    @abc.abstractmethod
    def train_batches(
        self, start_step: int, shard: Shard, position: Any = None, positions: dict[int, Any] | None = None
    ) -> Iterator[Arrays]:
        """Endless training batches from step ``start_step`` on, as tuples of numpy arrays ``[b, ...]``.

        Args:
          start_step: the number of steps that were taken before.
          shard: the part of each batch that this host reads.
          position: of a stream, its position after ``start_step`` steps. None begins at the start of the stream.
          positions: of a stream, gets the position after every batch that was yielded, by the number of steps. A position
            consists of what JSON holds. Other data leaves it empty.
        """

    @abc.abstractmethod
    def test_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """Every test example once, in batches of equal size.

        Yields:
          The arrays, and a mask bool ``[b]``, which is False for padding.
        """

    def validation_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """Every validation example once, as `test_batches` yields them."""
        del shard
        return iter(())

    def augment(self, key: jax.Array, *batch: jax.Array) -> Arrays:
        """From the arrays of a training batch to inputs and targets, inside of the step. The default does nothing.

        The key is the same on every device, and a device sees its part of the batch. So draw for every example with a key
        that follows from the place of the example, and yield the places (``shard.places``) as one of the arrays.
        """
        del key
        return batch

    def prepare(self, *batch: jax.Array) -> Arrays:
        """From the arrays of any batch to inputs and targets without augmentation. Evaluation passes the inputs alone."""
        return batch
