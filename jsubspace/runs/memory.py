"""The memory that a run needs at least, from the shapes of its arrays. No array is made.

The estimate is a lower bound. It has what training and evaluation keep: endpoints, the optimizer's memory, batches, the
statistics and scores of all evaluated points. Activations and the compiler's own buffers are not in it, and they are often
larger than all of this. A run that passes may still be too large. A run that is refused could never end.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jsubspace import machine
from jsubspace.errors import UsageError
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, feeding, pretrained, results
from jsubspace.runs.build import Run
from jsubspace.runs.images import ImageProblem

log = logging.getLogger(__name__)

_OF_NETWORKS = ("model.width", "model.depth", "subspace.num_endpoints", "optimizer.num_collected")
_OF_POINTS = ("evaluation.num_points", "evaluation.num_random_points", "evaluation.ensemble")
_OF_PLANE = ("evaluation.plane_points",)
_OF_DATA = ("data.num_train", "data.num_validation")
_FLOAT, _DOUBLE = 4, 8

_OF_A_PROBLEM = {
    "model.width": "the size of the network",
    "model.depth": "the size of the network",
    "data.batch_size": "the batch_size of the data",
    "data.num_train": "the number of examples",
    "data.num_validation": "the number of examples",
    "evaluation.batch_size": "the eval_batch_size of the data",
    "evaluation.num_bins": "num_bins of the task",
}
"""What stands in the place of a setting for a problem of one's own."""


class Part(NamedTuple):
    """Arrays that are needed at the same time as the others of a stage.

    Attributes:
      name: what they are.
      size: bytes.
      settings: the settings that make them large.
    """

    name: str
    size: int
    settings: tuple[str, ...]


class Stage(NamedTuple):
    """A time in a run's life, and what is held then. ``verb`` says what the run does."""

    verb: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)


class Estimate(NamedTuple):
    """Lower bounds of a run's memory.

    Attributes:
      device: the stages on each device.
      host: the stages of the process, besides the devices.
    """

    device: tuple[Stage, ...]
    host: tuple[Stage, ...]


def estimate(run: Run) -> Estimate:
    """The memory that a run needs at least, on each device and on the host.

    Example:
      >>> stage = Stage("train", (Part("endpoints", 800, ()), Part("a batch", 200, ())))
      >>> Estimate((stage,), ()).device[0].size
      1000
    """
    state, sizes = run.state_shape, _sizes_of(run)
    whole = _bytes(state)
    network = _bytes(state.endpoints) // run.subspace.num_endpoints
    share = ("shard_endpoints",) if run.shardings is None else ()
    settings = (*_OF_NETWORKS, *share)
    train = Stage(
        "train",
        (
            Part("endpoints", _bytes(state.endpoints, run.shardings and run.shardings.endpoints), settings),
            Part("optimizer", _bytes(state.opt_state, run.shardings and run.shardings.opt_state), settings),
            Part("one network at the point", network, _OF_NETWORKS),
            Part("the origin", network if pretrained.has_origin(run.settings) else 0, ("start.role",)),
            Part("a batch", _of_batch(run, sizes), ("data.batch_size",)),
            Part("training examples", found.num_bytes if (found := feeding.resident(run)) else 0, _OF_DATA),
        ),
    )
    copies = max(len(run.collected_steps), 1)
    read = Stage("read its checkpoints", (Part("states, whole on each device", copies * whole, _OF_NETWORKS),))
    plan = results.plan_of(run)
    p, rows = plan.weights.shape
    devices = [train, read, _evaluated(run, sizes, "evaluate", network, p, rows, bool(plan.ensembles), _OF_POINTS)]
    held = (
        Part(run.problem.unit, run.problem.data.num_bytes, _OF_DATA),
        _outcomes(run, sizes, p, len(plan.ensembles), _OF_POINTS),
    )
    hosts = [Stage("score", (*held, *_scoring(run, sizes, max(p, len(plan.ensembles)), len(plan.along))))]
    if run.evaluation.sharpness_batches:
        batches = run.evaluation.sharpness_batches * run.problem.data.batch_size * sizes.example
        hosts.append(
            Stage("measure the sharpness", (*held, Part("batches", batches, ("evaluation.sharpness_batches",))))
        )
    if g := run.evaluation.plane_points:
        devices.append(
            _evaluated(run, sizes, "evaluate the plane", network, g * g, plan.weights.shape[1], False, _OF_PLANE)
        )
        hosts.append(Stage("evaluate the plane", (*held, _outcomes(run, sizes, g * g, 0, _OF_PLANE))))
    return Estimate(tuple(devices), tuple(hosts))


