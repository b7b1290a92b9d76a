"""What the demo trains: handwritten digits with 40 % random training labels, and six ways to train on them.

The first 574 of the 1,437 training labels in a fixed order are replaced by labels that are drawn from all ten classes. By
chance 54 of them are right, so 520 labels are wrong. The labels of the test set and of validation images are the true ones.
All runs see the same wrong labels (`jsubspace.data.labels`).
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.lib import jobs
from experiments.lib.figure import midpoint
from experiments.lib.jobs import Job
from experiments.lib.scenarios import Scenario
from jsubspace import evaluate
from jsubspace.runs import build
from jsubspace.runs import results as run_results
from jsubspace.storage.checkpoint import FOLDER, Checkpoints
from jsubspace.storage.documents import write_json

NOISE = 0.4
EVERY_EPOCHS = 5
"""How often early stopping tests, in epochs. It keeps these checkpoints."""
VALIDATION = {"data.num_validation": 200}

DIGITS = Scenario(
    "digits",
    "handwritten digits",
    "configs/digits_cresnet8_standard.py",
    60,
    (("num_devices", 1), ("evaluation.num_points", 11)),
    one_core=True,
)
NOISY = DIGITS.noisy(NOISE)
QUICK = dataclasses.replace(
    NOISY,
    name=f"{NOISY.name}_quick",
    num_epochs=5,
    settings=(
        *NOISY.settings,
        *(("optimizer.warmup_epochs", 1), ("evaluation.num_resamples", 20)),
        *(("model.name", "mlp"), ("model.depth", 1), ("model.width", 8)),
    ),
)
"""Five epochs of a small network that compiles at once, for a test."""

STANDARD, LINE, SMOOTHED, STOPPED = "standard", "line", "label smoothing", "early stopping"
CONTROL, CENTERED = "standard, lr/2 and decay·2", "line, center"

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    STANDARD: ("standard", {}),
    LINE: ("line", {}),
    CONTROL: ("standard", {"optimizer.learning_rate": 0.05, "optimizer.weight_decay": 2e-4}),
    STOPPED: ("standard", VALIDATION),
    SMOOTHED: ("standard", {}),
    CENTERED: ("line", {"subspace.pull_back": "center", "subspace.spread_growth": 0.5}),
}
"""Every way's method in `jobs.METHODS`, and the settings that it adds. The strength of label smoothing is added later."""

STRENGTHS = (0.1, 0.2, 0.4)
"""The strengths of label smoothing. Validation images choose one, in runs with a seed that is not reported."""
CHOOSING_SEED = 100


def declare(scenario: Scenario, way: str, seeds: Sequence[int], strength: float | None = None) -> list[Job]:
    """One `Job` per seed.

    Args:
      scenario: `NOISY` or `QUICK`.
      way: one of `WAYS`.
      seeds: one job is declared for each.
      strength: of label smoothing, if this is the way.
    """
    method, details = WAYS[way]
    settings = dict(jobs.METHODS[method])
    if way == SMOOTHED:
        details = details | {"optimizer.label_smoothing": strength}
    if way == STOPPED:
        kept = tuple(range(EVERY_EPOCHS, scenario.num_epochs + 1, EVERY_EPOCHS))
        settings |= {"evaluation.every_epochs": EVERY_EPOCHS, "keep_epochs": kept}
    return [Job(scenario, method, seed, tuple(settings.items()), tuple(details.items())) for seed in seeds]


def strengths(scenario: Scenario) -> dict[float, Job]:
    """The runs that choose the strength of label smoothing. They keep validation images."""
    found = {}
    for strength in STRENGTHS:
        (job,) = declare(scenario, SMOOTHED, [CHOOSING_SEED], strength)
        found[strength] = dataclasses.replace(job, details=(*job.details, *VALIDATION.items()))
    return found


def best_strength(scenario: Scenario, root: pathlib.Path) -> float | None:
    """The strength with the best accuracy on validation images, then the lowest NLL there. None if a run is not finished."""
    judged = {}
    for strength, job in strengths(scenario).items():
        found = jobs.results(job, root)
        if found is None:
            return None
        row = midpoint(found["validation"])
        judged[strength] = (row["accuracy"], -row["nll"])
    return max(judged, key=lambda strength: judged[strength])


def stopped(folder: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """The results on test data of the checkpoint that was the best on validation images, by accuracy. A file keeps them.

    Args:
      folder: the folder of a finished run that kept the checkpoints of its tests.
      result: the content of its results.json.
    """
    step = result["early_stopping"]["step"]
    kept = folder / f"stopped_at_{step}.json"
    if not kept.is_file():
        run = build.build(evaluate.load_settings(folder))
        checkpoints: Checkpoints[Any]
        with Checkpoints(folder / FOLDER, read_only=True) as checkpoints:
            state, _ = checkpoints.restore(run.state_shape, run.devices.replicated, step)
        write_json(kept, run_results.measure(run, state.endpoints, None))
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found
