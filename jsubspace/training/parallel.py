"""The only file that knows how a step for one device becomes a step for all devices.

A step is written for one device and names its collectives by `AXIS`. Parameters and optimizer state are the same on
every device and have no device axis, so that nobody replicates them by hand or reads them back by ``[0]``. Batches are
split along their leading axis.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jsubspace.evaluation.devices import SAME, SPLIT, Place, drained, summed
from jsubspace.shares import WHOLE, divided_axis

AXIS = "batch"
"""The name of the device axis in `jax.lax.pmean` and the like."""

PMAP, SHARD_MAP, JIT = "pmap", "shard_map", "jit"
WAYS = (PMAP, SHARD_MAP, JIT)
"""How a step for one device becomes a step for all devices.

`jax.pmap` is the default. `jax.shard_map` is what pmap consists of, and its results have the same bits. With plain `jax.jit`, a step
sees whole batches, and XLA divides the work. Sums then have another order.
"""


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """Runs a step on several devices, each on its part of the batch.

    Attributes:
      devices: the devices that run the step.
      pmaps: whether `jax.pmap` runs what it can, or `jax.shard_map` runs everything.
    """

    devices: tuple[jax.Device, ...]
    pmaps: bool = True
    axis_name: ClassVar[str | None] = AXIS

    @property
    def count(self) -> int:
        """The number of devices."""
        return len(self.devices)

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    def compile(
        self, function: Callable[..., Any], arguments: Sequence[Any], returns: Any = SAME, donate: tuple[int, ...] = ()
    ) -> Callable[..., Any]:
        """``function``, written for one device, over all devices.

        Args:
          function: takes positional arguments alone, and names its collectives by `AXIS`.
          arguments: one entry for each argument. `SAME`: the argument is the same on every device. `SPLIT`: it is a batch
            from `put_batches`, and each device gets its part. A tree of shardings from `shardings_of`: its leaves are
            divided, and each device gets its share.
          returns: `SAME` for a result that is the same on every device (reduced over `AXIS`), a tree of shardings for a
            result that is divided, or a tuple of these for a function that returns a tuple.
          donate: positions of the arguments whose memory the results may take.

        Returns:
          A function of the same positional arguments.
        """
        divided = any(place not in (SAME, SPLIT) for place in arguments)
        if self.pmaps and not divided and SPLIT in arguments and jax.process_count() == 1:
            return jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=tuple(0 if place is SPLIT else None for place in arguments),
                out_axes=None,
                donate_argnums=donate,
                devices=self.devices,
            )
        # pmap consists of the same calls, but these also take arguments that are divided along any axis, arrays of several
        # hosts, and functions without a batch.

        def on_one_device(*args: Any) -> Any:
            return function(*(_own(arg) if place is SPLIT else arg for place, arg in zip(arguments, args, strict=True)))

        on_all = jax.shard_map(
            on_one_device,
            mesh=self._mesh,
            in_specs=tuple(map(_specification, arguments)),
            out_specs=tuple(map(_specification, returns)) if isinstance(returns, tuple) else _specification(returns),
            check_vma=False,
        )
        return jax.jit(on_all, donate_argnums=donate)

    def compile_whole(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        returns: Sequence[Any],
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """``function`` of whole arrays, however they are placed. XLA divides the work and communicates what it needs.

        Args:
          function: takes positional arguments alone. It may call what `compile` returns.
          arguments, returns, donate: as for `compile`. A `SPLIT` argument keeps its device axis.
        """
        placed = {SAME: self.replicated, SPLIT: NamedSharding(self._mesh, PartitionSpec(AXIS))}
        places = [
            tuple(placed[each] if isinstance(each, Place) else each for each in given) for given in (arguments, returns)
        ]
        return jax.jit(function, in_shardings=places[0], out_shardings=places[1], donate_argnums=donate)

    def sum_over(self, function: Callable[[Any], Any], batches: Iterable[Any], whole: bool = False) -> Any:
        """The sum of ``function(batch)`` over host batches, added up on the devices.

        Each device gets its part of a batch, or with ``whole`` the whole batch.
        """
        return summed(map(function, self._put(batches, whole)))

    def map_over(self, function: Callable[[Any], Any], batches: Iterable[Any], whole: bool = False) -> Iterator[Any]:
        """``function(batch)`` for every host batch, on the host. `RUN_AHEAD` are under way. ``whole`` as in `sum_over`."""
        return drained(map(function, self._put(batches, whole)))

    def run_once(self, function: Callable[..., Any], *args: Any, shardings: Any = None) -> Any:
        """``function(*args)``, compiled for a single call. Every device holds the results whole, or by ``shardings``.

        LLVM's optimisation is off on the CPU. For the random numbers of an initialisation, it takes ten times as long as
        drawing them.
        """
        options = {"xla_backend_optimization_level": 0} if self.devices[0].platform == "cpu" else None
        return jax.jit(function, out_shardings=shardings or self.replicated, compiler_options=options)(*args)

    def put(self, tree: Any, shardings: Any = None) -> Any:
        """Arrays whole on every device, as `compile` takes and returns them, or placed by ``shardings``."""
        shardings = self.replicated if shardings is None else shardings
        if jax.process_count() == 1:
            return jax.device_put(tree, shardings)
        # Each of several hosts has the same arrays, and puts its part of them on its devices.
        return jax.jit(lambda tree: tree, out_shardings=shardings)(tree)

    def shardings_of(self, state: Any) -> Any:
        """The placement of a state's leaves when every device keeps its share of them (`shares.divided_axis`).

        Endpoints ``[m, *s]`` and the optimizer's memory of them are divided along the same axis. Scalars stay whole.
        """

        def sharding_of(leaf: Any) -> NamedSharding:
            axis = divided_axis(leaf.shape[1:], len(self.devices))
            spec = () if axis == WHOLE else (*(None,) * (axis + 1), AXIS)
            return NamedSharding(self._mesh, PartitionSpec(*spec))

        return jax.tree.map(sharding_of, state)

    @property
    def replicated(self) -> NamedSharding:
        """The placement of arrays that every device holds whole."""
        return NamedSharding(self._mesh, PartitionSpec())

    def put_batches(self, batches: Iterable[Any], parts: int = 1, ahead: int = 2) -> Iterator[Any]:
        """Moves host batches ``[n, ...]`` to the devices, ``ahead`` batches before they are used.

        Each of several hosts moves its own batches. Each device's share is a multiple of ``parts``, because the step
        splits it into ``parts`` equal parts (``num_samples`` of `jsubspace.value_and_grad`). Up to ``parts - 1`` examples
        at the end of a batch are left out to make this possible.

        A batch that the devices do not divide, such as the last of an epoch, is given to each device whole. All devices
        then compute the same gradient, and the mean of equal gradients is exact. The price is some wasted work.
        """
        queue: collections.deque[Any] = collections.deque()
        for batch in batches:
            queue.append(self._put_batch(batch, parts))
            if len(queue) > ahead:
                yield queue.popleft()
        yield from queue

    def put_rows(self, batches: Sequence[np.ndarray], parts: int = 1) -> jax.Array:
        """Moves the rows of several batches of one size to the devices, ``[n, ...]`` each, at once.

        Returns:
          An array of `SPLIT`. A device's part is ``[s, b, ...]``: of each of the s batches what `put_batches` gives to it.
        """
        return self._put_split(np.stack([self._split(batch, parts) for batch in batches], axis=1))

    def _put_batch(self, batch: Any, parts: int) -> Any:
        return self._put_split(jax.tree.map(lambda leaf: self._split(leaf, parts), batch))

    def _put_split(self, cut: Any, axis: int = 0) -> Any:
        """Arrays with an axis that is divided over this host's devices, on these devices."""
        split = NamedSharding(self._mesh, PartitionSpec(*(None,) * axis, AXIS))
        if jax.process_count() == 1:
            return jax.device_put(cut, split)
        return jax.make_array_from_process_local_data(split, cut)

    def _put(self, batches: Iterable[Any], whole: bool) -> Iterator[Any]:
        return map(self._put_whole, batches) if whole else self.put_batches(batches)

    def _put_whole(self, batch: Any) -> Any:
        """A host batch on every device. The parts of several hosts are joined.

        If every host holds the whole batch, the batch is repeated once per host.
        """
        if jax.process_count() > 1:
            batch = multihost_utils.process_allgather(batch, tiled=True)
        return self.put(batch)

    def _split(self, leaf: np.ndarray, parts: int) -> np.ndarray:
        d = len(self.devices) // jax.process_count()
        leaf = leaf[: len(leaf) - len(leaf) % parts]
        if len(leaf) % (d * parts):
            return np.broadcast_to(leaf, (d, *leaf.shape))
        return leaf.reshape(d, len(leaf) // d, *leaf.shape[1:])


class Partitioned(DataParallel):
    """Runs a step as one program of plain `jax.jit`. The step sees whole batches, and XLA divides its work.

    No axis has a name, so a function for these devices has no collectives. The means of a whole batch are the means that other
    ways take over devices. A `SPLIT` argument is a batch ``[n, ...]`` with a leading axis that lies divided on the devices.
    """

    axis_name: ClassVar[str | None] = None

    def compile(
        self, function: Callable[..., Any], arguments: Sequence[Any], returns: Any = SAME, donate: tuple[int, ...] = ()
    ) -> Callable[..., Any]:
        """``function`` of whole arrays, which follows the placement of its arguments. As `DataParallel.compile`."""
        del arguments  # They lie where `put`, `put_batches` and `put_rows` have put them.
        placed = tuple(map(self._placed, returns)) if isinstance(returns, tuple) else self._placed(returns)
        return jax.jit(function, out_shardings=placed, donate_argnums=donate)

    def compile_whole(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        returns: Sequence[Any],
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """As `compile`, which has whole arrays already."""
        return self.compile(function, arguments, tuple(returns), donate)

    def put_rows(self, batches: Sequence[np.ndarray], parts: int = 1) -> jax.Array:
        """Moves the rows of several batches to the devices at once: ``[s, n, ...]``, divided along the second axis."""
        return self._put_split(np.stack([self._joined(batch, parts) for batch in batches]), axis=1)

    def _put_batch(self, batch: Any, parts: int) -> Any:
        return self._put_split(jax.tree.map(lambda leaf: self._joined(leaf, parts), batch))

    def _joined(self, leaf: np.ndarray, parts: int) -> np.ndarray:
        """A batch that the devices divide. Otherwise it is repeated once per device, which changes no mean."""
        return self._split(leaf, parts).reshape(-1, *leaf.shape[1:])

    def _placed(self, place: Any) -> Any:
        return self.replicated if place is SAME else place


def _specification(place: Any) -> Any:
    """The specification of a `Place`, or of a tree of shardings, for `jax.shard_map`."""
    if isinstance(place, Place):
        return PartitionSpec(AXIS) if place is SPLIT else PartitionSpec()
    return jax.tree.map(lambda sharding: sharding.spec, place)


def _own(batch: Any) -> Any:
    """A device's part ``[1, n, ...] -> [n, ...]``."""
    return jax.tree.map(lambda leaf: leaf[0], batch)