def check(run: Run) -> None:
    """Logs the estimate of a run, and compares it with the memory of the devices and of the machine.

    Raises:
      UsageError: if a device or the machine has less. The message says what each part needs and which settings to lower.
    """
    needed = estimate(run)
    ours = [device for device in run.devices.devices if device.process_index == jax.process_index()]
    available, of_device = machine.memory(), machine.of_accelerator(ours[0])
    most, on_host = (max(stages, key=lambda stage: stage.size) for stages in needed)
    log.info(
        "memory on each of %d devices, at least and without activations: %s%s",
        len(run.devices.devices), _sizes(needed.device), f". A device has {readable(of_device)}." if of_device else "."
    )  # fmt: skip
    log.info(
        "memory on the host, at least: %s%s",
        _sizes(needed.host), f". The machine has {readable(available)}." if available else "."
    )  # fmt: skip
    if of_device is not None:
        _refuse(run, most, 1, of_device, "each device", "a device")
    elif ours[0].platform == "cpu":
        shared = f"this machine for its {len(ours)} devices" if len(ours) > 1 else "this machine"
        _refuse(run, most, len(ours), available, shared, "the machine")
    _refuse(run, on_host, 1, available, "this machine", "the machine")


def readable(size: float) -> str:
    """Bytes with a unit.

    Example:
      >>> readable(0), readable(1234), readable(5_600_000_000), readable(10**30)
      ('0 B', '1.23 kB', '5.6 GB', '1e+12 EB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} EB"


def _sizes(stages: Iterable[Stage]) -> str:
    return ", ".join(f"{readable(stage.size)} to {stage.verb}" for stage in stages)


def _refuse(run: Run, stage: Stage, times: int, limit: int | None, where: str, who: str) -> None:
    if limit is None or times * stage.size <= limit:
        return
    parts = sorted(stage.parts, key=lambda part: -part.size)
    needs = "\n".join(f"  {part.name}: {readable(times * part.size)}" for part in parts)
    instead = {} if isinstance(run.problem, ImageProblem) else _OF_A_PROBLEM
    large = [name for part in parts if 4 * part.size >= parts[0].size for name in part.settings]
    lower = dict.fromkeys(instead.get(name, name) for name in large)
    *names, last = ("set shard_endpoints" if name == "shard_endpoints" else name for name in lower)
    listed = f"{', '.join(names)} or {last}" if names else last
    raise UsageError(
        f"to {stage.verb}, this run needs at least {readable(times * stage.size)} of memory on {where}, without activations, "
        f"but {who} has {readable(limit)}:\n{needs}\nLower {listed}."
    )


def _bytes(tree: Any, shardings: Any = None) -> int:
    """The bytes of arrays or their shapes, on one device if they are divided by ``shardings``."""
    leaves = jax.tree.leaves(tree)
    places = [None] * len(leaves) if shardings is None else jax.tree.leaves(shardings)
    shapes = (
        leaf.shape if place is None else place.shard_shape(leaf.shape)
        for leaf, place in zip(leaves, places, strict=True)
    )
    return sum(math.prod(shape) * leaf.dtype.itemsize for shape, leaf in zip(shapes, leaves, strict=True))


def _of_batch(run: Run, sizes: "_Sizes") -> int:
    data = run.problem.data
    return min(data.batch_size, data.num_train) // run.devices.count * sizes.example


class _Sizes(NamedTuple):
    """Bytes of an example as the data yields it, and what evaluation holds for one point: its statistics, and for one
    example its outputs and numbers.

    ``combined`` are the outputs of a point that is a member of ensembles. ``scores`` are the numbers of a point, and ``ensemble``
    are the numbers of an ensemble (`evaluation.tasks.Outcomes`).
    """

    example: int
    stats: int
    outputs: int
    combined: int
    scores: int
    ensemble: int


def _sizes_of(run: Run) -> _Sizes:
    problem, task = run.problem, run.problem.task
    evaluated = adapters.passes(run, by_points=True)  # A single device has no collectives.
    example = problem.data.example()
    batch = tuple(jax.ShapeDtypeStruct((1, *array.shape), array.dtype) for array in example)

    def of(point: Any, batch: Any, key: Any) -> Any:
        inputs, targets = problem.separated(problem.data.prepare(*batch))
        stats = None if evaluated.stats is None else evaluated.stats(point, *inputs, key)
        outputs = evaluated.predict(point, stats, *inputs)
        alone, combined = (task.at_point(outputs, targets, combined) for combined in (False, True))
        outcomes = task.outcomes(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), combined), targets, ((0, 1),))
        return stats, alone, combined, outcomes.points, outcomes[1:]

    point = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), run.state_shape.endpoints)
    stats, alone, combined, points, ensemble = jax.eval_shape(of, point, batch, jax.eval_shape(lambda: run.key))
    return _Sizes(
        _bytes(example), _bytes(stats), _bytes(alone), _bytes(combined), _bytes(points) // 2, _bytes(ensemble)
    )


def _evaluated(
    run: Run, sizes: _Sizes, verb: str, network: int, p: int, rows: int, combined: bool, settings: tuple[str, ...]
) -> Stage:
    """What a device holds to evaluate ``p`` combinations of ``rows`` networks, with features if they are ``combined``."""
    size = adapters.eval_batch_size(run.problem.data)
    of_device = size if adapters.spreads_points(run, p) else -(-size // run.devices.count)
    outputs = sizes.combined if combined else sizes.outputs
    return Stage(
        verb,
        (
            Part("endpoints and networks that are drawn", rows * network, (*_OF_NETWORKS, *settings)),
            Part("weights and statistics of the points", p * (sizes.stats + rows * _FLOAT), settings),
            Part("a batch", of_device * sizes.example, ("evaluation.batch_size",)),
            Part("outputs of the points", p * of_device * outputs, (*settings, "evaluation.batch_size")),
        ),
    )


def _num_examples(run: Run) -> int:
    return max(run.problem.data.num_test, run.problem.data.num_validation)


def _outcomes(run: Run, sizes: _Sizes, p: int, num_ensembles: int, settings: tuple[str, ...]) -> Part:
    """What each example says about ``p`` points and about ensembles (`evaluation.tasks.Outcomes`)."""
    size = p * sizes.scores + num_ensembles * sizes.ensemble
    return Part("scores per example", size * _num_examples(run), settings)


def _scoring(run: Run, sizes: _Sizes, rows: int, along: int) -> Iterable[Part]:
    """What the host needs to make means and intervals of ``rows`` networks, of which ``along`` lie along the subspace."""
    n, resampled = _num_examples(run), run.evaluation.num_resamples
    yield Part("scores as float64", rows * sizes.scores // _FLOAT * n * _DOUBLE, _OF_POINTS)
    yield Part("resamples", resampled * (n + rows * _DOUBLE), ("evaluation.num_resamples", *_OF_POINTS))
    if isinstance(run.problem.task, Classification):
        bins = rows * run.problem.task.num_bins * 3 * _DOUBLE
        yield Part("bins", bins, ("evaluation.num_bins", *_OF_POINTS))
    yield Part("covariance of the points along the subspace", along * (along + n) * _DOUBLE, _OF_POINTS[:1])
