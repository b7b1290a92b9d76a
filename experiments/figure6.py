"""Figure 6: the strength of the penalty, β = 0, 1 and 2: accuracy along a line, and of its ensembles."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4, figure5
from experiments.lib import figure, jobs
from experiments.lib.figure import Panel
from experiments.lib.scenarios import Scenario

BETAS = (0.0, 1.0, 2.0)


def lines(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """A line for every strength. The line with the default strength also belongs to the other figures."""
    return {
        f"β = {beta:g}": jobs.declare(scenario, "line", seeds, **({} if beta == 1 else {"penalty__beta": beta}))
        for beta in BETAS
    }


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Lines and the baselines."""
    baselines = {
        "standard": jobs.declare(scenario, "standard", seeds),
        "two independent": jobs.independent_pairs(scenario, seeds),
    }
    return baselines | lines(scenario, seeds)


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of P(alpha), and of the ensemble of P(alpha) and P(1 - alpha)."""
    two = figure5.two_independent(results["two independent"])
    shown = {label: found for label, found in results.items() if label != "two independent"}
    return figure.along_and_ensembles(scenario, shown, [two])


FIGURE = figure.Figure(
    name="figure6",
    title="Figure 6: the strength of the penalty",
    scenarios=figure4.FIGURE.scenarios,
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
