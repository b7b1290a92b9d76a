"""What evaluation asks of the devices that it runs on, and the answer of a single `jax.jit`."""

import collections
import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

RUN_AHEAD = 8
"""Steps, or batches, that may be under way at once.

To wait for the result of eight steps ago costs nothing, since it is ready by then. The limit bounds the memory of batches in
flight. jax before 0.12 deadlocks on several CPU devices when some twenty steps are under way.
"""


class Place(enum.Enum):
    """How an argument lies on the devices, for `Devices.compile`."""

    SAME = "the same on every device"
    SPLIT = "every device has its part of a batch"


SAME, SPLIT = Place.SAME, Place.SPLIT


class Devices(Protocol):
    """Runs functions that are written for one device."""

    @property
    def axis_name(self) -> str | None:
        """The name of the device axis, for the collectives of a function, or None if a function sees all of a batch."""

    @property
    def count(self) -> int:
        """The number of devices on that axis."""

    def compile(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
        """``function`` over all devices. ``arguments`` has `SAME` or `SPLIT` for each argument."""

    def sum_over(self, function: Callable[[Any], Any], batches: Iterable[Any], whole: bool = False) -> Any:
        """The sum of ``function(batch)`` over host batches. With ``whole`` every device gets the whole batch."""

    def map_over(self, function: Callable[[Any], Any], batches: Iterable[Any], whole: bool = False) -> Iterator[Any]:
        """``function(batch)`` for every host batch, on the host. ``whole`` as in `sum_over`."""

    def run_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)``, compiled for a single call."""

    def put(self, tree: Any) -> Any:
        """Arrays where `compile` takes them."""


class OneProgram:
    """The default: one `jax.jit`, which runs where its arrays are and follows their shardings."""

    axis_name = None
    count = 1

    def compile(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
        """``function``, jitted."""
        del arguments  # One program sees all of every argument.
        return jax.jit(function)

    def sum_over(self, function: Callable[[Any], Any], batches: Iterable[Any], whole: bool = False) -> Any:
        """The sum of ``function(batch)`` over batches, added up where the results are."""
        return summed(map(function, batches))

    def map_over(self, function: Callable[[Any], Any], batches: Iterable[Any], whole: bool = False) -> Iterator[Any]:
        """``function(batch)`` for every batch, on the host, with `RUN_AHEAD` of them under way."""
        return drained(map(function, batches))

    def run_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)``, jitted."""
        return jax.jit(function)(*args)

    def put(self, tree: Any) -> Any:
        """The arrays as they are."""
        return tree


def summed(results: Iterable[Any]) -> Any:
    """The sum of results on the devices, or None without a result. At most `RUN_AHEAD` of them are under way."""
    total = None
    for i, result in enumerate(results):
        total = result if total is None else _add(total, result)
        if i % RUN_AHEAD == 0:
            jax.block_until_ready(total)
    return total


def drained(results: Iterable[Any]) -> Iterator[Any]:
    """Results on the host, in order. `RUN_AHEAD` of them are under way before the first is waited for."""
    under_way: collections.deque[Any] = collections.deque()
    for result in results:
        under_way.append(result)
        if len(under_way) > RUN_AHEAD:
            yield jax.device_get(under_way.popleft())
    while under_way:
        yield jax.device_get(under_way.popleft())


@jax.jit
def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)
