"""Appendix E: both endpoints of a line from one initialisation, and each from its own."""

from collections.abc import Sequence
from typing import Any

from experiments import figure3, figure4
from experiments.lib import figure, jobs
from experiments.lib.figure import Panel
from experiments.lib.scenarios import Scenario


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """A line of either kind."""
    return {
        "standard": jobs.declare(scenario, "standard", seeds),
        "two initialisations": jobs.declare(scenario, "line", seeds),
        "shared initialisation": jobs.declare(scenario, "line", seeds, subspace__shared_init=True),
    }


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy over alpha, and the shape of the line over training."""
    lines = {label: found for label, found in results.items() if label != "standard"}
    shape = [
        Panel(
            scenario.title,
            "epoch",
            label,
            [figure3.over_training(name, found, measure) for name, found in lines.items()],
        )
        for measure, label in figure3.MEASURES.items()
    ]
    return figure.along_and_ensembles(scenario, results) + shape


FIGURE = figure.Figure(
    name="appendix_shared_init",
    title="Appendix E: a shared initialisation",
    scenarios=figure4.FIGURE.scenarios,
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
