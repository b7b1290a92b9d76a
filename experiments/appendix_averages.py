"""Random averages of SWA's checkpoints and of a simplex's endpoints, with one weight in all, one per layer, or one per parameter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import figure4, figure7
from experiments.lib import figure, jobs
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario

KINDS = {"random": "one weight for all", "layerwise": "a weight a layer", "weightwise": "a weight a parameter"}


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Methods with the largest m."""
    m = max(scenario.simplexes)
    declared = {"standard": jobs.declare(scenario, "standard", seeds)}
    return declared | {method: figure7.center(scenario, method, seeds, m) for method in figure7.METHODS}


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of single random averages (the mean over the draws of a run), beside the center and the endpoints."""
    made = []
    for method in figure7.METHODS:
        found = results[method]
        series = [figure.level("center", found)]
        series += [_mean_of(label, found, kind) for kind, label in KINDS.items()]
        series += [_mean_of("endpoints", found, "corner"), figure.level("standard", results["standard"])]
        made.append(Panel(f"{scenario.title}: {method}", "", "test accuracy (%)", series, percent=True))
    return made


def _mean_of(label: str, results: Sequence[dict[str, Any]], kind: str) -> Series:
    values = [
        [float(np.mean([row["accuracy"] for row in result["points"] if row["kind"] == kind]))] for result in results
    ]
    return Series(label, values)


FIGURE = figure.Figure(
    name="appendix_averages",
    title="Random averages of checkpoints and endpoints",
    scenarios=figure4.FIGURE.scenarios,
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
