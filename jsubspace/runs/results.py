"""A run's results: what is measured when it has finished, and results.json."""

import json
import pathlib
import platform
from typing import Any

import flax
import jax
import ml_collections

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.evaluation import measure as measuring
from jsubspace.evaluation import rows, tables
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.survey import GAUSSIAN, LAYERWISE, Survey, center_alone, survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, landscape, per_example, schema
from jsubspace.runs import config as config_lib
from jsubspace.runs.build import Run
from jsubspace.storage.writer import write_json
from jsubspace.types import Endpoints

RESULTS = "results.json"


def measure(run: Run, endpoints: Endpoints, workdir: pathlib.Path | None = None) -> dict[str, Any]:
    """What is known of a run's endpoints, after one pass over the test set.

    Args:
      run: a run.
      endpoints: of the subspace that is evaluated, leaves ``[m, *s]``, on the run's devices.
      workdir: the folder that gets the scores per example (`per_example`), or None.

    Returns:
      `Report.to_json` of the test set, and besides

      sharpness, plane: see `landscape`. They are None if they were not asked for.
      shifted: for every corrupted test set that was asked for, ``points`` and ``ensembles`` without intervals.
    """
    settings, task = run.evaluation, Classification(run.evaluation.num_bins)
    plan = _plan(run)
    evaluator = adapters.evaluator(run, task, plan)
    all_rows = evaluator.rows(endpoints, run.evaluated, run.evaluation_key)
    stats = adapters.batch_stats(run, evaluator, all_rows)
    outcomes = adapters.test_outcomes(run, evaluator, all_rows, stats)
    if workdir is not None:
        per_example.write(workdir, plan, outcomes)
    report = measuring.report_of(endpoints, run.evaluated, plan, outcomes, task, settings.num_resamples)
    return report.to_json() | {
        "sharpness": landscape.sharpness(run, all_rows, plan, stats) if settings.sharpness_batches else None,
        "plane": landscape.loss_plane(run, endpoints) if settings.plane_points else None,
        "shifted": _shifted(run, evaluator, task, plan, all_rows, stats),
    }


class Midpoint:
    """Tests the midpoint of a run while it trains."""

    def __init__(self, run: Run) -> None:
        self._run, self._task = run, Classification(run.evaluation.num_bins)
        self._evaluator = adapters.evaluator(run, self._task, center_alone(run.subspace))

    def __call__(self, endpoints: Endpoints) -> dict[str, float]:
        """Scores of the midpoint, with BatchNorm statistics of its own."""
        stats = adapters.batch_stats(self._run, self._evaluator, endpoints)
        outcomes = adapters.test_outcomes(self._run, self._evaluator, endpoints, stats)
        return self._task.scores(outcomes.points)[0]


def early_stopping(log: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The best test of the midpoint during training, by accuracy: optimal early stopping. None if there was no test.

    It is optimal because it is chosen on the test set: a bound for the gain of an early stop, as in the paper.

    Args:
      log: the rows of metrics.jsonl.
    """
    tests = [row for row in log if row["kind"] == "test"]
    if not tests:
        return None
    best = max(tests, key=lambda row: row["accuracy"])
    return {name: best[name] for name in ("epoch", "step", *Classification.higher_is_better) if name in best}


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
    """Writes results.json and returns its content, with lists where there were tuples."""
    write_json(workdir / RESULTS, results)
    return json.loads((workdir / RESULTS).read_text(encoding="utf-8"))


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The content of results.json in today's schema, or None if there is no such file.

    Results of schema 2 are converted (`schema.upgraded`).

    Raises:
      UsageError: if the file is damaged, or another version wrote it.
    """
    path = workdir / RESULTS
    if not path.is_file():
        return None
    try:
        return schema.upgraded(json.loads(path.read_text(encoding="utf-8")))
    except schema.OtherSchema as error:
        raise UsageError(
            f"{path} has {error}. Evaluate it again: python -m jsubspace.evaluate --workdir={workdir}."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is damaged ({type(error).__name__}: {error}). Delete it, and the same command evaluates the run again."
        ) from error


def settings_of(results: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that was measured, as nested dictionaries."""
    return results["config"]


def is_finished(results: dict[str, Any] | None) -> bool:
    """Whether results, as `read` returns them, belong to a finished run."""
    return results is not None and results["finished"]


def table(results: dict[str, Any]) -> str:
    """The results for a terminal: the report, and one line for every other thing that was measured."""
    lines = [tables.table(results)]
    if best := results["early_stopping"]:
        lines += ["", f"best test of the midpoint: accuracy {best['accuracy']:.4f} after epoch {best['epoch']:g}"]
    for name, found in (results["sharpness"] or {}).items():
        lines += [
            "",
            f"largest eigenvalue of the Hessian at {name}: {found['eigenvalue']:.4g}, residual {found['residual']:.2g}{_unsure(found)}",
        ]
    for name, shifted in results["shifted"].items():
        best = max(shifted["points"], key=lambda row: row["accuracy"])
        midpoint = next(row for row in shifted["points"] if "center" in row["roles"])
        lines += ["", f"{name}: midpoint {midpoint['accuracy']:.4f}, best at {best['name']} {best['accuracy']:.4f}"]
    return "\n".join(lines)


def _unsure(found: dict[str, float]) -> str:
    """A warning if power iteration has not converged: the residual is more than one hundredth of the eigenvalue."""
    return " (not converged)" if found["residual"] > 0.01 * abs(found["eigenvalue"]) else ""


def _plan(run: Run) -> Survey:
    settings = run.evaluation
    kinds = config_lib.split(settings.random_points) or usual_kinds(run)
    return survey(
        run.evaluated, settings.num_points, settings.num_random_points, run.evaluation_key, kinds, settings.ensemble
    )


def usual_kinds(run: Run) -> tuple[str, ...]:
    """The random points that the method is known by. A line or curve has no random points."""
    kinds = measuring.usual_kinds(run.evaluated)
    if not kinds:
        return ()
    return (*kinds, *((LAYERWISE,) if run.layerwise else ()), *((GAUSSIAN,) if run.collects else ()))


def _shifted(
    run: Run, evaluator: Evaluator, task: Classification, plan: Survey, all_rows: Endpoints, stats: Any
) -> dict[str, Any]:
    """Points and ensembles on every corrupted test set, with the statistics of clean training data."""
    found = {}
    for name, batches in run.shifted_batches():
        outcomes = evaluator.outcomes(all_rows, stats, adapters.scored(batches))
        found[name] = {
            "points": [row.to_json() for row in rows.point_rows(plan, run.evaluated.num_endpoints, outcomes, task)],
            "ensembles": [row.to_json() for row in rows.ensemble_rows(plan, outcomes, task)],
        }
    return found
