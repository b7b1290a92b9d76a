"""Appendix B: several samples of alpha a step: accuracy along a line, and of its ensembles."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4
from experiments.lib import figure, runs
from experiments.lib.figure import Panel
from experiments.lib.problems import Problem


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """A line for every number of samples."""
    declared = {"standard": runs.declare(problem, "standard", seeds)}
    for count in problem.samples:
        details = {} if count == 1 else {"subspace__num_samples": count}
        declared[f"{count} a step"] = runs.declare(problem, "line", seeds, **details)
    return declared


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of points and of ensembles over alpha."""
    return figure.along_and_ensembles(problem, results)


FIGURE = figure.Figure(
    name="appendix_samples",
    title="Appendix B: several samples a step",
    problems=figure4.FIGURE.problems,
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
