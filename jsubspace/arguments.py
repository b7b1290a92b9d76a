"""Checks of the plain Python arguments that several functions take, with one message for each mistake."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def integer(name: str, value: Any) -> int:
    """``value`` as an int.

    Raises:
      ValueError: if it is neither an int nor a numpy integer. A bool and a float are refused, whatever their value.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} is {value!r}, but it must be an integer.")
    return int(value)


def truth(name: str, value: Any) -> bool:
    """``value`` as a bool.

    Raises:
      ValueError: if it is neither a bool nor a numpy bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}, but it must be True or False.")
    return bool(value)


def strength(name: str, value: Any, meaning: str) -> Any:
    """A number of at least 0, as a float. A traced scalar cannot be checked and is returned as it is.

    Raises:
      ValueError: if it is no number, if it is negative, or if it is not finite. ``meaning`` says in the message what must
        be finite.
    """
    is_traced = isinstance(value, jax.core.Tracer)
    is_number = isinstance(value, int | float) or (
        isinstance(value, np.generic | np.ndarray | jax.Array)
        and value.shape == ()
        and (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer))
    )
    if is_number and (is_traced or 0 <= float(value) < float("inf")):
        return value if is_traced else float(value)
    shown = f"an array of shape {list(value.shape)} and dtype {value.dtype}" if is_traced else str(value)
    hint = f" If it changes from step to step, pass its value, as in {name}=schedule(step)." if callable(value) else ""
    raise ValueError(f"{name} is {shown}, but {meaning} is finite and at least 0. The value 0 switches it off.{hint}")


def row(name: str, value: Any, m: int) -> Any:
    """The row of one of m endpoints, as an int. A traced row cannot be checked and is returned as it is.

    Raises:
      ValueError: if it is no integer, or if there is no such endpoint. Negative rows do not exist.
    """
    dtype, shape = jnp.result_type(value), np.shape(value)
    if not jnp.issubdtype(dtype, jnp.integer) or shape != ():
        raise ValueError(f"{name} is {value!r}, but the row of an endpoint must be one integer.")
    if isinstance(value, jax.core.Tracer):
        return value
    number = int(value)
    if not 0 <= number < m:
        raise ValueError(f"there is no endpoint {number}. The {m} endpoints are 0 to {m - 1}.")
    return number


def different_rows(name: str, values: Sequence[Any], m: int) -> tuple[Any, ...]:
    """`row` of each value.

    Raises:
      ValueError: if a value is no row, or if an endpoint is named twice.
    """
    if np.ndim(values) == 0 if hasattr(values, "ndim") else not isinstance(values, Sequence):
        raise ValueError(f"{name} is {values!r}, but it must hold the rows of two or more endpoints, as in (0, 1).")
    rows = tuple(row(name, value, m) for value in values)
    known = [value for value in rows if isinstance(value, int)]
    if len(set(known)) < len(known):
        raise ValueError(
            f"{name} is {rows}. The same endpoint stands in it twice, and no endpoint has a pair with itself."
        )
    return rows


def words(text: str) -> tuple[str, ...]:
    """The words of a text that lists words with commas between. An empty text lists none.

    Raises:
      ValueError: if there is nothing before, between or behind the commas. A shell leaves such a gap for a variable that is
        not set.

    Example:
      >>> words("snow, fog_3"), words(" ")
      (('snow', 'fog_3'), ())
    """
    if not text.strip():
        return ()
    found = tuple(word.strip() for word in text.split(","))
    if not all(found):
        raise ValueError(f"{text!r} has an empty word. Write words with single commas between, or nothing at all.")
    return found
