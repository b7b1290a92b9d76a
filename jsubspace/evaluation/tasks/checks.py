"""Checks that tasks share, and words for their messages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LONGEST_NAME = 40
TAKEN_NAMES = frozenset({
    "name", "names", "kind", "roles", "alpha", "weights", "members", "networks", "scores", "intervals", "differences",
    "mean_probability", "mean_logit", "to_json", "epoch", "step", "tested_on",
})  # fmt: skip
"""Names of a row's other fields."""


def check_integers(number: int, labels: Any, ndim: int, expected: str) -> None:
    """Raises ValueError unless the labels of batch ``number`` are integers with ``ndim`` axes. ``expected`` ends the message."""
    if np.ndim(labels) != ndim or not jnp.issubdtype(dtype_of(labels), jnp.integer):
        raise ValueError(f"the last array of batch {number} is {dtype_of(labels)}{list(np.shape(labels))}. {expected}")


def check_below(number: int, labels: np.ndarray, size: int, kind: str) -> None:
    """Raises ValueError if a label of batch ``number`` is not below the number of logits. ``kind`` says what the logits are of."""
    if labels.size and int(labels.max()) >= size:
        raise ValueError(
            f"a label of batch {number} is {int(labels.max())}, but the logits are of {size} {kind}. The labels must be integers from 0 to "
            f"{size - 1}."
        )


def dtype_of(array: Any) -> Any:
    """The dtype of an array on the host or on a device, also of text and objects."""
    return getattr(array, "dtype", None) or np.asarray(array).dtype


def is_name(score: Any) -> bool:
    """Whether a score may have this name in a row.

    Example:
      >>> is_name("rmse"), is_name("alpha"), is_name("a b")
      (True, False, False)
    """
    is_short = isinstance(score, str) and len(score) <= LONGEST_NAME and score.isascii()
    return is_short and score.isidentifier() and not score.startswith("_") and score not in TAKEN_NAMES


def in_words(outputs: Any) -> str:
    """What a user's function returned, for a message.

    Example:
      >>> in_words((jnp.zeros(3), {"scale": jnp.zeros((3, 2))}))
      "(float32[3], {'scale': float32[3, 2]})"
    """
    found = jax.tree.map(lambda leaf: _Words(f"{dtype_of(leaf)}{list(np.shape(leaf))}"), outputs)
    return str(found)


class _Words(str):
    """Text that prints without quotes inside of a container."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
