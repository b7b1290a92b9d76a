"""Data sets of Grain as the data of a problem."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jsubspace.data import epochs
from jsubspace.data.protocol import Arrays, Data
from jsubspace.data.shards import Shard
from jsubspace.errors import UsageError, one_line
from jsubspace.storage import documents

_MOST = 2**40
"""More examples than any data set has. Grain gives a repeated data set the length 2**63 - 1."""


def from_grain(
    *,
    train: Any,
    test: Any,
    batch_size: int,
    validation: Any = None,
    eval_batch_size: int = 0,
    steps_per_epoch: int = 0,
) -> Data:
    """The data of a problem from data sets of Grain. Their elements are single examples: tuples of arrays, as ``(x, y)``.

    A ``grain.MapDataset`` is read by index, so training resumes at any step exactly, also on another number of hosts. Each
    host reads its own examples alone. Leave out ``.batch()`` and ``.repeat()``: an epoch has every example once, and batches
    are made here. The order and random transformations are the data set's own, as in
    ``.seed(settings.seed).shuffle().random_map(...)``. The seed of a run does not change them.

    A ``grain.IterDataset`` is a stream. Its position is saved with every checkpoint. Each host reads the whole stream and
    keeps its part of every batch, so training resumes on another number of hosts too. The stream must not end: use
    ``.repeat()``. BatchNorm statistics come from the batches at the beginning of the stream.

    Args:
      train: a ``grain.MapDataset`` or a ``grain.IterDataset``.
      test: a ``grain.MapDataset``.
      batch_size: the number of examples in a training batch, over all devices and hosts.
      validation: a ``grain.MapDataset`` that training never reads, or None.
      eval_batch_size: the number of examples in a test batch, or 0 for ``batch_size``.
      steps_per_epoch: for a stream, the number of batches that count as an epoch.

    Raises:
      UsageError: for data that cannot resume (any other iterable), data without an example, or a size that does not fit.

    Example:
      >>> import grain
      >>> examples = grain.MapDataset.source(range(10)).map(lambda i: (np.full(3, i, np.float32), i % 2))
      >>> data = from_grain(train=examples.seed(0).shuffle(), test=examples, batch_size=4)
      >>> data.steps_per_epoch, [len(batch[0]) for _, batch in zip(range(3), data.train_batches(0, Shard()))]
      (3, [4, 4, 2])
    """
    import grain

    if isinstance(train, grain.IterDataset):
        if steps_per_epoch < 1:
            raise UsageError(
                "from_grain: train is a grain.IterDataset, which has no length. Give steps_per_epoch, the number of batches that "
                "count as an epoch."
            )
        return _Streamed(train, test, validation, batch_size, eval_batch_size, steps_per_epoch)
    if steps_per_epoch:
        raise UsageError("from_grain: steps_per_epoch is for a grain.IterDataset. A MapDataset has a length.")
    return _Indexed(train, test, validation, batch_size, eval_batch_size)


class _Indexed(Data):
    """A ``grain.MapDataset``. Its example number ``epoch * n + i`` is the i-th of an epoch, as Grain counts."""

    def __init__(self, train: Any, test: Any, validation: Any, batch_size: int, eval_batch_size: int) -> None:
        self._train, self.num_train = train, _length("train", train)
        self._test, self.num_test = test, _length("test", test)
        self._validation = validation
        self.num_validation = 0 if validation is None else _length("validation", validation)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        if not 1 <= batch_size <= self.num_train:
            raise UsageError(
                f"from_grain: batch_size is {batch_size}. It must be at least 1 and at most {self.num_train}, the number of training "
                "examples."
            )
        self.steps_per_epoch = epochs.steps_per_epoch(self.num_train, batch_size)

    def train_batches(
        self, start_step: int, shard: Shard, position: Any = None, positions: dict[int, Any] | None = None
    ) -> Iterator[Arrays]:
        """See `Data`."""
        del position, positions
        n = self.num_train

        def order(epoch: int) -> np.ndarray:
            return np.arange(epoch * n, (epoch + 1) * n)

        for rows, _ in epochs.endless(order, n, self.batch_size, shard, start_step):
            yield _stacked([self._train[int(row)] for row in rows], "train")

    def test_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """See `Data`."""
        return self._in_order(self._test, self.num_test, shard, "test")

    def validation_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """See `Data`."""
        if self._validation is None:
            return iter(())
        return self._in_order(self._validation, self.num_validation, shard, "validation")

    def _in_order(self, split: Any, length: int, shard: Shard, name: str) -> Iterator[tuple[Arrays, np.ndarray]]:
        for rows, inside in epochs.padded(length, self.eval_batch_size, shard):
            yield _stacked([split[int(row)] for row in rows], name), inside


class _Streamed(_Indexed):
    """A ``grain.IterDataset`` for training, and data sets with an index for everything else."""

    is_stream = True

    def __init__(
        self, train: Any, test: Any, validation: Any, batch_size: int, eval_batch_size: int, steps_per_epoch: int
    ) -> None:
        super().__init__(test, test, validation, 1, eval_batch_size or batch_size)
        self._train, self.batch_size, self.steps_per_epoch = train, batch_size, steps_per_epoch
        self.num_train = batch_size * steps_per_epoch
        _position_of(iter(train))

    def train_batches(
        self, start_step: int, shard: Shard, position: Any = None, positions: dict[int, Any] | None = None
    ) -> Iterator[Arrays]:
        """See `Data`."""
        examples = iter(self._train)
        if start_step and position is None:
            raise UsageError(
                f"the checkpoint of step {start_step} has no position of the training data, which is a stream. The run was trained "
                "with other data. Choose another --workdir."
            )
        if position is not None:
            try:
                examples.set_state(position)
            except Exception as error:  # The position comes from a file, and any iterator may read it.
                raise UsageError(
                    f"the training data cannot resume from the position {position!r} of step {start_step}: {one_line(error)}. The run "
                    "was trained with other data, or its files were changed."
                ) from error
        step = start_step
        while True:
            batch = []
            for place in range(self.batch_size):
                try:
                    batch.append(next(examples))
                except StopIteration:
                    raise UsageError(
                        f"the training data ended after {step} batches and {place} examples. A stream must not end: add .repeat() to "
                        "the grain.IterDataset."
                    ) from None
            step += 1
            if positions is not None:
                positions[step] = _position_of(examples)
            yield _stacked([batch[place] for place in shard.places(len(batch))], "train")


def _length(name: str, split: Any) -> int:
    """The number of examples of a ``grain.MapDataset``."""
    import grain

    if not isinstance(split, grain.MapDataset):
        kinds = "a grain.MapDataset or a grain.IterDataset" if name == "train" else "a grain.MapDataset"
        raise UsageError(
            f"from_grain: {name} is a {type(split).__name__}, which cannot resume at a step. It must be {kinds}. For arrays in "
            "memory use ArrayData."
        )
    length = len(split)
    if length == 0:
        hint = "Leave it out if there is no validation data." if name == "validation" else "Give at least one example."
        raise UsageError(f"from_grain: {name} has no example. {hint}")
    if length > _MOST:
        raise UsageError(
            f"from_grain: {name} is repeated for ever. Leave .repeat() out: an epoch has every example once."
        )
    return length


def _position_of(examples: Any) -> Any:
    """The state of an iterator, as JSON holds it."""
    try:
        return documents.from_json(json.dumps(examples.get_state()))
    except Exception as error:  # An iterator of the user's own may raise anything.
        raise UsageError(
            f"from_grain: the training data cannot resume, because the state of its iterator is nothing that JSON holds: "
            f"{one_line(error)}. Use a grain.MapDataset, or an IterDataset with a get_state() that returns numbers and text."
        ) from error


def _stacked(examples: Sequence[Any], name: str) -> Arrays:
    """The arrays of a batch from its examples."""
    first = examples[0]
    if not isinstance(first, tuple | list) or not all(isinstance(example, tuple | list) for example in examples):
        wrong = next(example for example in examples if not isinstance(example, tuple | list))
        hint = (
            "Filter before the data set gets its index, or use a grain.IterDataset."
            if wrong is None
            else "Add a .map() that returns a tuple, as lambda example: (example['image'], example['label'])."
        )
        raise UsageError(
            f"from_grain: an element of {name} is {'None' if wrong is None else 'a ' + type(wrong).__name__}. It must be one "
            f"example, a tuple of arrays: the inputs of the network, and last the targets. {hint}"
        )
    try:
        arrays = tuple(np.stack(column) for column in zip(*examples, strict=True))
    except ValueError as error:
        raise UsageError(
            f"from_grain: the examples of {name} do not form a batch: {one_line(error)}. All examples have the same arrays, of the "
            "same shapes."
        ) from error
    return arrays
