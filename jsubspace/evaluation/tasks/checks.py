"""Checks that tasks share, and words for their messages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_integers(number: int, labels: Any, ndim: int, expected: str) -> None:
    """Raises ValueError unless the labels of batch ``number`` are integers with ``ndim`` axes. ``expected`` ends the message."""
    if np.ndim(labels) != ndim or not jnp.issubdtype(dtype_of(labels), jnp.integer):
        raise ValueError(f"the last array of batch {number} is {dtype_of(labels)}{list(np.shape(labels))}. {expected}")


def dtype_of(array: Any) -> Any:
    """The dtype of an array on the host or on a device, also of text and objects."""
    return getattr(array, "dtype", None) or np.asarray(array).dtype


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
