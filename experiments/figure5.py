"""Figure 5: ensembles of P(α) and P(1 − α), with the ensemble of two independent networks."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4
from experiments.lib import figure, runs
from experiments.lib.figure import Panel, Series
from experiments.lib.problems import Problem

ENDS = "0.00 & 1.00"


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Those of figure 4, and independent networks in pairs."""
    return figure4.declare(problem, seeds) | {"two independent": runs.independent_pairs(problem, seeds)}


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of the ensemble over alpha, by mean probability."""
    series = [figure.ensembles_along(name, results[name]) for name in figure4.SUBSPACES]
    levels = [figure.level("standard", results["standard"]), two_independent(results["two independent"])]
    return [Panel(problem.title, "α", "ensemble test accuracy (%)", [*levels, *series], percent=True)]


def two_independent(results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of the ensemble of two independent networks, as a level."""
    return Series("two independent", [[figure.ensemble(result, ENDS)[metric]] for result in results])


FIGURE = figure.Figure(
    name="figure5",
    title="Figure 5: ensembles of P(α) and P(1 − α)",
    problems=figure4.FIGURE.problems,
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
