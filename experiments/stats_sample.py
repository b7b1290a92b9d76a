"""How many training images the BatchNorm statistics of a point need: accuracy along a line over the size of the sample.

The paper passes over the whole training set for every point. On ImageNet this takes 1.3 million images for each of 21
points, so `recipes.imagenet_resnet50` takes a sample. This figure shows the cost of a sample where all images can be taken.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario
from jsubspace.evaluation import estimates, survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, build, config_files, trained_endpoints
from jsubspace.runs.build import Run
from jsubspace.storage.documents import write_json
from jsubspace.types import Endpoints

METRICS = {"accuracy": "test accuracy (%)", "nll": "NLL (nats)"}
POINTS = 3
"""The points of the line: its ends and its midpoint."""


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """The lines of the other figures."""
    return {"line": jobs.declare(scenario, "line", seeds)}


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Both metrics over the number of images, which is doubled until all images are taken."""
    measured = [_measured(result["folder"]) for result in results["line"]]
    x = [float(count) for count in measured[0]["images"]]
    made = []
    for metric, label in METRICS.items():
        series = [
            Series(f"α = {alpha:g}", [found[metric][i] for found in measured], x)
            for i, alpha in enumerate(np.linspace(0, 1, POINTS))
        ]
        made.append(Panel(scenario.title, "images", label, series, percent=metric == "accuracy", log_x=True))
    return made


def _measured(folder: pathlib.Path) -> dict[str, Any]:
    """Numbers of images, and each metric as ``[points][numbers]``. The result is kept beside the run."""
    kept = folder.with_name(f"{folder.name}_stats_sample.json")
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    settings = config_files.load(folder)
    run = build.build(settings)
    endpoints, total = run.devices.put(trained_endpoints(run, folder)), run.problem.pipeline.steps_per_epoch
    found: dict[str, Any] = {"images": [], **{metric: [[] for _ in range(POINTS)] for metric in METRICS}}
    for batches in [*(2**k for k in range(total.bit_length()) if 2**k < total), total]:
        settings.evaluation.num_stats_batches = batches
        scores = _scores(run, endpoints)
        found["images"].append(min(batches * settings.data.batch_size, len(run.problem.pipeline.train)))
        for metric in METRICS:
            for i in range(POINTS):
                found[metric][i].append(float(scores[metric][i]))
    write_json(kept, found)
    return found


def _scores(run: Run, endpoints: Endpoints) -> dict[str, np.ndarray]:
    evaluator = adapters.evaluator(run, Classification(), survey.survey(run.evaluated, POINTS))
    stats = adapters.batch_stats(run, evaluator, endpoints)
    outcomes = adapters.on_test_data(run, evaluator, endpoints, stats)
    return estimates.summarize(outcomes.points)


FIGURE = figure.Figure(
    name="stats_sample",
    title="BatchNorm statistics from a sample of the training images",
    scenarios={"paper": (scenarios.CIFAR10,), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
