"""Figure 7: the center of a simplex against its number of endpoints m, with SWA of m checkpoints."""

from collections.abc import Sequence
from typing import Any

from experiments import figure4
from experiments.lib import figure, jobs
from experiments.lib.figure import Panel
from experiments.lib.scenarios import Scenario

METHODS = ("simplex", "layerwise simplex", "SWA")


def center(scenario: Scenario, method: str, seeds: Sequence[int], m: int, **details: Any) -> list[jobs.Job]:
    """The jobs of a method with m networks. A simplex of two is the line of the other figures."""
    if m == 2 and method != "SWA":
        return jobs.declare(scenario, method.replace("simplex", "line"), seeds, **details)
    field = "optimizer__num_collected" if method == "SWA" else "subspace__num_endpoints"
    return jobs.declare(scenario, method, seeds, **{field: m} | random_points(scenario, method, m) | details)


def random_points(scenario: Scenario, method: str, m: int) -> dict[str, Any]:
    """The setting that adds random points for the largest m: figure 11 and the random averages show them."""
    if m != max(scenario.simplexes):
        return {}
    kinds = "random,layerwise,weightwise" + (",gaussian" if method == "SWA" else "")
    return {"evaluation__random_points": kinds}


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Every method with every m."""
    declared = {"standard": jobs.declare(scenario, "standard", seeds)}
    for method in METHODS:
        declared |= {f"{method} {m}": center(scenario, method, seeds, m) for m in scenario.simplexes}
    return declared


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy of the center over m."""
    ms = scenario.simplexes
    series = [figure.over(method, ms, [results[f"{method} {m}"] for m in ms]) for method in METHODS]
    levels = [figure.level("standard", results["standard"])]
    return [Panel(scenario.title, "m", "test accuracy (%)", [*levels, *series], percent=True)]


FIGURE = figure.Figure(
    name="figure7",
    title="Figure 7: the center of a simplex against its number of endpoints",
    scenarios=figure4.FIGURE.scenarios,
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
