"""Figures of one run: accuracy or another score over the subspace, its geometry during training, its calibration."""

import importlib.util
import pathlib
from typing import Any

import numpy as np

from jsubspace import preemption, shown
from jsubspace.evaluation import plots, score_names
from jsubspace.evaluation.plots import BLUE, GREY, ORANGE
from jsubspace.storage import files


def draw(results: dict[str, Any], log: list[dict[str, Any]], folder: pathlib.Path) -> list[pathlib.Path]:
    """Draws the figures that a run has, as PNG files in ``folder``, and returns their paths.

    Args:
      results: the content of results.json.
      log: the rows of metrics.jsonl.
      folder: the folder of the figures. It is made if it does not exist.

    Returns:
      Paths of the figures. The list is empty if matplotlib (the extra ``plot``) is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return []
    files.make_folder(folder)
    files.remove_leftovers(folder)
    drawn, main = [], score_names.main(results)
    if results.get("reliability"):
        drawn.append(_save(_reliability(results), folder / "reliability.png"))
    if len(results["points"]) > 1:
        drawn.append(_save(plots.over_subspace(results, main, "test"), folder / f"{main}.png"))
    if results["shifted"] and {np.size(row["alpha"]) for row in plots.grid(results)} == {1}:
        drawn.append(_save(_under_shift(results, main), folder / "shifted.png"))
    if results["plane"]:
        drawn.append(_save(_plane(results["plane"], main), folder / "plane.png"))
    endpoints = [
        row for row in log if row["kind"] == "endpoints" and None not in (row.get("l2"), row.get("cosine_squared"))
    ]
    if endpoints:
        drawn.append(_save(_geometry(endpoints), folder / "endpoints.png"))
    return drawn


def _under_shift(results: dict[str, Any], main: str) -> Any:
    """The score of P(alpha) on each corrupted test set, minus the midpoint's there, as in figure 9 of the paper."""
    from matplotlib import colormaps

    figure, axes = plots.axes("α", f"{score_names.title(main)} minus that of the midpoint")
    sets = {"clean": results} | results["shifted"]
    colors = colormaps["cividis"](np.linspace(0, 0.95, len(sets)))
    for color, (name, measured) in zip(colors, sets.items(), strict=True):
        points = plots.grid(measured)
        middle = next(row[main] for row in measured["points"] if "center" in row["roles"])
        axes.plot(
            [np.asarray(row["alpha"]).item() for row in points],
            [row[main] - middle for row in points],
            color="black" if name == "clean" else color,
            linewidth=2 if name == "clean" else 1,
            label=shown.label(name.replace("_", " ")),
        )
    if len(sets) <= 8:  # 95 names would hide the curves.
        axes.legend(frameon=False, fontsize=8)
    return figure


def _plane(plane: dict[str, Any], main: str) -> Any:
    """Test error, or the score of another task, on the plane through three endpoints, as in figure 2 of the paper."""
    figure, axes = plots.axes("distance", "distance")
    is_accuracy = main == "accuracy"
    error = 1 - np.array(plane[main]) if is_accuracy else np.array(plane[main])
    filled = axes.contourf(plane["x"], plane["y"], error, levels=12, cmap="cividis")
    figure.colorbar(filled, label="test error" if is_accuracy else f"test {score_names.title(main)}")
    for number, (x, y) in enumerate(plane["corners"], 1):
        axes.plot(x, y, "o", color="white", markeredgecolor="black")
        axes.annotate(f"ω{number}", (x, y), xytext=(5, 5), textcoords="offset points", color="white")
    axes.set_aspect("equal")
    return figure


def _geometry(rows: list[dict[str, Any]]) -> Any:
    """L2 distance and squared cosine of the endpoints over training, mean over pairs, as in figure 3 of the paper."""
    figure, axes = plots.axes("training step", "L2 distance of the endpoints")
    steps = [row["step"] for row in rows]
    axes.plot(steps, [row["l2"] for row in rows], color=BLUE)
    axes.set_ylim(0, 1.1 * max(row["l2"] for row in rows))
    axes.yaxis.label.set_color(BLUE)
    twin = axes.twinx()
    twin.plot(steps, [row["cosine_squared"] for row in rows], "--", color=ORANGE)
    twin.set_ylabel("squared cosine", color=ORANGE)
    twin.set_ylim(0, 1.1 * max(row["cosine_squared"] for row in rows))
    twin.spines["top"].set_visible(False)
    return figure


def _reliability(results: dict[str, Any]) -> Any:
    """Accuracy against confidence of the midpoint. A calibrated network lies on the diagonal."""
    figure, axes = plots.axes("confidence", "accuracy")
    bins = results["reliability"]
    full = [i for i, count in enumerate(bins["count"]) if count]
    confidence, accuracy = ([bins[name][i] for i in full] for name in ("confidence", "accuracy"))
    largest = max(bins["count"])
    sizes = [20 + 180 * bins["count"][i] / largest for i in full]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.scatter(confidence, accuracy, s=sizes, color=BLUE, alpha=0.8, linewidth=0, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    midpoint = next(row for row in results["points"] if "center" in row["roles"])
    axes.set_title(
        f"ECE {midpoint['ece']:.4f}; a dot's area grows with its number of examples", fontsize=9, color=GREY, pad=12
    )
    return figure


def _save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    preemption.check()
    plots.save(figure, path)
    return path
