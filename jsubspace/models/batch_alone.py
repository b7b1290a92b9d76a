"""The statistics of one batch, from BatchNorm layers that only keep running averages."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def statistics(updated: Callable[[Any], Any], shapes: Any, momentum: float | None = None) -> Any:
    """The statistics of one batch, from a function ``old statistics -> new statistics``.

    The update is ``new = momentum * old + (1 - momentum) * batch``. The first update of 0 is first = (1 - momentum) batch, and the
    update of first is second = (1 + momentum) first. So ``batch = first / (2 - second / first)``, entry by entry. Both updates
    have the size of the batch's statistics, and no large number hides the momentum. A statistic that the update never changes, as with
    a momentum of 1, is NaN. An update of 1 distinguishes it from a batch's statistic of 0.

    Args:
      updated: the update. It reads the old statistics for nothing else.
      shapes: the statistics' shapes and dtypes.
      momentum: the momentum of all leaves, if it is known.

    Raises:
      ValueError: if the update returns an old leaf itself.

    Example:
      >>> like = jax.ShapeDtypeStruct((), jnp.float32)
      >>> round(float(statistics(lambda old: 0.75 * old + 0.25 * 8.0, like)), 5)
      8.0
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    first = updated(zeros)
    jax.tree_util.tree_map_with_path(_check_updated, zeros, first)
    if momentum is not None:
        return jax.tree.map(lambda leaf: leaf / (1 - momentum), first)
    from_one = updated(jax.tree.map(jnp.ones_like, zeros))
    return jax.tree.map(_of_batch, first, updated(first), from_one)


def _check_updated(path: tuple[Any, ...], old: jax.Array, new: jax.Array) -> None:
    if new is old:
        raise ValueError(
            f"the network does not update its statistics {jax.tree_util.keystr(path)}, so they do not depend on the batch. A subspace has "
            "no running averages: let BatchNorm use the statistics of the batch in training (use_running_average=False), or "
            "replace a frozen layer by its scale and bias."
        )


def _of_batch(first: jax.Array, second: jax.Array, from_one: jax.Array) -> jax.Array:
    if not jnp.issubdtype(first.dtype, jnp.inexact):
        return first  # A counter of batches has no momentum.
    smallest = jnp.finfo(first.dtype).tiny / jnp.finfo(first.dtype).eps  # Smaller entries have lost digits.
    is_known = jnp.abs(first) > smallest
    ratio = second / jnp.where(is_known, first, 1)
    of_batch = jnp.where(is_known, first / jnp.where(is_known, 2 - ratio, 1), 0)
    return jnp.where((first == 0) & (from_one == 1), jnp.nan, of_batch)
