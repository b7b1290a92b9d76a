"""Arrays in memory as the data of a problem."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace import arguments, host_arrays
from jsubspace.data import epochs
from jsubspace.data.protocol import Arrays, Data
from jsubspace.data.resident import Resident
from jsubspace.data.shards import Shard
from jsubspace.errors import UsageError


class ArrayData(Data):
    """Arrays in memory: the inputs of the network, and last the targets of the task.

    The order of the training examples is a function of the seed and the epoch, so training resumes at any step exactly.
    Every host holds all arrays and reads its part of a batch.

    Args:
      train: arrays ``[n, ...]`` with one row per example, as ``(x, y)``.
      test: arrays like the arrays of ``train``.
      batch_size: the number of examples in a training batch, over all devices.
      validation: arrays like the arrays of ``train``, or None. Training never reads them.
      seed: determines the order of the training examples. None takes the seed of the run, the setting ``seed``. The order
        outside of a run is then the order of seed 0.
      augment: ``(key, *example) -> example``: from the arrays of one training example to those that the network sees. It
        runs inside of the step. The key follows from the seed, the step and the place of the example, so the result does
        not depend on the number of devices.
      eval_batch_size: the number of examples in a test batch, over all devices. The default is ``batch_size``.

    Raises:
      UsageError: if arrays are missing, differ in length or type, are empty, hold integers that jax would change, or a size is
        out of range.
      ValueError: if the seed is no integer of at least 0, or augment is no function.

    Example:
      >>> x, y = np.zeros((10, 3), np.float32), np.arange(10) % 2
      >>> data = ArrayData(train=(x, y), test=(x, y), batch_size=4)
      >>> data.steps_per_epoch, data.num_test, [len(batch[0]) for batch, _ in data.test_batches(Shard())]
      (3, 10, [4, 4, 4])
    """

    def __init__(
        self,
        *,
        train: Sequence[Any],
        test: Sequence[Any],
        batch_size: int,
        validation: Sequence[Any] | None = None,
        seed: int | None = None,
        augment: Callable[..., Any] | None = None,
        eval_batch_size: int | None = None,
    ) -> None:
        self._train, self._test = _checked("train", train), _checked("test", test)
        self._validation = None if validation is None else _checked("validation", validation)
        for name, split in (("test", self._test), ("validation", self._validation)):
            if split is not None and _kinds(split) != _kinds(self._train):
                raise UsageError(
                    f"ArrayData: {name} holds {_words(split)}, but train holds {_words(self._train)}. Examples of all splits have "
                    "the same arrays, of the same shapes and types."
                )
        self.num_train, self.num_test = len(self._train[0]), len(self._test[0])
        self.num_validation = 0 if self._validation is None else len(self._validation[0])
        self.num_bytes = sum(array.nbytes for array in (*self._train, *self._test, *(self._validation or ())))
        self.batch_size = _size("batch_size", batch_size)
        self.eval_batch_size = self.batch_size if eval_batch_size is None else _size("eval_batch_size", eval_batch_size)
        if self.batch_size > self.num_train:
            raise UsageError(
                f"ArrayData: batch_size is {self.batch_size}, but there are {self.num_train} training examples. Set it to at most "
                "this number."
            )
        self.steps_per_epoch = epochs.steps_per_epoch(self.num_train, self.batch_size)
        if augment is not None:
            arguments.function("ArrayData: augment", augment, "(key, *example) -> example")
        self._augment = augment
        self._has_order = seed is not None
        self._set_order(0 if seed is None else arguments.count("ArrayData: seed", seed, 0))
        own = type(self)  # A subclass may yield other batches.
        self._in_memory = {
            "training": self._train if own.train_batches is ArrayData.train_batches else None,
            "test": self._test if own.test_batches is ArrayData.test_batches else None,
            "validation": self._validation if own.validation_batches is ArrayData.validation_batches else None,
        }

    def of_run(self, seed: int) -> "ArrayData":
        """See `Data`. Without a seed of their own, the examples have the order that the run's seed determines."""
        if self._has_order:
            return self
        ours = copy.copy(self)
        ours._set_order(seed)
        return ours

    def in_memory(self, split: str) -> Arrays | None:
        """See `Data`. The examples are known where the class itself makes the batches."""
        return self._in_memory[split]

    def train_batches(
        self, start_step: int, shard: Shard, position: Any = None, positions: dict[int, Any] | None = None
    ) -> Iterator[Arrays]:
        """See `Data`. With an augmentation, the places of the examples in the batch are the last array."""
        del position, positions
        return self._examples.batches(start_step, shard)

    def test_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """See `Data`."""
        return self._in_order(self._test, shard)

    def validation_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """See `Data`."""
        return iter(()) if self._validation is None else self._in_order(self._validation, shard)

    def augment(self, key: jax.Array, *batch: jax.Array) -> Arrays:
        """See `Data`."""
        if self._augment is None:
            return batch
        *arrays, places = batch
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
        augmented = jax.vmap(self._augment)(keys, *arrays)
        if not isinstance(augmented, tuple | list) or len(augmented) != len(arrays):
            raise UsageError(
                f"ArrayData: augment returned a {type(augmented).__name__}. It must return the {len(arrays)} arrays of an example, "
                "also those that it does not change."
            )
        return tuple(augmented)

    def prepare(self, *batch: jax.Array) -> Arrays:
        """See `Data`."""
        return batch[: len(self._train)]

    def _set_order(self, seed: int) -> None:
        self._examples = Resident(self._train, self.batch_size, seed, self._augment is not None)
        if type(self).train_batches is ArrayData.train_batches:
            self.resident = self._examples

    def _in_order(self, split: Arrays, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        for rows, inside in epochs.padded(len(split[0]), self.eval_batch_size, shard):
            yield tuple(array[rows] for array in split), inside


def _checked(name: str, arrays: Any) -> Arrays:
    if not isinstance(arrays, tuple | list) or not arrays:
        raise UsageError(
            f"ArrayData: {name} is a {type(arrays).__name__}. It must be a tuple of arrays with one row per example: the inputs "
            "of the network, and last the targets, as (x, y)."
        )
    try:
        given = tuple(host_arrays.array(f"ArrayData: a member of {name}", array) for array in arrays)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if wrong := [
        array for array in given if arguments.is_key(array) or array.dtype.kind not in "biufV" or array.dtype.names
    ]:
        raise UsageError(
            f"ArrayData: {name} holds an array of the type {wrong[0].dtype}. Arrays hold numbers: turn text into integers, "
            "and pad examples of different lengths."
        )
    found = tuple(map(np.asarray, given))
    lengths = {array.shape[0] if array.shape else None for array in found}
    if len(lengths) > 1 or None in lengths:
        raise UsageError(
            f"ArrayData: {name} holds {_words(found)} with {', '.join(str(len(a)) if a.shape else 'no' for a in found)} rows. "
            "Every array has one row per example."
        )
    if lengths == {0}:
        hint = "Leave validation out if there is no validation data." if name == "validation" else "Give at least one."
        raise UsageError(f"ArrayData: {name} has no example. {hint}")
    try:
        for array in found:
            host_arrays.check_numbers(f"ArrayData: an array of {name}", array)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return found


def _kinds(arrays: Arrays) -> list[tuple[Any, Any]]:
    return [(array.shape[1:], jax.dtypes.canonicalize_dtype(array.dtype)) for array in arrays]


def _words(arrays: Arrays) -> str:
    return ", ".join(f"{array.dtype}{list(array.shape[1:])}" for array in arrays)


def _size(name: str, given: Any) -> int:
    size = arguments.integer(name, given)
    if size < 1:
        raise UsageError(f"ArrayData: {name} is {size}. It must be at least 1.")
    return size
