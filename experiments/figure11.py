"""Figure 11: ensembles of six models: drawn from a simplex, snapshots, SWA's checkpoints, SWA-Gaussian."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4, figure7
from experiments.lib import figure, jobs
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario

SHOWN = {
    # label: the jobs' label, and the kind of their ensemble
    "simplex, random": ("simplex", "random"),
    "layerwise simplex, random": ("layerwise simplex", "layerwise"),
    "snapshots": ("snapshots", "ends"),
    "SWA checkpoints": ("SWA", "ends"),
    "SWA-Gaussian": ("SWA", "gaussian"),
    "line, two ends": ("line", "ends"),
    "two independent": ("two independent", "ends"),
}


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """The methods with the largest m, which is 6, and ensembles of two networks for comparison."""
    m = max(scenario.simplexes)
    six = {method: figure7.center(scenario, method, seeds, m) for method in figure7.METHODS}
    return six | {
        "snapshots": jobs.declare(scenario, "snapshots", seeds, optimizer__num_collected=m),
        "standard": jobs.declare(scenario, "standard", seeds),
        "line": jobs.declare(scenario, "line", seeds),
        "two independent": jobs.independent_pairs(scenario, seeds),
    }


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy and calibration of the ensembles, by mean probability."""
    made = []
    for metric, y_label in {"accuracy": "ensemble test accuracy (%)", "nll": "NLL (nats)"}.items():
        series = [
            Series(shown, [[figure.ensemble(result, kind)[metric]] for result in results[label]])
            for shown, (label, kind) in SHOWN.items()
        ]
        series.append(figure.level("standard", results["standard"], metric))
        made.append(Panel(scenario.title, "", y_label, series, percent=metric == "accuracy"))
    return made


FIGURE = figure.Figure(
    name="figure11",
    title="Figure 11: ensembles of six models",
    scenarios=figure4.FIGURE.scenarios,
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
