"""Figure 10: accuracy and calibration error over the number of epochs, of standard training and a line's midpoint."""

from collections.abc import Sequence
from typing import Any

from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel
from experiments.lib.scenarios import Scenario

METHODS = ("standard", "line")


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Both methods with every budget. Each budget is a run of its own, with its own schedule."""
    return {
        f"{method} {factor}": jobs.declare(scenario.longer(factor), method, seeds)
        for factor in scenario.budgets
        for method in METHODS
    }


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Both metrics of the midpoint over epochs."""
    epochs = [scenario.longer(factor).num_epochs for factor in scenario.budgets]
    metrics = {"accuracy": "test accuracy (%)", "ece": "expected calibration error", "nll": "NLL (nats)"}
    return [
        Panel(
            scenario.title,
            "epochs",
            label,
            [
                figure.over(method, epochs, [results[f"{method} {factor}"] for factor in scenario.budgets], metric)
                for method in METHODS
            ],
            percent=metric == "accuracy",
        )
        for metric, label in metrics.items()
    ]


FIGURE = figure.Figure(
    name="figure10",
    title="Figure 10: accuracy and calibration over the budget",
    scenarios={"paper": (scenarios.RESNET50,), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
