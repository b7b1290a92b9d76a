"""Appendix H: the line between two runs that share their first epochs, and between independent ones."""

from collections.abc import Sequence
from typing import Any

from experiments.lib import figure, problems, runs
from experiments.lib.figure import Panel
from experiments.lib.problems import Problem


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Pairs that part after so many epochs; with none, independent ones."""
    declared = {
        "standard": runs.declare(problem, "standard", seeds),
        "0 epochs shared": runs.independent_pairs(problem, seeds),
    }
    for epoch in problem.shared_epochs:
        declared[f"{epoch} epochs shared"] = runs.branches(problem, seeds, epoch)
    return declared


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of points and of ensembles along the line between the two networks, on which nothing was trained."""
    return figure.along_and_ensembles(problem, results)


FIGURE = figure.Figure(
    name="appendix_connectors",
    title="Appendix H: the line between two runs that share their first epochs",
    problems={"paper": (problems.CIFAR10,), "small": (problems.FASHION,)},
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
