"""Figure 5: ensembles of P(α) and P(1 − α), with the ensemble of two independent networks."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4
from experiments.lib import figure, jobs
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """The jobs of figure 4, and independent networks in pairs."""
    return figure4.declare(scenario, seeds) | {"two independent": jobs.independent_pairs(scenario, seeds)}


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of the ensemble over alpha, by mean probability."""
    series = [figure.ensembles_along(name, results[name]) for name in figure4.SUBSPACES]
    levels = [figure.level("standard", results["standard"]), two_independent(results["two independent"])]
    return [Panel(scenario.title, "α", "ensemble test accuracy (%)", [*levels, *series], percent=True)]


def two_independent(results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of the ensemble of two independent networks, as a level."""
    return Series("two independent", [[figure.ensemble(result)[metric]] for result in results])


FIGURE = figure.Figure(
    name="figure5",
    title="Figure 5: ensembles of P(α) and P(1 − α)",
    scenarios=figure4.FIGURE.scenarios,
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
