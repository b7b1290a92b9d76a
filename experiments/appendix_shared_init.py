"""Appendix E: both endpoints of a line from one initialisation, and each from its own."""

from collections.abc import Sequence
from typing import Any

from experiments import figure3, figure4
from experiments.lib import figure, runs
from experiments.lib.figure import Panel
from experiments.lib.problems import Problem


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """A line of either kind."""
    return {
        "standard": runs.declare(problem, "standard", seeds),
        "two initialisations": runs.declare(problem, "line", seeds),
        "shared initialisation": runs.declare(problem, "line", seeds, subspace__shared_init=True),
    }


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy over alpha, and the shape of the line over training."""
    lines = {label: found for label, found in results.items() if label != "standard"}
    shape = [
        Panel(
            problem.title,
            "epoch",
            label,
            [figure3.over_training(name, found, measure) for name, found in lines.items()],
        )
        for measure, label in figure3.MEASURES.items()
    ]
    return figure.along_and_ensembles(problem, results) + shape


FIGURE = figure.Figure(
    name="appendix_shared_init",
    title="Appendix E: a shared initialisation",
    problems=figure4.FIGURE.problems,
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
