"""BatchNorm statistics of a point.

Running statistics are not parameters. They belong to one network, not to an endpoint, and cannot be interpolated. Every
point that is evaluated gets its own statistics, from a pass over training data in train mode. Stochastic Weight Averaging
does the same, and the paper follows it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace.types import Params

BatchStats = Any


def reestimate_batch_stats(
    stats_fn: Callable[..., BatchStats], point: Params, batches: Iterable[tuple[Any, ...]]
) -> BatchStats:
    """The plain average over batches of each batch's own statistics, for the network ``point``.

    Args:
      stats_fn: ``(point, *batch) -> statistics of that batch``, a pytree of means and variances. In Flax, it is a
        forward pass in train mode with BatchNorm momentum 0: its running statistics are the statistics of the last
        batch. See the example.
      point: one network, leaves ``[*s]``.
      batches: tuples of arrays, at least one. They are all of the training set, augmented as in training.

    Returns:
      A pytree as ``stats_fn`` returns it.

    Raises:
      ValueError: if there is no batch.

    Example:
      >>> import flax.linen as nn
      >>> norm = nn.BatchNorm(use_running_average=False, momentum=0.0)
      >>> def stats_fn(point, x):
      ...   return norm.apply({"params": point}, x, mutable=["batch_stats"])[1]["batch_stats"]
      >>> point = norm.init(jax.random.key(0), jnp.ones((1, 2)))["params"]
      >>> batches = [(jnp.full((4, 2), 1.0),), (jnp.full((4, 2), 3.0),)]
      >>> reestimate_batch_stats(stats_fn, point, batches)["mean"].tolist()
      [2.0, 2.0]
    """
    stats_fn = jax.jit(stats_fn)
    total, count = None, 0
    for batch in batches:
        stats = stats_fn(point, *batch)
        total = stats if total is None else jax.tree.map(jnp.add, total, stats)
        count += 1
    if total is None:
        raise ValueError("reestimate_batch_stats: no batch was given. Statistics need at least one.")
    return jax.tree.map(lambda leaf: leaf / count, total)
