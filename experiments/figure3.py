"""Figure 3: L2 distance and squared cosine of a line's endpoints over training, for β = 0, 1 and 2."""

import json
from collections.abc import Sequence
from typing import Any

from experiments import figure6
from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario

MEASURES = {"l2": "L2 distance of the endpoints", "cosine_squared": "squared cosine"}


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Lines, and independent networks in pairs for their distance at the end."""
    return figure6.lines(scenario, seeds) | {"two independent": jobs.independent_pairs(scenario, seeds)}


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Both measures over epochs. Two independent networks are a level, which is their value at the end."""
    made = []
    for measure, label in MEASURES.items():
        series = [over_training(name, found, measure) for name, found in results.items() if name.startswith("β")]
        at_the_end = [[found["endpoints"]["kernels"][measure][0][1]] for found in results["two independent"]]
        made.append(Panel(scenario.title, "epoch", label, [Series("two independent", at_the_end), *series]))
    return made


def over_training(label: str, results: Sequence[dict[str, Any]], measure: str) -> Series:
    """A measure of the endpoints' shape after every epoch, from metrics.jsonl."""
    values = []
    for result in results:
        lines = (result["folder"] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if row["kind"] == "endpoints"]
        values.append([row[measure] for row in rows])
    return Series(label, values, [row["epoch"] for row in rows])


FIGURE = figure.Figure(
    name="figure3",
    title="Figure 3: L2 distance and squared cosine of the endpoints over training",
    scenarios={"paper": (scenarios.CIFAR10, scenarios.RESNET50), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
