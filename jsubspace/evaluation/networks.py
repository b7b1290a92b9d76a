"""What evaluation asks of a network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jsubspace.types import Params


def _as_it_is(*batch: Any) -> tuple[Any, ...]:
    return batch


class Passes(NamedTuple):
    """The passes through a network that evaluation makes, with what the data needs before them.

    All of them run inside of a compiled program.

    Attributes:
      predict: ``(point, stats, *inputs) -> outputs`` in evaluation mode, what the task takes (`tasks.task.Task.reduce`). ``stats``
        are the point's statistics or None.
      stats: ``(point, *inputs) -> statistics`` of one training batch in train mode, or None for a network without BatchNorm.
      prepare: ``(*inputs) -> inputs`` of a test batch, called once per batch and not once per point.
      augment: ``(*batch) -> inputs`` of a training batch, called once per batch and not once per point.
    """

    predict: Callable[..., Any]
    stats: Callable[..., Any] | None = None
    prepare: Callable[..., tuple[Any, ...]] = _as_it_is
    augment: Callable[..., tuple[Any, ...]] = _as_it_is


def from_functions(predict_fn: Callable[..., Any], stats_fn: Callable[..., Any] | None = None) -> Passes:
    """The passes from a user's functions.

    Args:
      predict_fn: ``(point, *inputs) -> outputs``. With stats_fn it also takes the keyword ``stats``.
      stats_fn: ``(point, *batch) -> statistics`` of one training batch (`jsubspace.reestimate_batch_stats`).
    """

    def predict(point: Params, stats: Any, *inputs: Any) -> Any:
        return predict_fn(point, *inputs) if stats_fn is None else predict_fn(point, *inputs, stats=stats)

    return Passes(predict, stats_fn)
