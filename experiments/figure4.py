"""Figure 4: accuracy along lines, layerwise lines and curves, with standard training."""

from collections.abc import Sequence
from typing import Any

from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel
from experiments.lib.scenarios import Scenario

SUBSPACES = ("line", "layerwise line", "curve")


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """The runs of figures 4 and 5 that train."""
    return {name: jobs.declare(scenario, name, seeds) for name in ("standard", *SUBSPACES)}


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of P(alpha) over alpha."""
    series = [figure.along(name, results[name]) for name in SUBSPACES]
    levels = [figure.level("standard", results["standard"])]
    return [Panel(scenario.title, "α", "test accuracy (%)", [*levels, *series], percent=True)]


FIGURE = figure.Figure(
    name="figure4",
    title="Figure 4: accuracy of P(α) along subspaces",
    scenarios={"paper": (scenarios.CIFAR10, scenarios.TINY_IMAGENET), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
