"""Figure 11: ensembles of six models: drawn from a simplex, snapshots, SWA's checkpoints, SWA-Gaussian."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4, figure5, figure7
from experiments.lib import figure, runs
from experiments.lib.figure import Panel, Series
from experiments.lib.problems import Problem

SHOWN = {
    # label: whose runs, and which of their ensembles
    "simplex, random": ("simplex", "6 random"),
    "layerwise simplex, random": ("layerwise simplex", "6 layerwise"),
    "snapshots": ("snapshots", "all corners"),
    "SWA checkpoints": ("SWA", "all corners"),
    "SWA-Gaussian": ("SWA", "6 gaussian"),
    "line, two ends": ("line", figure5.ENDS),
    "two independent": ("two independent", figure5.ENDS),
}


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Methods with the largest m, 6; and ensembles of two for comparison."""
    m = max(problem.simplexes)
    six = {method: figure7.center(problem, method, seeds, m) for method in figure7.METHODS}
    return six | {
        "snapshots": runs.declare(problem, "snapshots", seeds, optimizer__num_collected=m),
        "standard": runs.declare(problem, "standard", seeds),
        "line": runs.declare(problem, "line", seeds),
        "two independent": runs.independent_pairs(problem, seeds),
    }


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy and calibration of the ensembles, by mean probability."""
    made = []
    for metric, label in {"accuracy": "ensemble test accuracy (%)", "nll": "NLL (nats)"}.items():
        series = [
            Series(shown, [[figure.ensemble(result, name)[metric]] for result in results[whose]])
            for shown, (whose, name) in SHOWN.items()
        ]
        series.append(figure.level("standard", results["standard"], metric))
        made.append(Panel(problem.title, "", label, series, percent=metric == "accuracy"))
    return made


FIGURE = figure.Figure(
    name="figure11",
    title="Figure 11: ensembles of six models",
    problems=figure4.FIGURE.problems,
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
