"""Appendix H: the line between two runs that share their first epochs, and between independent ones."""

from collections.abc import Sequence
from typing import Any

from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel
from experiments.lib.scenarios import Scenario


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Pairs of runs that share their first epochs, and independent pairs, which share no epoch."""
    declared = {
        "standard": jobs.declare(scenario, "standard", seeds),
        "0 epochs shared": jobs.independent_pairs(scenario, seeds),
    }
    for epoch in scenario.shared_epochs:
        declared[f"{epoch} epochs shared"] = jobs.branches(scenario, seeds, epoch)
    return declared


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of points and of ensembles along the line between the two networks, on which nothing was trained."""
    return figure.along_and_ensembles(scenario, results)


FIGURE = figure.Figure(
    name="appendix_connectors",
    title="Appendix H: the line between two runs that share their first epochs",
    scenarios={"paper": (scenarios.CIFAR10,), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
