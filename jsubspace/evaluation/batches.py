"""Batches of examples that are scored: checked, padded to one size, and masked."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jsubspace import host_arrays
from jsubspace.evaluation.tasks.task import Task

Batches = Iterable[Sequence[Any]]
"""Tuples of arrays that share their leading axis, the examples."""


class ScoredBatch(NamedTuple):
    """A batch of examples that are scored.

    Attributes:
      inputs: arrays ``[n, ...]``, what the network takes.
      targets: arrays ``[n, ...]``, what the outputs are compared with.
      mask: bool ``[n]``; False for padding, which is dropped on the host.
    """

    inputs: tuple[Any, ...]
    targets: tuple[Any, ...]
    mask: Any


def padded(batches: Batches, task: Task, multiple: int = 1) -> Iterator[ScoredBatch]:
    """User's batches as `ScoredBatch`, all of the first one's size, so that one program serves them all.

    Args:
      batches: tuples of arrays ``[n, ...]``. The last arrays are the task's targets.
      task: what the targets must be.
      multiple: the size is a multiple of this number of devices, so that every example is on one device.

    Raises:
      ValueError: if a batch is no tuple of inputs and targets, the leading axes differ, the targets do not fit the task, a
        batch is empty or larger than the first, or jax would change an integer.
    """
    size = 0
    for number, batch in enumerate(batches):
        _check_length(batch, number, task)
        arrays, number_of_inputs = arrays_of(batch, number), len(batch) - len(task.target_names)
        n = _num_examples(arrays, number)
        size = size or n + -n % multiple
        if n > size:
            raise ValueError(
                f"batch {number} has {n} examples, more than the first with {size}. The first batch sets the size, and the others "
                "may be smaller."
            )
        inputs, targets = arrays[:number_of_inputs], arrays[number_of_inputs:]
        task.check_targets(number, *targets)
        for array in arrays:
            host_arrays.check_numbers(f"an array of batch {number}", array)
        inputs, targets = (tuple(_extended(array, size) for array in arrays) for arrays in (inputs, targets))
        yield ScoredBatch(inputs, targets, np.arange(size) < n)


def arrays_of(batch: Sequence[Any], number: int) -> tuple[Any, ...]:
    """The members of a batch, nested lists too, as arrays of jax or numpy. ``number`` is that of the batch, for a message."""
    return tuple(host_arrays.array(f"a member of batch {number}", member) for member in batch)


def _check_length(batch: Any, number: int, task: Task) -> None:
    if not isinstance(batch, tuple | list) or len(batch) < 1 + len(task.target_names):
        names = " and the ".join(task.target_names)
        expected = f"the network's inputs and, last, the {names}" if names else "arrays, which the function gets"
        example = ", ".join(("x", *("y" if name == task.target_names[0] else name for name in task.target_names)))
        found = type(batch).__name__ + (f" of length {len(batch)}" if isinstance(batch, tuple | list) else "")
        raise ValueError(
            f"batch {number} is a {found}. A batch is a tuple of {expected}. A single batch is a list of one tuple: "
            f"[({example}{'' if names else ','})]."
        )


def _num_examples(arrays: tuple[Any, ...], number: int) -> int:
    shapes = [array.shape for array in arrays]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        raise ValueError(
            f"the arrays of batch {number} have the shapes {', '.join(str(list(shape)) for shape in shapes)}. Their leading "
            "axis must be the same number of examples, at least 1."
        )
    return int(shapes[0][0])


def _extended(array: Any, size: int) -> Any:
    """``[n, ...]`` with its last example repeated up to ``size``."""
    missing = size - np.shape(array)[0]
    if not missing:
        return array
    return jnp.concatenate([array, jnp.repeat(jnp.asarray(array)[-1:], missing, axis=0)])
