"""Measures a subspace of anybody's networks: from endpoints and batches to a report."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

import jax

from jsubspace import arguments, subspaces, tree
from jsubspace.batch_stats import check_weights, weighed
from jsubspace.evaluation import networks, options, rows
from jsubspace.evaluation.batches import Batches, padded
from jsubspace.evaluation.devices import Devices
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.positions import RANDOM, name_of
from jsubspace.evaluation.report import Report, ValidationReport
from jsubspace.evaluation.survey import Survey, survey
from jsubspace.evaluation.tasks.classification import Classification
from jsubspace.evaluation.tasks.task import Outcomes, Task, checked
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints


class Options(TypedDict, total=False):
    """The options of `measure`, for type checkers."""

    task: Task | None
    stats_fn: Callable[..., Any] | None
    train_batches: Batches | None
    weights: str | None
    num_points: int
    num_random_points: int
    random_points: tuple[str, ...] | None
    ensemble: Sequence[Any]
    num_resamples: int
    key: jax.Array | None
    devices: Devices | None


@overload
def measure(
    predict_fn: Callable[..., Any],
    endpoints: Endpoints,
    subspace: Subspace,
    test_batches: Batches,
    **options: Unpack[Options],
) -> Report: ...


@overload
def measure(
    predict_fn: Callable[..., Any],
    endpoints: Endpoints,
    subspace: Subspace,
    *,
    validation_batches: Batches,
    **options: Unpack[Options],
) -> ValidationReport: ...


def measure(
    predict_fn: Callable[..., Any],
    endpoints: Endpoints,
    subspace: Subspace,
    test_batches: Batches | None = None,
    *,
    validation_batches: Batches | None = None,
    task: Task | None = None,
    stats_fn: Callable[..., Any] | None = None,
    train_batches: Batches | None = None,
    weights: str | None = None,
    num_points: int = 21,
    num_random_points: int = 6,
    random_points: tuple[str, ...] | None = None,
    ensemble: Sequence[Any] = (),
    num_resamples: int = 1000,
    key: jax.Array | None = None,
    devices: Devices | None = None,
) -> Report:
    """Measures the points of a subspace, their ensembles, and whether the subspace connects its ends.

    Every batch is read once. All points are evaluated in one program per batch. Each call compiles its programs again.

    Args:
      predict_fn: ``(point, *inputs) -> logits [n, k]``, or ``-> (logits, features [n, f])``, in evaluation mode. Another task
        takes other outputs, and `Likelihood` takes ``log_prob_fn(point, *batch) -> [n]``. With stats_fn the function also takes
        the keyword ``stats``, the statistics of the point.
      endpoints: leaves ``[m, *s]``. The programs follow their shardings.
      subspace: what the endpoints span.
      test_batches: tuples of arrays. The last array holds the labels ``[n]``, or what the task compares with, and predict_fn
        gets the others. A smaller batch at the end is padded.
      validation_batches: instead of test_batches, if a point will be chosen by the report. Only such a report has ``best``.
      task: how the outputs are scored: `Classification` (the default), `Tokens`, `Regression`, `Likelihood`, or a `Task` of your
        own.
      stats_fn: for networks with BatchNorm, ``(point, *batch) -> statistics`` of one training batch in train mode
        (`jsubspace.reestimate_batch_stats`). Every point gets statistics of its own.
      train_batches: training batches for stats_fn, augmented as in training.
      weights: "size" to weigh the statistics of a training batch by its examples. By default all batches count alike
        (`jsubspace.reestimate_batch_stats`).
      num_points: the number of points along each axis of the subspace's grid. If it is even on a path, the center is not on
        the grid but a point of its own.
      num_random_points: the number of random points of each kind.
      random_points: kinds of random points (`positions.KINDS`). By default "random" for a subspace of several endpoints that
        is no path, and nothing else.
      ensemble: alphas of one more ensemble.
      num_resamples: the number of bootstrap resamples of the examples, at least 20, or 0 for no intervals of scores.
      key: for random points.
      devices: where the programs run (`evaluation.devices.Devices`), for example `training.parallel.DataParallel`. The
        default is one `jax.jit`.

    Returns:
      A `Report`, or a `ValidationReport` for validation batches.

    Raises:
      ValueError: if endpoints and subspace do not fit, batches or labels are missing, the outputs or the targets do not fit the
        task, an option is of a wrong kind, or only one of stats_fn and train_batches is given.

    Example:
      >>> import jax.numpy as jnp
      >>> endpoints = {"kernel": jnp.stack([jnp.eye(2), 2 * jnp.eye(2)])}
      >>> x, y = jnp.eye(2), jnp.arange(2)
      >>> predict_fn = lambda point, x: x @ point["kernel"]
      >>> report = measure(predict_fn, endpoints, subspaces.Line(), [(x, y)], num_points=3)
      >>> report.center.accuracy, round(report.center.nll, 3), round(report.at(1).nll, 3)
      (1.0, 0.201, 0.127)
    """
    batches = validation_batches if test_batches is None else test_batches
    if batches is None or (test_batches is not None and validation_batches is not None):
        raise ValueError("measure: give test_batches, or validation_batches to choose a point by. One of the two.")
    read = {"test_batches" if validation_batches is None else "validation_batches": batches}
    call = "measure(predict_fn, endpoints, subspace, test_batches)"
    check_inputs("measure", call, predict_fn, endpoints, subspace, read, stats_fn, train_batches, weights)
    num_resamples = options.num_resamples("measure: num_resamples", num_resamples)
    options.check_devices("measure: devices", devices)
    task = Classification() if task is None else checked(task)
    kinds = usual_kinds(subspace) if random_points is None else random_points
    key = jax.random.key(0) if key is None else arguments.key("measure: key", key)
    plan = survey(subspace, num_points, num_random_points, key, kinds, ensemble)
    evaluator = Evaluator(networks.from_functions(predict_fn, stats_fn), task, plan, devices)
    all_rows = evaluator.rows(endpoints, subspace, key)
    stats = None if train_batches is None else stats_of(evaluator, all_rows, train_batches, weights)
    outcomes = evaluator.outcomes(all_rows, stats, padded(batches, task, 1 if devices is None else devices.count))
    task.check_outcomes(outcomes)
    kind = Report if validation_batches is None else ValidationReport
    return report_of(endpoints, subspace, plan, outcomes, task, num_resamples, kind)


def check_inputs(
    name: str,
    call: str,
    predict_fn: Any,
    endpoints: Any,
    subspace: Any,
    batches: Mapping[str, Any],
    stats_fn: Any,
    train_batches: Any,
    weights: Any = None,
) -> None:
    """Raises a ValueError if an argument is of a wrong kind, or endpoints and subspace do not fit.

    Args:
      name: what the measuring function is called, for a message.
      call: shows the order of its arguments in a message.
      predict_fn, endpoints, subspace, stats_fn, train_batches, weights: its arguments.
      batches: its other arguments that hold batches, by name.
    """
    arguments.function(f"{name}: predict_fn", predict_fn, "(point, *inputs) -> logits", call)
    for argument, value in batches.items():
        arguments.check_batches(f"{name}: {argument}", value, call)
    check_statistics(name, stats_fn, train_batches)
    check_weights(weights)
    m = tree.num_endpoints(endpoints, call)
    if m != arguments.subspace(subspace, call).num_endpoints:
        raise ValueError(f"{name}: {subspace} has {subspace.num_endpoints} endpoints but {m} were given.")


def check_statistics(name: str, stats_fn: Any, train_batches: Any) -> None:
    """Raises a ValueError if only one of stats_fn and train_batches is given, or one is of a wrong kind. ``name`` is the caller's."""
    if (stats_fn is None) != (train_batches is None):
        raise ValueError(
            f"{name}: stats_fn and train_batches belong together: the statistics of every point come from training batches."
        )
    if stats_fn is not None:
        arguments.function(f"{name}: stats_fn", stats_fn, "(point, *batch) -> statistics")
        arguments.check_batches(f"{name}: train_batches", train_batches)


