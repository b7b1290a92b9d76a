"""Validation examples: images of the training split that no run trains on, the same for every method and seed."""

import numpy as np

from jsubspace.errors import UsageError

SPLIT_SEED = 1
"""The seed of the permutation. It is not the run's seed: all runs with the same data settings have one split."""


def split(num_examples: int, num_train: int, num_validation: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the training split that are trained on, and the rows for validation: int32, each in order.

    Without validation, training has the first ``num_train`` rows. Validation examples are the first rows of a fixed
    permutation, so a smaller number of them is a part of a larger number. Rows that training does not use are taken first.
    If they are too few, or if there are no such rows, the others are taken from the training rows.

    Args:
      num_examples: the size of the training split.
      num_train: the number of rows that training uses, the first ones, or 0 for all.
      num_validation: the number of rows for validation.

    Raises:
      UsageError: if no row would be left to train on, or the split has fewer than ``num_train`` rows.

    Example:
      >>> train, validation = split(10, 0, 3)
      >>> len(train), len(validation), sorted({*train.tolist(), *validation.tolist()}) == list(range(10))
      (7, 3, True)
      >>> split(10, 6, 3)[0].tolist()
      [0, 1, 2, 3, 4, 5]
    """
    if num_train > num_examples:
        raise UsageError(f"num_train={num_train} was asked for but there are {num_examples} examples.")
    if num_validation >= num_examples:
        raise UsageError(
            f"num_validation={num_validation} was asked for but the training split has {num_examples} examples. At least "
            "one must be left to train on."
        )
    used = num_train or num_examples
    order = np.random.default_rng(SPLIT_SEED).permutation(num_examples).astype(np.int32)
    order = np.concatenate([order[order >= used], order[order < used]])
    validation = np.sort(order[:num_validation])
    return np.setdiff1d(np.arange(used, dtype=np.int32), validation), validation
