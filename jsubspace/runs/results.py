"""A run's results: what is measured when it has finished, and results.json."""

import logging
import math
import pathlib
import platform
from typing import Any

import flax
import jax
import ml_collections

import jsubspace
from jsubspace import arguments, preemption
from jsubspace.errors import UsageError
from jsubspace.evaluation import measure as measuring
from jsubspace.evaluation import rows, score_names
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.positions import GAUSSIAN, LAYERWISE
from jsubspace.evaluation.report import Report, ValidationReport
from jsubspace.evaluation.survey import Survey, center_alone, survey
from jsubspace.evaluation.tasks import Classification, Task
from jsubspace.runs import adapters, landscape, methods, per_example, schema, settings
from jsubspace.runs.build import Run
from jsubspace.runs.digests import Digest
from jsubspace.runs.summary import best_row
from jsubspace.runs.summary import table as table
from jsubspace.storage import documents, files
from jsubspace.types import Endpoints

log = logging.getLogger(__name__)

RESULTS = "results.json"

RESULTS_BYTES = 2**28
"""The largest size of `RESULTS`. A run with 100 points on 95 corrupted test sets needs 2**23."""

_FIX = "Delete it, and the same command evaluates the run again."


def measure(run: Run, endpoints: Endpoints, workdir: pathlib.Path | None = None) -> dict[str, Any]:
    """What is known of a run's endpoints, after one pass over the test set and one over the validation data.

    Args:
      run: a run.
      endpoints: of the subspace that is evaluated, leaves ``[m, *s]``, on the run's devices.
      workdir: the folder that gets the scores per example (`per_example`), or None.

    Returns:
      `Report.to_json` of the test set, and besides

      test_digest: the digest of the targets of the test set (`digests`).
      validation: `Report.to_json` of the validation data, with ``best``, the name of the point with the lowest NLL there.
        It is None without validation data.
      sharpness, plane: see `landscape`. They are None if they were not asked for.
      shifted: for every corrupted test set that was asked for, ``points`` and ``ensembles`` without intervals.

    Raises:
      UsageError: if a target is wrong.
    """
    settings, task = run.evaluation, run.problem.task
    plan = plan_of(run)
    evaluator = adapters.evaluator(run, task, plan)
    all_rows = evaluator.rows(endpoints, run.evaluated, run.evaluation_key)
    stats = adapters.batch_stats(run, evaluator, all_rows)
    digest = Digest()
    outcomes = adapters.on_test_data(run, evaluator, all_rows, stats, digest)
    report = measuring.report_of(endpoints, run.evaluated, plan, outcomes, task, settings.num_resamples)
    preemption.check()
    _warn_of_scores(report)
    measured = report.to_json() | {
        "test_digest": digest.hexdigest(),
        "validation": _validation(run, endpoints, evaluator, plan, all_rows, stats),
        "sharpness": landscape.sharpness(run, all_rows, plan, stats) if settings.sharpness_batches else None,
        "plane": landscape.loss_plane(run, endpoints) if settings.plane_points else None,
        "shifted": _shifted(run, evaluator, plan, all_rows, stats),
    }
    if workdir is not None:  # Last: until results.json is written, this file may not belong to the old one.
        per_example.write(workdir, plan, outcomes, task)
    return measured


