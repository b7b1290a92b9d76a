"""What evaluation asks of a network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jsubspace.types import Params


def _as_it_is(*batch: Any) -> tuple[Any, ...]:
    return batch


class Network(NamedTuple):
    """A network as functions of one point's parameters. All of them run inside a compiled program.

    Attributes:
      predict: ``(point, stats, *inputs) -> (outputs, features)`` in evaluation mode. ``stats`` are the point's statistics
        or None, and features may be None.
      stats: ``(point, *inputs) -> statistics`` of one training batch in train mode, or None for a network without BatchNorm.
      prepare: ``(*inputs) -> inputs`` of a test batch, called once per batch and not once per point.
      augment: ``(*batch) -> inputs`` of a training batch, called once per batch and not once per point.
    """

    predict: Callable[..., tuple[jax.Array, jax.Array | None]]
    stats: Callable[..., Any] | None = None
    prepare: Callable[..., tuple[Any, ...]] = _as_it_is
    augment: Callable[..., tuple[Any, ...]] = _as_it_is


def from_functions(predict_fn: Callable[..., Any], stats_fn: Callable[..., Any] | None = None) -> Network:
    """A `Network` from a user's functions.

    Args:
      predict_fn: ``(point, *inputs) -> outputs``, or ``-> (outputs, features)``. With stats_fn it also takes the keyword
        ``stats``.
      stats_fn: ``(point, *batch) -> statistics`` of one training batch (`jsubspace.reestimate_batch_stats`).
    """

    def predict(point: Params, stats: Any, *inputs: Any) -> tuple[jax.Array, jax.Array | None]:
        outputs = predict_fn(point, *inputs) if stats_fn is None else predict_fn(point, *inputs, stats=stats)
        return _logits_and_features(outputs)

    return Network(predict, stats_fn)


def _logits_and_features(outputs: Any) -> tuple[jax.Array, jax.Array | None]:
    """Logits ``[n, k]``, float32 or wider, and features ``[n, f]`` or None, from what a user's function returns.

    Raises:
      ValueError: for anything else.
    """
    pair = outputs if type(outputs) is tuple and len(outputs) == 2 else (outputs, None)
    logits, features = pair
    is_right = getattr(logits, "ndim", 0) == 2 and logits.shape[1] >= 2
    if not is_right or (features is not None and getattr(features, "ndim", 0) != 2):
        shapes = jax.tree.map(jnp.shape, outputs)
        raise ValueError(
            f"predict_fn returned arrays of the shapes {shapes}. It must return logits [n, k] of at least two classes, or a "
            "tuple (logits, features [n, f])."
        )
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), features
