"""Random averages of SWA's checkpoints, and of a simplex's endpoints: one weight for all, one a layer, one a parameter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import figure4, figure7
from experiments.lib import figure, runs
from experiments.lib.figure import Panel, Series
from experiments.lib.problems import Problem

KINDS = {"random": "one weight for all", "layerwise": "a weight a layer", "weightwise": "a weight a parameter"}


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Methods with the largest m."""
    m = max(problem.simplexes)
    declared = {"standard": runs.declare(problem, "standard", seeds)}
    return declared | {method: figure7.center(problem, method, seeds, m) for method in figure7.METHODS}


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of single random averages, mean over the draws of a run, beside the center and the endpoints."""
    made = []
    for method in figure7.METHODS:
        found = results[method]
        series = [figure.level("center", found)]
        series += [_mean_of(label, found, kind) for kind, label in KINDS.items()]
        series += [_mean_of("endpoints", found, "corner"), figure.level("standard", results["standard"])]
        made.append(Panel(f"{problem.title}: {method}", "", "test accuracy (%)", series, percent=True))
    return made


def _mean_of(label: str, results: Sequence[dict[str, Any]], kind: str) -> Series:
    values = [
        [float(np.mean([row["accuracy"] for row in result["points"] if row["name"].split()[0] == kind]))]
        for result in results
    ]
    return Series(label, values)


FIGURE = figure.Figure(
    name="appendix_averages",
    title="Random averages of checkpoints and endpoints",
    problems=figure4.FIGURE.problems,
    runs=declare,
    panels=panels,
    columns=3,
)

if __name__ == "__main__":
    figure.command(FIGURE)
