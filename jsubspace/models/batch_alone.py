"""The statistics of one batch, from BatchNorm layers that only keep running averages."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def statistics(updated: Callable[[Any], Any], shapes: Any, momentum: float | None = None) -> Any:
    """The statistics of one batch, from a function ``old statistics -> new statistics``.

    The update is ``new = momentum * old + (1 - momentum) * batch``. From old statistics of 0 and of 1 follow the momentum and
    the statistics of the batch, leaf by leaf.

    Args:
      updated: the update. It reads the old statistics for nothing else.
      shapes: the statistics' shapes and dtypes.
      momentum: the momentum of all leaves, if it is known.

    Example:
      >>> like = jax.ShapeDtypeStruct((), jnp.float32)
      >>> round(float(statistics(lambda old: 0.75 * old + 0.25 * 8.0, like)), 5)
      8.0
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    from_zero = updated(zeros)
    if momentum is not None:
        return jax.tree.map(lambda leaf: leaf / (1 - momentum), from_zero)
    from_one = updated(jax.tree.map(jnp.ones_like, zeros))
    return jax.tree.map(lambda zero, one: zero / (1 - (one - zero)), from_zero, from_one)
