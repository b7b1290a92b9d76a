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
from jsubspace.evaluation.metrics import Difference, Scores
from jsubspace.runs import adapters, results
from jsubspace.runs.build import Run

log = logging.getLogger(__name__)

_OF_NETWORKS = ("model.width", "model.depth", "subspace.num_endpoints", "optimizer.num_collected")
_OF_POINTS = ("evaluation.num_points", "evaluation.num_random_points", "evaluation.ensemble")
_OF_PLANE = ("evaluation.plane_points",)
_FLOAT, _DOUBLE = 4, 8


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
    state = run.state_shape
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
            Part("a batch", _of_batch(run), ("data.batch_size",)),
        ),
    )
    copies = max(len(run.collected_steps), 1)
    read = Stage("read its checkpoints", (Part("states, whole on each device", copies * whole, _OF_NETWORKS),))
    plan = results.plan_of(run)
    p, rows = plan.weights.shape
    devices = [train, read, _evaluated(run, "evaluate", network, p, rows, bool(plan.ensembles), _OF_POINTS)]
    held = (
        Part("images", run.pipeline.num_bytes, ("data.num_train", "data.num_validation")),
        _outcomes(run, p, len(plan.ensembles), _OF_POINTS),
    )
    hosts = [Stage("score", (*held, *_scoring(run, max(p, len(plan.ensembles)), len(plan.along))))]
    if run.evaluation.sharpness_batches:
        batches = run.evaluation.sharpness_batches * run.batch_size * _of_image(run)
        hosts.append(
            Stage("measure the sharpness", (*held, Part("batches", batches, ("evaluation.sharpness_batches",))))
        )
    if g := run.evaluation.plane_points:
        devices.append(_evaluated(run, "evaluate the plane", network, g * g, plan.weights.shape[1], False, _OF_PLANE))
        hosts.append(Stage("evaluate the plane", (*held, _outcomes(run, g * g, 0, _OF_PLANE))))
    return Estimate(tuple(devices), tuple(hosts))


def check(run: Run) -> None:
    """Logs the estimate of a run, and compares it with the memory of the devices and of the machine.

    Raises:
      UsageError: if a device or the machine has less. The message says what each part needs and which settings to lower.
    """
    needed = estimate(run)
    ours = [device for device in run.devices.devices if device.process_index == jax.process_index()]
    available, of_device = machine.memory(), of_accelerator(ours[0])
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
        _refuse(most, 1, of_device, "each device", "a device")
    elif ours[0].platform == "cpu":
        shared = f"this machine for its {len(ours)} devices" if len(ours) > 1 else "this machine"
        _refuse(most, len(ours), available, shared, "the machine")
    _refuse(on_host, 1, available, "this machine", "the machine")


def of_accelerator(device: jax.Device) -> int | None:
    """The bytes that jax may use on a device, or None if it does not say. A CPU device does not."""
    return (device.memory_stats() or {}).get("bytes_limit")


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


def _refuse(stage: Stage, times: int, limit: int | None, where: str, who: str) -> None:
    if limit is None or times * stage.size <= limit:
        return
    parts = sorted(stage.parts, key=lambda part: -part.size)
    needs = "\n".join(f"  {part.name}: {readable(times * part.size)}" for part in parts)
    lower = dict.fromkeys(name for part in parts if 4 * part.size >= parts[0].size for name in part.settings)
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


def _of_image(run: Run) -> int:
    """The bytes of an example as a pipeline yields it: the image, and two integers."""
    return math.prod(run.pipeline.data_set.image_shape) + 2 * _FLOAT


def _of_batch(run: Run) -> int:
    return min(run.batch_size, run.pipeline.num_train) // run.devices.count * _of_image(run)


def _evaluated(
    run: Run, verb: str, network: int, p: int, rows: int, combined: bool, settings: tuple[str, ...]
) -> Stage:
    """What a device holds to evaluate ``p`` combinations of ``rows`` networks, with features if they are ``combined``."""
    size = run.evaluation.batch_size
    of_device = size if adapters.spreads_points(run, p) else -(-size // run.devices.count)
    point = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), run.state_shape.endpoints)
    image = jax.ShapeDtypeStruct((1, *run.pipeline.data_set.image_shape), jnp.float32)
    evaluated = adapters.network(run, by_points=True)  # A single device has no collectives.

    def outputs(point: Any, image: Any, key: Any) -> Any:
        stats = None if evaluated.stats is None else evaluated.stats(point, image, key)
        return stats, *evaluated.predict(point, stats, image)

    stats, logits, features = jax.eval_shape(outputs, point, image, jax.eval_shape(lambda: run.key))
    outputs_of = _bytes(logits) + (_bytes(features) if combined else 0)
    return Stage(
        verb,
        (
            Part("endpoints and networks that are drawn", rows * network, (*_OF_NETWORKS, *settings)),
            Part("weights and statistics of the points", p * (_bytes(stats) + rows * _FLOAT), settings),
            Part("a batch", of_device * _of_image(run), ("evaluation.batch_size",)),
            Part("outputs of the points", p * of_device * outputs_of, (*settings, "evaluation.batch_size")),
        ),
    )


def _num_examples(run: Run) -> int:
    return max(run.pipeline.num_test, run.pipeline.num_validation)


def _outcomes(run: Run, p: int, num_ensembles: int, settings: tuple[str, ...]) -> Part:
    """What each example says about ``p`` points and about ensembles, by probability and by logit (`evaluation.tasks.Outcomes`)."""
    numbers = p * len(Scores._fields) + num_ensembles * (2 * len(Scores._fields) + len(Difference._fields))
    return Part("scores per example", numbers * _num_examples(run) * _FLOAT, settings)


def _scoring(run: Run, rows: int, along: int) -> Iterable[Part]:
    """What the host needs to make means and intervals of ``rows`` networks, of which ``along`` lie along the subspace."""
    n, settings = _num_examples(run), run.evaluation
    resamples = settings.num_resamples * (n + rows * _DOUBLE)
    bins = rows * settings.num_bins * 3 * _DOUBLE
    yield Part("scores as float64", rows * len(Scores._fields) * n * _DOUBLE, _OF_POINTS)
    yield Part("resamples", resamples, ("evaluation.num_resamples", *_OF_POINTS))
    yield Part("bins", bins, ("evaluation.num_bins", *_OF_POINTS))
    yield Part("covariance of the points along the subspace", along * (along + n) * _DOUBLE, _OF_POINTS[:1])