def stats_of(evaluator: Evaluator, rows: Endpoints, batches: Batches, weights: str | None) -> Any:
    """BatchNorm statistics of every point from a user's training batches (`Evaluator.batch_stats`)."""
    pairs, given = itertools.tee(weighed(batches, weights))
    return evaluator.batch_stats(rows, (batch for batch, _ in pairs), (weight for _, weight in given))


def report_of(
    endpoints: Endpoints,
    subspace: Subspace,
    plan: Survey,
    outcomes: Outcomes,
    task: Task,
    num_resamples: int,
    kind: type[Report] = Report,
) -> Report:
    """The report of a plan from what every example says. ``kind`` is `ValidationReport` for validation data."""
    of_center = jax.tree.map(lambda leaf: leaf[plan.center], outcomes.points)
    return kind(
        subspace=name_of(subspace),
        endpoints=rows.geometry(endpoints),
        points=rows.point_rows(plan, subspace.num_endpoints, outcomes, task, num_resamples),
        ensembles=rows.ensemble_rows(plan, outcomes, task, num_resamples),
        reliability=task.reliability(of_center),
        connector=rows.connector(plan, outcomes, task),
        higher_is_better=task.higher_is_better,
        task=task.described,
    )


def usual_kinds(subspace: Subspace) -> tuple[str, ...]:
    """The kinds of random points that represent a subspace. A path has no random points, since a grid represents it."""
    return () if subspaces.is_path(subspace) or subspace.num_endpoints == 1 else (RANDOM,)
