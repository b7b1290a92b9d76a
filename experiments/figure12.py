"""Figure 12: label noise on the large network; and a long line, a little beyond whose ends are the ensemble's members."""

from collections.abc import Sequence
from typing import Any

from experiments import figure5, figure8
from experiments.lib import figure, problems, runs
from experiments.lib.figure import Panel, Series
from experiments.lib.problems import Problem

BEYOND = (-0.05, 1.05)
LONGER = 3
"""The paper trains this line for 300 epochs, where standard training has 100: it asks whether such a line exists."""


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Standard training and a line at every level of noise, the long line, and independent networks in pairs."""
    declared = {}
    for noise in problem.noise_levels:
        for method in ("standard", "line"):
            declared[f"{method} {noise}"] = runs.declare(problem.noisy(noise), method, seeds)
    long_line = runs.declare(problem.longer(LONGER), "line", seeds, evaluation__ensemble=BEYOND)
    return declared | {"long line": long_line, "two independent": runs.independent_pairs(problem, seeds)}


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy over label noise; accuracy of the long line's points, and of the ensemble of those beyond its ends."""
    noises = problem.noise_levels
    of_noise = [
        figure.over(method, noises, [results[f"{method} {noise}"] for noise in noises])
        for method in ("standard", "line")
    ]
    of_noise.append(figure8.early_stopping(noises, [results[f"standard {noise}"] for noise in noises]))
    standard = figure.level("standard", results[f"standard {noises[0]}"])
    name = " & ".join(map(str, BEYOND))
    long_line = results["long line"]
    beyond = [Series(f"at α = {alpha}", [[_at(result, alpha)] for result in long_line]) for alpha in BEYOND]
    both = Series(f"ensemble of {name}", [[figure.ensemble(result, name)["accuracy"]] for result in long_line])
    ends = Series("ensemble of the ends", [[figure.ensemble(result, figure5.ENDS)["accuracy"]] for result in long_line])
    two = figure5.two_independent(results["two independent"])
    title = f"the same, the line for {problem.longer(LONGER).num_epochs} epochs"
    return [
        Panel(problem.title, "label noise", "test accuracy (%)", of_noise, percent=True),
        Panel(title, "", "test accuracy (%)", [*beyond, both, ends, standard, two], percent=True),
    ]


def _at(result: dict[str, Any], alpha: float) -> float:
    return next(row["accuracy"] for row in result["points"] if row["name"] == f"at {alpha}")


FIGURE = figure.Figure(
    name="figure12",
    title="Figure 12: the large network: label noise, and points beyond the ends of a long line",
    problems={"paper": (problems.WIDE_RESNET50,), "small": (problems.WIDE_FASHION,)},
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
