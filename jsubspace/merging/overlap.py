"""Validation examples that are training examples: a choice by such examples prefers networks that memorise."""

import warnings

import jax
import numpy as np

from jsubspace import arguments
from jsubspace.evaluation.batches import Batches, ScoredBatch


def warn_of_overlap(validation: list[ScoredBatch], training_batches: Batches | None, caller: str) -> None:
    """Warns if validation examples are also training examples. They are compared by the bytes of their first array.

    Both are compared in the dtype that jax computes in, so float64 and float32 are alike unless float64 is switched on. An example
    that was augmented or scaled has other bytes and is not noticed.

    Args:
      validation: the batches of `losses.held`.
      training_batches: tuples of arrays, or None to compare nothing. Each batch is read once.
      caller: the function that the warning names.

    Warns:
      UserWarning: with the number of such examples.
    """
    if training_batches is None:
        return
    arguments.check_batches(f"{caller}: training_batches", training_batches)
    ours = [row for batch in validation for row in _rows(np.asarray(batch.inputs[0])[batch.mask])]
    known = set(ours)
    found: set[int] = set()
    for batch in training_batches:
        found |= known.intersection(_rows(np.asarray(batch[0])))
    count = sum(row in found for row in ours)
    if count:
        warnings.warn(
            f"{caller}: {count} of {len(ours)} validation examples are training examples. The networks know these examples, so the "
            "weights and the gain say little about new data. Choose weights on examples that no network was trained on.",
            stacklevel=4,
        )


def _rows(array: np.ndarray) -> list[int]:
    """A hash of every example's shape, dtype and bytes. Two different rows agree with a probability of 2^-64."""
    if array.dtype.kind in "iufc":
        with np.errstate(over="ignore"):
            array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
    kind = f"{array.dtype}{array.shape[1:]}"
    return [hash((kind, row.tobytes())) for row in np.ascontiguousarray(array)]
