"""Figure 10: accuracy and calibration error over the number of epochs, of standard training and a line's midpoint."""

from collections.abc import Sequence
from typing import Any

from experiments.lib import figure, problems, runs
from experiments.lib.figure import Panel
from experiments.lib.problems import Problem

METHODS = ("standard", "line")


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Both methods with every budget; a longer budget is a run of its own, with its own schedule."""
    return {
        f"{method} {factor}": runs.declare(problem.longer(factor), method, seeds)
        for factor in problem.budgets
        for method in METHODS
    }


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Both metrics of the midpoint over epochs."""
    epochs = [problem.longer(factor).num_epochs for factor in problem.budgets]
    metrics = {"accuracy": "test accuracy (%)", "ece": "expected calibration error", "nll": "NLL (nats)"}
    return [
        Panel(
            problem.title,
            "epochs",
            label,
            [
                figure.over(method, epochs, [results[f"{method} {factor}"] for factor in problem.budgets], metric)
                for method in METHODS
            ],
            percent=metric == "accuracy",
        )
        for metric, label in metrics.items()
    ]


FIGURE = figure.Figure(
    name="figure10",
    title="Figure 10: accuracy and calibration over the budget",
    problems={"paper": (problems.RESNET50,), "small": (problems.FASHION,)},
    runs=declare,
    panels=panels,
    columns=3,
)

if __name__ == "__main__":
    figure.command(FIGURE)
