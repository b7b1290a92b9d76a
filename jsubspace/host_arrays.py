"""Arrays of a user that lie on the host, checked before jax reads them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def array(name: str, value: Any) -> Any:
    """An array of jax as it is, and anything else as an array of numpy.

    Args:
      name: what the value is, for a message.
      value: an array, nested lists, or what else numpy reads.

    Raises:
      ValueError: if numpy cannot read it, as lists of different lengths.

    Example:
      >>> array("x", [[1, 2], [3]])
      Traceback (most recent call last):
      ValueError: x is a list that is no array. Its lists must have equal lengths: pad examples of different lengths.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        is_list = isinstance(value, list | tuple)
        reason = (
            "Its lists must have equal lengths: pad examples of different lengths."
            if is_list
            else f"numpy says: {error}"
        )
        raise ValueError(f"{name} is a {type(value).__name__} that is no array. {reason}") from None


def check_numbers(name: str, value: Any) -> None:
    """Raises a ValueError if jax cannot hold the numbers of an array that `array` returned, as text or large integers.

    Example:
      >>> check_numbers("y", np.array([0, 2**32]))
      Traceback (most recent call last):
      ValueError: y holds the integer 4294967296, which jax would change: its int32 has integers from -2147483648 to \
2147483647. Renumber the integers, or set jax_enable_x64.
    """
    is_known = jnp.issubdtype(value.dtype, jnp.number) or jnp.issubdtype(value.dtype, jnp.bool_)
    if not is_known and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise ValueError(f"{name} is {value.dtype}{list(value.shape)}. Arrays hold numbers: turn text into integers.")
    held = jax.dtypes.canonicalize_dtype(value.dtype) if jnp.issubdtype(value.dtype, jnp.integer) else value.dtype
    if held == value.dtype or not value.size:
        return
    least, most = int(jnp.iinfo(held).min), int(jnp.iinfo(held).max)
    for found in (int(value.min()), int(value.max())):
        if not least <= found <= most:
            raise ValueError(
                f"{name} holds the integer {found}, which jax would change: its {held} has integers from {least} to {most}. "
                "Renumber the integers, or set jax_enable_x64."
            )
