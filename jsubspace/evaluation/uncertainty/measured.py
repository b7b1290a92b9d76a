"""Measures the uncertainty of a subspace of anybody's classifiers: from endpoints and batches to a report."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace import arguments
from jsubspace.evaluation import bounds, networks, options
from jsubspace.evaluation import measure as measuring
from jsubspace.evaluation.batches import Batches, arrays_of, padded
from jsubspace.evaluation.devices import Devices
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.positions import name_of
from jsubspace.evaluation.survey import Survey, survey
from jsubspace.evaluation.tasks import checks
from jsubspace.evaluation.tasks.classification import Classification
from jsubspace.evaluation.tasks.task import Outcomes
from jsubspace.evaluation.uncertainty import conformal, detection, selective, temperature
from jsubspace.evaluation.uncertainty.passes import Calibrating, Outside, Scoring
from jsubspace.evaluation.uncertainty.report import UncertaintyReport, UncertaintyRow
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints


def uncertainty(
    predict_fn: Callable[..., Any],
    endpoints: Endpoints,
    subspace: Subspace,
    *,
    validation_batches: Batches,
    test_batches: Batches,
    outside_batches: Batches | None = None,
    miscoverage: float = 0.1,
    ensemble: Sequence[Any] = (),
    stats_fn: Callable[..., Any] | None = None,
    train_batches: Batches | None = None,
    weights: str | None = None,
    num_bins: int = 20,
    num_resamples: int = 1000,
    seed: int = 0,
    devices: Devices | None = None,
) -> UncertaintyReport:
    """Measures how well classifiers know when they are wrong: the midpoint, the ends, and the ensemble of the ends.

    Temperatures and conformal thresholds are fitted on validation data, and everything is measured on test data. Each batch is read
    once, and a few numbers per example and network leave the devices.

    Args:
      predict_fn: ``(point, *inputs) -> logits [n, k]`` in evaluation mode, as in `jsubspace.measure`.
      endpoints: leaves ``[m, *s]``.
      subspace: what the endpoints span.
      validation_batches: tuples of arrays. The last array holds the labels. These examples were not used for training, and they are
        not the test examples.
      test_batches: tuples of arrays like the validation batches.
      outside_batches: batches of another data set, with inputs of the same shapes. A last array of labels is ignored.
      miscoverage: the part of the labels that a conformal set may miss.
      ensemble: alphas of one more ensemble.
      stats_fn, train_batches, weights: for networks with BatchNorm, as in `jsubspace.measure`.
      num_bins: the number of bins of the calibration errors.
      num_resamples: the number of bootstrap resamples of the examples, at least 20, or 0 for no intervals of scores. Areas under
        risks and FPR95 then have the interval from 0 to 1.
      seed: at least 0, of the uniform numbers that the adaptive sets draw.
      devices: where the programs run, as in `jsubspace.measure`.

    Returns:
      An `UncertaintyReport`. ``print(report.table())`` shows it in a terminal.

    Raises:
      ValueError: if endpoints and subspace do not fit, there is no validation or test batch, labels are missing, the other data set
        has inputs of other shapes, an option is of a wrong kind, or no temperature fits.

    Example:
      >>> import jax.numpy as jnp
      >>> import jsubspace
      >>> endpoints = {"kernel": jnp.stack([jnp.eye(2), 2 * jnp.eye(2)])}
      >>> x, y = jnp.tile(jnp.eye(2), (20, 1)), jnp.tile(jnp.arange(2), 20).at[0].set(1)
      >>> predict_fn = lambda point, x: x @ point["kernel"]
      >>> report = uncertainty(
      ...     predict_fn, endpoints, jsubspace.Line(), validation_batches=[(x, y)], test_batches=[(x, y)], num_resamples=0
      ... )
      >>> round(report.center.temperature, 3)  # The NLL is lowest where 39 of 40 labels have a probability of 39/40.
      0.409
    """
    miscoverage = checks.number(
        "miscoverage", miscoverage, lambda given: 0 < given < 1, "between 0 and 1, for example 0.1"
    )
    read = {"validation_batches": validation_batches, "test_batches": test_batches}
    if outside_batches is not None:
        read["outside_batches"] = outside_batches
    call = "uncertainty(predict_fn, endpoints, subspace, *, validation_batches=..., test_batches=...)"
    measuring.check_inputs("uncertainty", call, predict_fn, endpoints, subspace, read, stats_fn, train_batches, weights)
    num_resamples = options.num_resamples("uncertainty: num_resamples", num_resamples)
    num_bins = arguments.count("uncertainty: num_bins", num_bins, 1)
    seed = arguments.count("uncertainty: seed", seed, 0)
    options.check_devices("uncertainty: devices", devices)
    plan = survey(subspace, num_points=3, ensemble=ensemble)
    network, count = networks.from_functions(predict_fn, stats_fn), 1 if devices is None else devices.count
    calibrating = Evaluator(network, Calibrating(), plan, devices)
    rows = calibrating.rows(endpoints, subspace, jax.random.key(0))
    stats = None if train_batches is None else measuring.stats_of(calibrating, rows, train_batches, weights)
    shapes: list[Any] = []

    def passed(task: Classification, batches: Iterable[Any]) -> Outcomes:
        return Evaluator(network, task, plan, devices).outcomes(rows, stats, padded(batches, task, count))

    with _named("validation_batches"):
        validation = passed(Calibrating(), _with_uniform(validation_batches, seed, shapes))
        Calibrating().check_outcomes(validation)
        temperatures, of_temperatures, thresholds = _fitted(validation, miscoverage)
    scoring = Scoring(num_bins, temperatures=temperatures, thresholds=thresholds)
    with _named("test_batches"):
        test = passed(scoring, _with_uniform(test_batches, seed + 1, shapes))
        scoring.check_outcomes(Outcomes(test.points["plain"]))
    outside = None
    if outside_batches is not None:
        with _named("outside_batches"):
            outside = passed(Outside(), _inputs_alone(outside_batches, shapes))
    of_outside = None if outside is None else outside.points
    points = _rows(plan, scoring, of_temperatures, test.points, of_outside, num_resamples)
    ensembles = []
    if plan.ensembles:
        of_outside = None if outside is None else outside.by_probability
        ensembles = _rows(
            plan, scoring, of_temperatures, test.by_probability, of_outside, num_resamples, first=len(points)
        )
    center = points[plan.center]
    others = [row for row in points if row is not center]
    return UncertaintyReport(name_of(subspace), (center, *others), tuple(ensembles), miscoverage)


@contextlib.contextmanager
def _named(argument: str) -> Iterator[None]:
    """Says in the message of a ValueError which batches it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"uncertainty: {argument}: {error}") from error