class Midpoint:
    """Tests the midpoint of a run while it trains, on validation data or on the test set (`Run.tested_on`)."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._evaluator = adapters.evaluator(run, run.problem.task, center_alone(run.subspace))

    def __call__(self, endpoints: Endpoints) -> dict[str, float]:
        """Scores of the midpoint, with BatchNorm statistics of its own."""
        stats = adapters.batch_stats(self._run, self._evaluator, endpoints)
        outcomes_of = {"validation": adapters.on_validation_data, "test": adapters.on_test_data}[self._run.tested_on]
        outcomes = outcomes_of(self._run, self._evaluator, endpoints, stats)
        return self._run.problem.task.scores(outcomes.points)[0]


def early_stopping(
    log: list[dict[str, Any]], tested_on: str = "test", task: Task | None = None
) -> dict[str, Any] | None:
    """The best test of the midpoint during training, by accuracy or another main score. None if there was no test.

    On the test set it is optimal early stopping, as in the paper: a bound for the gain of an early stop, because the stop is
    chosen on the data that it is scored on. On validation data it is an early stop that can be done, and its scores are
    those on the validation data. A test without a finite main score is never the best.

    Args:
      log: the rows of metrics.jsonl.
      tested_on: "validation" or "test", the kind of the rows of tests (`Run.tested_on`).
      task: the task of the run. The default is a classification.
    """
    task = task or Classification()
    tests = [row for row in log if row["kind"] == tested_on and row.get("epoch") is not None]
    best = best_row(tests, task.main, sign=1 if task.higher_is_better[task.main] else -1)
    if best is None:
        return None
    scores = {name: best[name] for name in ("epoch", "step", *task.higher_is_better) if name in best}
    return {"tested_on": tested_on} | scores


def describe(config: ml_collections.ConfigDict, measured: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """The content of results.json: settings and circumstances, followed by what was measured.

    schema is `schema.SCHEMA`. config has all settings. versions and devices say what the run used. seconds has the seconds
    of training, over interruptions, and of evaluation. What `measure` returns follows. The caller adds early_stopping, the
    best test during training (`early_stopping`), and finished, whether training had reached its last step.
    """
    devices = jax.devices()
    return {
        "schema": schema.SCHEMA,
        "config": config.to_dict(),
        "versions": {
            "jsubspace": jsubspace.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "python": platform.python_version(),
        },
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "seconds": seconds,
        **measured,
    }


def write(workdir: pathlib.Path, results: dict[str, Any]) -> dict[str, Any]:
    """Writes results.json and returns its content, with lists where there were tuples.

    A number that is not finite is None there, because JSON has no other name for it.

    Raises:
      UsageError: if the file would be larger than `read` allows.
    """
    preemption.check()
    text = documents.to_json(results, indent=2) + "\n"
    if len(text) > RESULTS_BYTES:
        raise UsageError(
            f"{workdir / RESULTS} would have {len(text)} bytes, and may have {RESULTS_BYTES}. Evaluate fewer points: lower "
            "config.evaluation.num_points or config.evaluation.num_random_points, or name fewer corruptions."
        )
    files.write_text(workdir / RESULTS, text)
    written: dict[str, Any] = documents.from_json(text)
    return written


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The content of results.json in today's schema, or None if there is no such file.

    Results of schema 2 are converted (`schema.upgraded`).

    Raises:
      UsageError: if the file is damaged, or another version wrote it.
    """
    path = workdir / RESULTS
    if not path.exists():
        return None
    found = documents.read(path, RESULTS_BYTES, _FIX, nan_is_none=True)  # Older versions wrote NaN.
    try:
        found = schema.upgraded(found)
        settings.check_record(found.get("config"), methods.needed(found.get("config")))
    except schema.OtherSchema as error:
        raise UsageError(
            f"{path} has {error}. Evaluate it again: python -m jsubspace.evaluate --workdir={workdir}."
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}). {_FIX}") from error
    return found


def settings_of(results: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that was measured, as nested dictionaries."""
    return results["config"]


def is_finished(results: dict[str, Any] | None) -> bool:
    """Whether results, as `read` returns them, belong to a finished run."""
    return results is not None and results["finished"]


def _validation(
    run: Run, endpoints: Endpoints, evaluator: Evaluator, plan: Survey, all_rows: Endpoints, stats: Any
) -> dict[str, Any] | None:
    """The report of the validation data, from one pass over it. None without validation data."""
    if not run.problem.data.num_validation:
        return None
    task, resamples = run.problem.task, run.evaluation.num_resamples
    outcomes = adapters.on_validation_data(run, evaluator, all_rows, stats)
    report = measuring.report_of(endpoints, run.evaluated, plan, outcomes, task, resamples, ValidationReport).to_json()
    score = score_names.chosen_by(report)
    best = best_row(report["points"], score, sign=1 if task.higher_is_better[score] else -1)
    return report | {"best": best and best["name"]}


def _warn_of_scores(report: Report) -> None:
    """Says in the log which points have scores that are not finite. Their endpoints are finite, but too large."""
    names = [row.name for row in report.points if not all(map(math.isfinite, row.scores.values()))]
    if names:
        log.warning(
            "%d of %d points have scores that are not finite, the first at %s: the network computes infinite or NaN "
            "outputs there. results.json has null in their place.", len(names), len(report.points), names[0]
        )  # fmt: skip


def plan_of(run: Run) -> Survey:
    """The points and ensembles that the settings of a run ask for."""
    settings = run.evaluation
    kinds = arguments.words(settings.random_points) or usual_kinds(run)
    return survey(
        run.evaluated, settings.num_points, settings.num_random_points, run.evaluation_key, kinds, settings.ensemble
    )


def usual_kinds(run: Run) -> tuple[str, ...]:
    """The random points that the method is known by. A line or curve has no random points."""
    kinds = measuring.usual_kinds(run.evaluated)
    if not kinds:
        return ()
    return (*kinds, *((LAYERWISE,) if run.layerwise else ()), *((GAUSSIAN,) if run.collects else ()))


def _shifted(run: Run, evaluator: Evaluator, plan: Survey, all_rows: Endpoints, stats: Any) -> dict[str, Any]:
    """Points and ensembles on every corrupted test set, with the statistics of clean training data."""
    found, task = {}, run.problem.task
    for name, batches in run.problem.shifted():
        outcomes = adapters.outcomes_of(run, evaluator, all_rows, stats, f"{name} test", batches)
        found[name] = {
            "points": [row.to_json() for row in rows.point_rows(plan, run.evaluated.num_endpoints, outcomes, task)],
            "ensembles": [row.to_json() for row in rows.ensemble_rows(plan, outcomes, task)],
        }
    return found
