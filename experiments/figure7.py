"""Figure 7: the center of a simplex against its number of endpoints m, with SWA of m checkpoints."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4
from experiments.lib import figure, runs
from experiments.lib.figure import Panel
from experiments.lib.problems import Problem

METHODS = ("simplex", "layerwise simplex", "SWA")


def center(problem: Problem, method: str, seeds: Sequence[int], m: int, **details: Any) -> list[runs.Run]:
    """The runs of a method with m networks; a simplex of two is the line that is there already."""
    if m == 2 and method != "SWA":
        return runs.declare(problem, method.replace("simplex", "line"), seeds, **details)
    field = "optimizer__num_collected" if method == "SWA" else "subspace__num_endpoints"
    return runs.declare(problem, method, seeds, **{field: m} | random_points(problem, method, m) | details)


def random_points(problem: Problem, method: str, m: int) -> dict[str, Any]:
    """What figure 11 and the random averages look at, of the largest m: points that are drawn."""
    if m != max(problem.simplexes):
        return {}
    kinds = "random,layerwise,weightwise" + (",gaussian" if method == "SWA" else "")
    return {"evaluation__random_points": kinds}


def declare(problem: Problem, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
    """Every method with every m."""
    declared = {"standard": runs.declare(problem, "standard", seeds)}
    for method in METHODS:
        declared |= {f"{method} {m}": center(problem, method, seeds, m) for m in problem.simplexes}
    return declared


def panels(problem: Problem, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of the center over m."""
    ms = problem.simplexes
    series = [figure.over(method, ms, [results[f"{method} {m}"] for m in ms]) for method in METHODS]
    levels = [figure.level("standard", results["standard"])]
    return [Panel(problem.title, "m", "test accuracy (%)", [*levels, *series], percent=True)]


FIGURE = figure.Figure(
    name="figure7",
    title="Figure 7: the center of a simplex against its number of endpoints",
    problems=figure4.FIGURE.problems,
    runs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
