"""Figure 12: label noise on the large network, and an ensemble of points a little beyond the ends of a long line."""

import math
from collections.abc import Sequence
from typing import Any

from experiments import figure5, figure8
from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario

BEYOND = (-0.05, 1.05)
LONGER = 3
"""The paper trains this line for 300 epochs and standard training for 100, because it asks whether such a line exists."""


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Standard training and a line at every level of noise, the long line, and independent networks in pairs."""
    declared = {}
    for noise in scenario.noise_levels:
        for method in ("standard", "line"):
            declared[f"{method} {noise}"] = jobs.declare(scenario.noisy(noise), method, seeds)
    long_line = jobs.declare(scenario.longer(LONGER), "line", seeds, evaluation__ensemble=BEYOND)
    return declared | {"long line": long_line, "two independent": jobs.independent_pairs(scenario, seeds)}


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy over label noise, and accuracy of points beyond the ends of the long line and of ensembles."""
    noises = scenario.noise_levels
    of_noise = [
        figure.over(method, noises, [results[f"{method} {noise}"] for noise in noises])
        for method in ("standard", "line")
    ]
    of_noise.append(figure8.early_stopping(noises, [results[f"standard {noise}"] for noise in noises]))
    standard = figure.level("standard", results[f"standard {noises[0]}"])
    long_line = results["long line"]
    beyond = [Series(f"at α = {alpha}", [[_at(result, alpha)] for result in long_line]) for alpha in BEYOND]
    both = Series(
        f"ensemble of {' & '.join(map(str, BEYOND))}",
        [[figure.ensemble(result, "listed")["accuracy"]] for result in long_line],
    )
    ends = Series("ensemble of the ends", [[figure.ensemble(result)["accuracy"]] for result in long_line])
    two = figure5.two_independent(results["two independent"])
    title = f"the same, the line for {scenario.longer(LONGER).num_epochs} epochs"
    return [
        Panel(scenario.title, "label noise", "test accuracy (%)", of_noise, percent=True),
        Panel(title, "", "test accuracy (%)", [*beyond, both, ends, standard, two], percent=True),
    ]


def _at(result: dict[str, Any], alpha: float) -> float:
    """Accuracy of the point that was asked for at ``alpha``, which is recorded as float32."""
    listed = [row for row in result["points"] if row["kind"] == "listed"]
    return next(row["accuracy"] for row in listed if math.isclose(row["alpha"], alpha, rel_tol=1e-6))


FIGURE = figure.Figure(
    name="figure12",
    title="Figure 12: the large network: label noise, and points beyond the ends of a long line",
    scenarios={"paper": (scenarios.WIDE_RESNET50,), "small": (scenarios.WIDE_FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
