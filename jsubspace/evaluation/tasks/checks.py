"""Checks that tasks share, and words for their messages."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, tree

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


def number(name: str, value: Any, is_right: Callable[[Any], bool], expected: str) -> float:
    """An option of a task as a float.

    Args:
      name: of the option, for a message.
      value: a number of Python, numpy or jax.
      is_right: whether the option may be this number. It is False for NaN.
      expected: what the option must be, for a message.

    Raises:
      ValueError: if it is no real number, or not a right one. A bool is no number.
    """
    is_number = not isinstance(value, list | tuple | jax.core.Tracer) and arguments.are_real_numbers(value)
    if not is_number or np.shape(value) != () or not is_right(value):
        raise ValueError(f"{name} is {arguments.described(value)}. It must be {expected}.")
    return float(value)


def tolerance(value: Any) -> float:
    """The option ``tolerance`` of a task as a float.

    Raises:
      ValueError: if it is no finite number of at least 0.
    """
    expected = "a finite number of at least 0: how much worse the main score may be along a connector than at its ends"
    return number("tolerance", value, lambda given: 0 <= given < math.inf, expected)


def check_real(outputs: Any, function: str, what: str) -> None:
    """Raises ValueError if an array of the outputs is complex or bool. A cast would lose the imaginary part without a word.

    Args:
      outputs: arrays that the user's function returned.
      function: what the function is called, for a message.
      what: what its outputs are, for a message.
    """
    if not all(map(arguments.are_real_numbers, jax.tree.leaves(outputs))):
        raise ValueError(
            f"{function} returned {in_words(outputs)}, but {what} are real numbers. Return jnp.real(...), jnp.abs(...) or "
            ".astype(jnp.float32) of them, whichever the network means."
        )


def wide(numbers: jax.Array) -> jax.Array:
    """Real numbers in float32 or wider. Integers become float32."""
    is_float = jnp.issubdtype(numbers.dtype, jnp.floating)
    return numbers.astype(tree.accumulator(numbers.dtype) if is_float else jnp.float32)


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