def _with_uniform(batches: Batches, seed: int, shapes: list[Any]) -> Iterator[tuple[Any, ...]]:
    """Batches with a uniform number for each example. The shapes of one example's inputs are noted, and must stay the same."""
    rng = np.random.default_rng(seed)
    for number, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ValueError(
                f"batch {number} is a {type(batch).__name__}. It must be a tuple of inputs and, last, the labels."
            )
        arrays = arrays_of(batch, number)
        _check_shapes(number, arrays[:-1], shapes)
        yield (*arrays, rng.uniform(size=np.shape(arrays[-1])[:1]).astype(np.float32))


def _inputs_alone(batches: Batches, shapes: list[Any]) -> Iterator[tuple[Any, ...]]:
    """Batches of another data set without their labels, if there are any."""
    for number, batch in enumerate(batches):
        arrays = arrays_of(batch if isinstance(batch, tuple | list) else (batch,), number)
        inputs = arrays[: len(shapes[0])]
        _check_shapes(number, inputs, shapes)
        yield inputs


def _check_shapes(number: int, inputs: Sequence[Any], shapes: list[Any]) -> None:
    found = [np.shape(array)[1:] for array in inputs]
    shapes.append(found)
    if found != shapes[0]:
        raise ValueError(
            f"the inputs of batch {number} have examples of the shapes {_words(found)}, but the validation data has {_words(shapes[0])}. "
            "All data sets go through the same network. Bring them to one shape."
        )


def _words(shapes: list[Any]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)


def _fitted(
    validation: Outcomes, miscoverage: float
) -> tuple[np.ndarray, list[tuple[float, float]], dict[str, np.ndarray]]:
    """The temperature with its interval, and the conformal thresholds of every point, then of every ensemble: ``[p + e]`` each."""
    parts = [part for part in (validation.points, validation.by_probability) if part is not None]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([np.asarray(part[name], np.float64) for part in parts])

    derivatives = joined("derivatives")
    temperatures = np.array([temperature.fitted(found.mean(-1)) for found in derivatives])
    thresholds = {
        kind: np.array([conformal.quantile(scores, miscoverage) for scores in joined(kind)]) for kind in conformal.KINDS
    }
    return temperatures, [temperature.interval(found) for found in derivatives], thresholds


def _rows(
    plan: Survey,
    scoring: Scoring,
    of_temperatures: Sequence[tuple[float, float]],
    test: Any,
    outside: Any,
    num_resamples: int,
    first: int = 0,
) -> list[UncertaintyRow]:
    """One row per point, or with ``first`` = p per ensemble, from what the examples of both data sets say."""
    plain, scaled = (scoring.scores(test[name], num_resamples) for name in ("plain", "scaled"))
    names = [position.name for position in plan.positions]
    rows = []
    for i in range(len(plain)):
        members = tuple(names[j] for j in plan.groups[i]) if first else (names[i],)
        of_example = {name: np.asarray(test[name][i]) for name in test if name not in ("plain", "scaled")}
        confidence = np.asarray(test["plain"].confidence[i])
        doubts = {"confidence": -confidence} | {name: of_example[name] for name in _DOUBTS if name in of_example}
        num_classes = int(of_example["num_classes"][0])
        means = _DOUBTS if first else _DOUBTS[:1]
        intervals = {name: bounds.of_bounded(of_example[name], math.log(num_classes)) for name in means}
        found = {}
        if outside is not None:
            there = {name: np.asarray(values[i]) for name, values in outside.items()}
            there["confidence"] = -there["confidence"]
            found = {name: detection.detect(here, there[name], num_resamples) for name, here in doubts.items()}
        rows.append(
            UncertaintyRow(
                name=plan.ensembles[i].name if first else names[i],
                members=members,
                scores=plain[i],
                scaled=scaled[i],
                temperature=float(scoring.temperatures[first + i]),
                entropy=float(of_example["entropy"].mean()),
                mutual_information=float(of_example["mutual_information"].mean()) if first else None,
                intervals={"temperature": of_temperatures[first + i], **intervals},
                selective=selective.selective(confidence, np.asarray(test["plain"].correct[i]), num_resamples),
                detection=found,
                conformal={
                    kind: conformal.coverage(
                        of_example[f"{kind}_covered"],
                        of_example[f"{kind}_size"],
                        of_example["label"].astype(int),
                        num_classes,
                        float(scoring.thresholds[kind][first + i]),
                    )
                    for kind in conformal.KINDS
                },
            )
        )
    return rows


_DOUBTS = ("entropy", "mutual_information")
