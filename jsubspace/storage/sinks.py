"""Other places for the numbers of a run: a user's objects, beside metrics.jsonl and TensorBoard."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jsubspace.errors import UsageError, one_line

log = logging.getLogger(__name__)


@runtime_checkable
class Sink(Protocol):
    """What a sink provides. Its methods are called by the first host alone, and between two steps: they should return soon."""

    def log_scalar(self, name: str, value: float, step: int) -> None:
        """Takes one number, with a name like ``"train/loss"``."""

    def close(self) -> None:
        """Is called once, when training ends in whatever way."""


class Sinks:
    """Passes rows to sinks, and closes them at the end.

    A sink that raises an exception gets nothing more. The log names the sink and the exception once, and the run goes on.

    Args:
      given: the sinks.
    """

    def __init__(self, given: Sequence[Sink]) -> None:
        self._open = list(given)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Passes every number of a row on, under the name ``kind/name``."""
        for sink in self._open:
            try:
                for name, value in values.items():
                    sink.log_scalar(f"{kind}/{name}", float(value), step)
            except Exception as error:  # The sink is the user's, and may raise anything.
                self._open = [other for other in self._open if other is not sink]
                _failed(sink, f"at step {step}", error)
                _close(sink)

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(self, *exception: object) -> None:
        for sink in self._open:
            if error := _close(sink):
                _failed(sink, "when it was closed", error)


def checked_sinks(given: Any) -> tuple[Sink, ...]:
    """The sinks as a tuple.

    Raises:
      UsageError: if one of them lacks a method.
    """
    sinks = tuple(given) if isinstance(given, list | tuple) else (given,)
    for sink in sinks:
        if isinstance(sink, type) or not isinstance(sink, Sink):
            raise UsageError(
                f"sinks has an element of type {type(sink).__name__}. A sink is an object with the methods log_scalar(name, value, step) "
                "and close()."
            )
    return sinks


def _close(sink: Sink) -> Exception | None:
    try:
        sink.close()
    except Exception as error:
        return error
    return None


def _failed(sink: Sink, when: str, error: Exception) -> None:
    name = type(sink).__name__
    log.warning(
        "the sink %s failed %s and gets no more numbers: %s. metrics.jsonl has them.", name, when, one_line(error)
    )
