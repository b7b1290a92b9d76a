"""Batches of examples that are scored: checked, padded to one size, and masked."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Batches = Iterable[Sequence[Any]]
"""Tuples of arrays that share their leading axis, the examples."""


class ScoredBatch(NamedTuple):
    """A batch of examples that are scored.

    Attributes:
      inputs: arrays ``[n, ...]``, what the network takes.
      labels: ``[n]``.
      mask: bool ``[n]``; False for padding, which is dropped on the host.
    """

    inputs: tuple[Any, ...]
    labels: Any
    mask: Any


def padded(batches: Batches, multiple: int = 1) -> Iterator[ScoredBatch]:
    """User's batches as `ScoredBatch`, all of the first one's size, so that one program serves them all.

    Args:
      batches: tuples of arrays ``[n, ...]``. The last array holds integer labels ``[n]``.
      multiple: the size is a multiple of this number of devices, so that every example is on one device.

    Raises:
      ValueError: if a batch is no tuple of inputs and labels, the leading axes differ, the labels are not integers of at
        least 0, or a batch is empty or larger than the first.
    """
    size = 0
    for number, batch in enumerate(batches):
        n = _num_examples(batch, number)
        size = size or n + -n % multiple
        if n > size:
            raise ValueError(
                f"batch {number} has {n} examples, more than the first with {size}. Only the last batch may differ, and it "
                "may be smaller."
            )
        *inputs, labels = (_extended(array, size) for array in (*batch[:-1], _array(batch[-1])))
        yield ScoredBatch(tuple(inputs), labels, np.arange(size) < n)


def _num_examples(batch: Any, number: int) -> int:
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ValueError(
            f"batch {number} is a {type(batch).__name__}. A batch is a tuple of the network's inputs and, last, the labels. A "
            "single batch is a list of one tuple: [(x, y)]."
        )
    shapes = [np.shape(array) for array in batch]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        raise ValueError(
            f"the arrays of batch {number} have the shapes {', '.join(str(list(shape)) for shape in shapes)}. Their leading "
            "axis must be the same number of examples, at least 1."
        )
    labels = _array(batch[-1])
    if len(shapes[-1]) != 1 or not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(
            f"the last array of batch {number} is {jnp.result_type(labels)}{list(shapes[-1])}. It must hold the labels, one "
            "integer per example."
        )
    if int(np.min(labels)) < 0:
        raise ValueError(
            f"a label of batch {number} is {int(np.min(labels))}. Labels are classes, and the first class is 0."
        )
    return shapes[-1][0]


def _array(labels: Any) -> Any:
    return np.asarray(labels) if isinstance(labels, list | tuple) else labels


def _extended(array: Any, size: int) -> Any:
    """``[n, ...]`` with its last example repeated up to ``size``."""
    missing = size - np.shape(array)[0]
    if not missing:
        return array
    return jnp.concatenate([array, jnp.repeat(jnp.asarray(array)[-1:], missing, axis=0)])
