"""Figure 9: accuracy along a line on clean and corrupted test data, of single points, ensembles and points compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """A line and standard training."""
    return {name: jobs.declare(scenario, name, seeds) for name in ("standard", "line")}


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy over alpha on the clean and on every corrupted test set, and the differences to the midpoint on each."""
    made, differences = [], []
    for name in ("clean", *results["line"][0]["shifted"]):
        on_set = {label: [_tested_on(result, name) for result in found] for label, found in results.items()}
        line = figure.along("line", on_set["line"])
        both = figure.ensembles_along("line, ensemble", on_set["line"])
        standard = figure.level("standard", on_set["standard"])
        title = f"{scenario.title}, {name.replace('_', ' ')}"
        made.append(Panel(title, "α", "test accuracy (%)", [standard, line, both], percent=True))
        values = np.array(line.y)
        at_middle = values[:, len(line.x or ()) // 2]
        relative = (values - at_middle[:, None]) / at_middle[:, None]
        differences.append(Series(name.replace("_", " "), relative.tolist(), line.x))
    made.append(Panel("against the midpoint", "α", "relative difference (%)", differences, percent=True))
    return made


def _tested_on(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The rows of one of the test sets."""
    return result if name == "clean" else result["shifted"][name]


FIGURE = figure.Figure(
    name="figure9",
    title="Figure 9: accuracy along a line on clean and corrupted test data",
    scenarios={"paper": (scenarios.RESNET50, scenarios.WIDE_RESNET50), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
