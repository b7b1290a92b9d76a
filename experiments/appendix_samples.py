"""Appendix B: several samples of alpha a step: accuracy along a line, and of its ensembles."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4
from experiments.lib import figure, jobs
from experiments.lib.figure import Panel
from experiments.lib.scenarios import Scenario


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """A line for every number of samples."""
    declared = {"standard": jobs.declare(scenario, "standard", seeds)}
    for count in scenario.samples:
        details = {} if count == 1 else {"subspace__num_samples": count}
        declared[f"{count} a step"] = jobs.declare(scenario, "line", seeds, **details)
    return declared


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of points and of ensembles over alpha."""
    return figure.along_and_ensembles(scenario, results)


FIGURE = figure.Figure(
    name="appendix_samples",
    title="Appendix B: several samples a step",
    scenarios=figure4.FIGURE.scenarios,
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
