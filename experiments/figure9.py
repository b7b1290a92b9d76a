"""Figure 9: accuracy along a line on clean and corrupted test data, of single points, ensembles and points compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lib import figure, problems, runs
from experiments.lib.figure import Panel, Series
from experiments.lib.problems import Problem


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """A line and standard training."""
    return {name: runs.declare(problem, name, seeds) for name in ("standard", "line")}


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """For the clean and every corrupted test set accuracy over alpha; then the differences to the midpoint there."""
    made, differences = [], []
    for name in ("clean", *results["line"][0]["shifted"]):
        on_set = {label: [_tested_on(result, name) for result in found] for label, found in results.items()}
        line = figure.along("line", on_set["line"])
        both = figure.ensembles_along("line, ensemble", on_set["line"])
        standard = Series("standard", [[result["points"][0]["accuracy"]] for result in on_set["standard"]])
        title = f"{problem.title}, {name.replace('_', ' ')}"
        made.append(Panel(title, "α", "test accuracy (%)", [standard, line, both], percent=True))
        values = np.array(line.y)
        at_middle = values[:, len(line.x or ()) // 2]
        relative = (values - at_middle[:, None]) / at_middle[:, None]
        differences.append(Series(name.replace("_", " "), relative.tolist(), line.x))
    made.append(Panel("against the midpoint", "α", "relative difference (%)", differences, percent=True))
    return made


def _tested_on(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The results on one of the test sets."""
    return result if name == "clean" else result["shifted"][name] | {"midpoint": result["midpoint"]}


FIGURE = figure.Figure(
    name="figure9",
    title="Figure 9: accuracy along a line on clean and corrupted test data",
    problems={"paper": (problems.RESNET50, problems.WIDE_RESNET50), "small": (problems.FASHION,)},
    runs=declare,
    panels=panels,
    columns=4,
)

if __name__ == "__main__":
    figure.command(FIGURE)
