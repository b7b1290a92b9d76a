"""BatchNorm statistics of a point.

Running statistics are not parameters. They belong to one network, not to an endpoint, and cannot be interpolated. Every
point that is evaluated gets its own statistics, from a pass over training data in train mode. Stochastic Weight Averaging
does the same, and the paper follows it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, tree
from jsubspace.types import Params

BatchStats = Any

_CALL = "reestimate_batch_stats(stats_fn, point, batches)"

_WEIGHTS = 'It must be "size", one number per batch, or None for equal weights.'

BY_SIZE = "size"
"""Weighs every batch by the number of its examples."""


def reestimate_batch_stats(
    stats_fn: Callable[..., BatchStats],
    point: Params,
    batches: Iterable[tuple[Any, ...]],
    weights: Iterable[float] | str | None = None,
) -> BatchStats:
    """The average over batches of each batch's own statistics, for the network ``point``.

    By default every batch counts alike, as in the authors' program and in ``torch.optim.swa_utils.update_bn``. A smaller
    last batch then counts as much as a whole batch. ``weights="size"`` weighs it by its examples, which is the better
    estimate.

    Args:
      stats_fn: ``(point, *batch) -> statistics of that batch``, a pytree of means and variances. In Flax, it is a
        forward pass in train mode with BatchNorm momentum 0: its running statistics are the statistics of the last
        batch. See the example.
      point: one network, leaves ``[*s]``.
      batches: tuples of arrays, at least one. They are all of the training set, augmented as in training. The examples
        are the leading axis of the first array.
      weights: None for equal weights, "size" for the numbers of examples, or one number per batch.

    Returns:
      A pytree as ``stats_fn`` returns it. The sums are taken in float32 or wider, whatever the dtype of the statistics.

    Raises:
      ValueError: if there is no batch, a batch is no tuple of arrays or is empty, or the weights do not fit. A batch of one
        example among larger batches is refused unless there are weights: its variance may be 0 and would count as much
        as the variance of a whole batch.

    Example:
      >>> import flax.linen as nn
      >>> norm = nn.BatchNorm(use_running_average=False, momentum=0.0)
      >>> def stats_fn(point, x):
      ...   return norm.apply({"params": point}, x, mutable=["batch_stats"])[1]["batch_stats"]
      >>> point = norm.init(jax.random.key(0), jnp.ones((1, 2)))["params"]
      >>> batches = [(jnp.full((4, 2), 1.0),), (jnp.full((2, 2), 4.0),)]
      >>> reestimate_batch_stats(stats_fn, point, batches)["mean"].tolist()
      [2.5, 2.5]
      >>> reestimate_batch_stats(stats_fn, point, batches, weights="size")["mean"].tolist()
      [2.0, 2.0]
    """
    arguments.function("stats_fn", stats_fn, "(point, *batch) -> statistics", _CALL)
    if point is None or jax.tree.leaves(point):  # A network of BatchNorm alone may have no parameters.
        arguments.check_arrays("point", point, "one network", _CALL)
    arguments.check_batches("batches", batches, _CALL)
    stats_fn = jax.jit(stats_fn)
    total, sum_of_weights, like = None, 0.0, None
    for batch, weight in weighed(batches, weights):
        stats = stats_fn(point, *batch)
        if stats is None:
            raise ValueError("stats_fn returned None, but it must return the statistics of a batch, a tree of arrays.")
        part = scaled(stats, weight)
        total, like = part if total is None else jax.tree.map(jnp.add, total, part), stats
        sum_of_weights += weight
    if total is None:
        raise ValueError("reestimate_batch_stats: no batch was given. Statistics need at least one.")
    if not sum_of_weights > 0:
        raise ValueError("reestimate_batch_stats: the weights of all batches are 0. Their sum must be more than 0.")
    return jax.tree.map(lambda leaf, one: _as(leaf / sum_of_weights, one), total, like)


def check_weights(weights: Any) -> None:
    """Raises a ValueError if the weights are neither None nor "size" nor numbers. The numbers of an iterator are checked later."""
    if isinstance(weights, list | tuple) or hasattr(weights, "dtype"):
        is_right = arguments.are_real_numbers(weights) and np.ndim(weights) == 1
    elif isinstance(weights, str):
        is_right = weights == BY_SIZE
    else:
        is_right = weights is None or (isinstance(weights, Iterable) and not isinstance(weights, Mapping))
    if not is_right:
        raise ValueError(f"weights is {arguments.described(weights)}. {_WEIGHTS}")


def weighed(
    batches: Iterable[Any], weights: Iterable[float] | str | None = None
) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Batches and their weights, checked as `reestimate_batch_stats` says."""
    check_weights(weights)
    given = None if weights is None or isinstance(weights, str) else iter(weights)
    first = 0
    for number, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or not batch:
            raise ValueError(
                f"batch {number} is a {type(batch).__name__} and not a tuple of arrays. Write (images,) for one array and "
                "(images, labels) for two."
            )
        leaves = jax.tree.leaves(batch)
        if not leaves:
            raise ValueError(f"batch {number} holds no array.")
        shape = np.shape(leaves[0])
        size = shape[0] if shape else 1
        first = first or size
        if size == 0:
            raise ValueError(f"batch {number} is empty: its first array has the shape {list(shape)}.")
        if weights is None and size == 1 < first:
            raise ValueError(
                f"batch {number} has one example and batch 0 has {first}. Its statistics would count as much as a whole "
                'batch. Leave it out, or weigh the batches by size (weights="size").'
            )
        weight = 1.0 if weights is None else float(size) if given is None else _number(next(given, np.nan))
        if not 0 <= weight < np.inf:
            raise ValueError(f"batch {number} has the weight {weight}. Give one finite number of at least 0 per batch.")
        yield tuple(batch), weight
    if given is not None and next(given, None) is not None:
        raise ValueError("there are more weights than batches. Give one number per batch.")


def _number(weight: Any) -> float:
    if not arguments.are_real_numbers(weight) or np.shape(weight) != ():
        raise ValueError(f"one of the weights is {arguments.described(weight)}. {_WEIGHTS}")
    return float(weight)


def scaled(stats: BatchStats, weight: float = 1.0) -> BatchStats:
    """Statistics times a weight, in float32 or wider: sums in bfloat16 stop growing at 256 times a summand.

    With the weight 0 they are 0, even if the batch holds a NaN.
    """

    def scaled_leaf(leaf: jax.Array) -> jax.Array:
        dtype = jnp.result_type(leaf)
        wide = tree.accumulator(dtype) if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)
        leaf = jnp.asarray(leaf, wide)
        return leaf if weight == 1 else leaf * weight if weight else jnp.zeros_like(leaf)

    return jax.tree.map(scaled_leaf, stats)


def _as(mean: jax.Array, one: jax.Array) -> jax.Array:
    """The mean in the dtype of one batch's statistics. The mean of integers stays a float."""
    dtype = jnp.result_type(one)
    return mean.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else mean
