"""Figure 6: the strength of the penalty, β = 0, 1 and 2: accuracy along a line, and of its ensembles."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4, figure5
from experiments.lib import figure, runs
from experiments.lib.figure import Panel
from experiments.lib.problems import Problem

BETAS = (0.0, 1.0, 2.0)


def lines(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """A line for every strength; the one with the default is that of the other figures."""
    return {
        f"β = {beta:g}": runs.declare(problem, "line", seeds, **({} if beta == 1 else {"penalty__beta": beta}))
        for beta in BETAS
    }


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Lines and the baselines."""
    baselines = {
        "standard": runs.declare(problem, "standard", seeds),
        "two independent": runs.independent_pairs(problem, seeds),
    }
    return baselines | lines(problem, seeds)


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of P(alpha), and of the ensemble of P(alpha) and P(1 - alpha)."""
    two = figure5.two_independent(results["two independent"])
    shown = {label: found for label, found in results.items() if label != "two independent"}
    return figure.along_and_ensembles(problem, shown, [two])


FIGURE = figure.Figure(
    name="figure6",
    title="Figure 6: the strength of the penalty",
    problems=figure4.FIGURE.problems,
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
