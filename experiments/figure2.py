"""Figure 2: test error on the plane through three endpoints, for a curve, a simplex and a line.

A line has two endpoints. The third point of its plane is a network of standard training, as in the paper.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib import figure, jobs, plots, scenarios
from experiments.lib.scenarios import Scenario
from jsubspace.runs import build, config_files, landscape, trained_endpoints
from jsubspace.storage.documents import write_json
from jsubspace.types import Endpoints

CORNERS = {
    "curve": ("ω1", "ω2", "ω3 (bend)"),
    "simplex": ("ω1", "ω2", "ω3"),
    "line": ("ω1", "ω2", "standard"),
}


@dataclasses.dataclass
class Plane:
    """Test error on a grid.

    Attributes:
      title: the line above the plane.
      kind: the subspace.
      names: the names of the corners.
      corners: ``[3, 2]``, their coordinates, in units of L2 distance.
      x, y: ``[g]``, coordinates of the grid.
      error: ``[g, g]``, row by row.
    """

    title: str
    kind: str
    names: tuple[str, ...]
    corners: list[list[float]]
    x: list[float]
    y: list[float]
    error: list[list[float]]


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """One job of each kind, with the first seed."""
    details: dict[str, dict[str, Any]] = {"simplex": {"subspace__num_endpoints": 3}}
    return {
        kind: jobs.declare(scenario, kind, seeds[:1], **details.get(kind, {}))
        for kind in ("curve", "simplex", "line", "standard")
    }


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Plane]:
    """A plane for each subspace."""
    made = []
    for kind, names in CORNERS.items():
        folder = results[kind][0]["folder"]
        third = results["standard"][0]["folder"] if kind == "line" else None
        found = _plane(folder, third, scenario.plane_points)
        error = (1 - np.array(found["accuracy"])).tolist()
        made.append(Plane(f"{scenario.title}: {kind}", kind, names, found["corners"], found["x"], found["y"], error))
    return made


def _plane(folder: pathlib.Path, third: pathlib.Path | None, num: int) -> dict[str, Any]:
    """The loss plane through a run's endpoints and, behind them, the endpoints of ``third``. It is kept beside the run."""
    kept = folder.with_name(f"{folder.name}_plane{num}.json")
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    endpoints = _endpoints(folder)
    if third is not None:
        endpoints = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), endpoints, _endpoints(third))
    settings = config_files.load(folder)
    settings.evaluation.plane_points = num
    run = build.build(settings)
    found = landscape.loss_plane(run, run.devices.put(endpoints))
    write_json(kept, found)
    return found


def _endpoints(folder: pathlib.Path) -> Endpoints:
    return trained_endpoints(build.build(config_files.load(folder)), folder)


def draw(planes: list[Plane], path: pathlib.Path, columns: int) -> None:
    """Draws filled contours, with one scale of errors for all planes of a row, and the subspace in white."""
    plots.planes(planes, path, columns)


def table(plane: Plane) -> str:
    """Error at the corners, as near as the grid comes, and the least on the grid."""
    error = np.array(plane.error)
    near = [
        error[np.abs(np.array(plane.y) - y).argmin(), np.abs(np.array(plane.x) - x).argmin()] for x, y in plane.corners
    ]
    cells = " | ".join(f"{value:.4f}" for value in [*near, error.min(), error.max()])
    return (
        f"| {plane.title}: test error | {' | '.join(f'near {name}' for name in plane.names)} | least | largest |\n"
        f"| --- | --- | --- | --- | --- | --- |\n| | {cells} |"
    )


FIGURE = figure.Figure(
    name="figure2",
    title="Figure 2: test error on the plane through three endpoints",
    scenarios={"paper": (scenarios.CIFAR10,), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
    draw=draw,
    table=table,
)

if __name__ == "__main__":
    figure.command(FIGURE)
