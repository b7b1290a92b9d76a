"""How many training images a point's BatchNorm statistics need: accuracy of a line's points over the size of the sample.

The paper passes over the whole training set for every point. On ImageNet that is 1.3 million images for each of 21 points,
and `recipes.imagenet_resnet50` takes a sample; here is what a sample costs where all can be taken.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lib import figure, problems, runs
from experiments.lib.figure import Panel, Series
from experiments.lib.problems import Problem
from jsubspace.evaluation import estimates, survey
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.runs import build, config_files, trained_endpoints
from jsubspace.runs.build import Run
from jsubspace.storage.writer import write_json
from jsubspace.types import Endpoints

METRICS = {"accuracy": "test accuracy (%)", "nll": "NLL (nats)"}
POINTS = 3
"""Of the line: its ends and its midpoint."""


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """The lines of the other figures."""
    return {"line": runs.declare(problem, "line", seeds)}


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Both metrics over the number of images, which are doubled until it is all."""
    measured = [_measured(result["folder"]) for result in results["line"]]
    x = [float(count) for count in measured[0]["images"]]
    made = []
    for metric, label in METRICS.items():
        series = [
            Series(f"α = {alpha:g}", [found[metric][i] for found in measured], x)
            for i, alpha in enumerate(np.linspace(0, 1, POINTS))
        ]
        made.append(Panel(problem.title, "images", label, series, percent=metric == "accuracy", log_x=True))
    return made


def _measured(folder: pathlib.Path) -> dict[str, Any]:
    """Of a run: numbers of images, and each metric ``[points][numbers]``; kept beside the run."""
    kept = folder.with_name(f"{folder.name}_stats_sample.json")
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    settings = config_files.load(folder)
    run = build.build(settings)
    endpoints, total = run.devices.put(trained_endpoints(run, folder)), run.pipeline.steps_per_epoch
    found: dict[str, Any] = {"images": [], **{metric: [[] for _ in range(POINTS)] for metric in METRICS}}
    for batches in [*(2**k for k in range(total.bit_length()) if 2**k < total), total]:
        settings.evaluation.num_stats_batches = batches
        scores = _scores(run, endpoints)
        found["images"].append(min(batches * settings.data.batch_size, len(run.pipeline.train)))
        for metric in METRICS:
            for i in range(POINTS):
                found[metric][i].append(float(scores[metric][i]))
    write_json(kept, found)
    return found


def _scores(run: Run, endpoints: Endpoints) -> dict[str, np.ndarray]:
    evaluator = Evaluator(run, survey.survey(run.evaluated, POINTS))
    outcomes = evaluator.outcomes(endpoints, evaluator.batch_stats(endpoints), run.pipeline.test_batches())
    return estimates.summarize(outcomes.points)


FIGURE = figure.Figure(
    name="stats_sample",
    title="BatchNorm statistics from a sample of the training images",
    problems={"paper": (problems.CIFAR10,), "small": (problems.FASHION,)},
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
