"""How the batches of training reach the step: made by the host, or gathered by the step from examples on the devices."""

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from jsubspace import machine
from jsubspace.data.resident import Resident
from jsubspace.runs.build import Run
from jsubspace.training.train_step import Given, TrainStep
from jsubspace.types import Params

log = logging.getLogger(__name__)

RESIDENT_BYTES = 2 * 1024**3
"""Examples that take more memory on a device stay on the host. The CPU devices of a machine share this limit."""

ACCELERATED_STEPS = 8
"""The steps of a dispatch on a GPU or TPU, where a step of a small network takes less time than Python needs to start it."""


class Feed(NamedTuple):
    """What the loop takes of `training.loop.Training`: ``program``, ``batches`` and ``position``."""

    program: Callable[[int], TrainStep]
    batches: Callable[[int, Any], Iterator[tuple[range, Any]]]
    position: Callable[[int], Any]


def feed(run: Run, origin: Params | None = None) -> Feed:
    """The programs of a run and their batches. Examples that can live on the devices are moved there."""
    found = resident(run)
    if found is None:
        step = run.compiled_step(Given(origin))
        return Feed(lambda count: step, *_from_host(run))
    examples = run.devices.put(found.arrays)
    program = functools.cache(lambda count: run.compiled_step(Given(origin, examples), count))
    most, asked = steps_per_dispatch(run), run.settings.steps_per_dispatch
    if most < asked:
        log.warning(
            "steps_per_dispatch is %d, but the network may have convolutions, which are slow in a loop on the CPU. Each step is a call "
            "of its own.", asked
        )  # fmt: skip

    def batches(start: int, position: Any) -> Iterator[tuple[range, Any]]:
        del position
        step = start
        for block in found.blocks(start, run.shard):
            rows, end = run.devices.put_rows(block.rows, run.objective.num_samples), block.first + block.num_steps
            while step < min(end, run.total_steps):
                steps = run.cadence.next_steps(step, most if step + most <= end else 1)
                yield steps, rows
                step = steps[-1]
            if step == run.total_steps:
                return

    return Feed(program, batches, lambda step: None)


def resident(run: Run) -> Resident | None:
    """The examples of a run that live on its devices, or None if there are none or they are too large."""
    found = run.problem.data.resident
    if found is None:
        return None
    ours = [device for device in run.devices.devices if device.process_index == jax.process_index()]
    of_device = machine.of_accelerator(ours[0])
    copies, memory = (1, of_device) if of_device is not None else (len(ours), machine.memory())
    return found if copies * found.num_bytes <= min(RESIDENT_BYTES, (memory or RESIDENT_BYTES) // 4) else None


def steps_per_dispatch(run: Run) -> int:
    """The number of steps that one program takes of resident examples.

    XLA's convolutions on the CPU are many times slower in a loop inside of a program, and their sums have another order. So a
    network that may have convolutions, with a leaf of three or more axes, takes single steps on the CPU.
    """
    if run.devices.devices[0].platform != "cpu":
        return run.settings.steps_per_dispatch or ACCELERATED_STEPS
    endpoints = jax.tree.leaves(run.state_shape.endpoints)
    return 1 if any(leaf.ndim > 3 for leaf in endpoints) else run.settings.steps_per_dispatch or 1


def _from_host(run: Run) -> tuple[Callable[[int, Any], Iterator[tuple[range, Any]]], Callable[[int], Any]]:
    """Batches that the host makes, one for each step, and the position of a stream after a step."""
    data, positions = run.problem.data, dict[int, Any]()

    def batches(start: int, position: Any) -> Iterator[tuple[range, Any]]:
        on_host = data.train_batches(start, run.shard, position, positions)
        on_devices = run.devices.put_batches(on_host, parts=run.objective.num_samples)
        return zip((range(step + 1, step + 2) for step in range(start, run.total_steps)), on_devices, strict=False)

    def position(step: int) -> Any:
        for earlier in [other for other in positions if other < step]:  # The data is read some steps ahead.
            del positions[earlier]
        return positions.get(step)

    return batches, position
