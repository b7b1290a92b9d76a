"""Figure 4: accuracy along lines, layerwise lines and curves, with standard training."""

from collections.abc import Sequence
from typing import Any

from experiments.lib import figure, problems, runs
from experiments.lib.figure import Panel
from experiments.lib.problems import Problem

SUBSPACES = ("line", "layerwise line", "curve")


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """The runs of figures 4 and 5 that train."""
    return {name: runs.declare(problem, name, seeds) for name in ("standard", *SUBSPACES)}


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of P(alpha) over alpha."""
    series = [figure.along(name, results[name]) for name in SUBSPACES]
    levels = [figure.level("standard", results["standard"])]
    return [Panel(problem.title, "α", "test accuracy (%)", [*levels, *series], percent=True)]


FIGURE = figure.Figure(
    name="figure4",
    title="Figure 4: accuracy of P(α) along subspaces",
    problems={"paper": (problems.CIFAR10, problems.TINY_IMAGENET), "small": (problems.FASHION,)},
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
