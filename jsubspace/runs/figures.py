"""Figures of one run: accuracy along it, its shape during training, its calibration."""

import importlib.util
import pathlib
from typing import Any

import numpy as np

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
"""Of the palette of Okabe and Ito, which colour-blind readers can tell apart."""


def draw(results: dict[str, Any], rows: list[dict[str, Any]], folder: pathlib.Path) -> list[pathlib.Path]:
    """Draws the figures that a run has, as PNG files in ``folder``, and returns their paths.

    Args:
      results: the content of results.json.
      rows: of metrics.jsonl.
      folder: made if need be.

    Returns:
      Paths of the figures; none if matplotlib (the extra ``plot``) is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_save(_reliability(results), folder / "reliability.png")]
    if results["points"][0]["name"][0].isdigit():  # a grid along a line or curve
        drawn.append(_save(_accuracy_along(results), folder / "accuracy.png"))
        if results["shifted"]:
            drawn.append(_save(_under_shift(results), folder / "shifted.png"))
    if results["plane"]:
        drawn.append(_save(_plane(results["plane"]), folder / "plane.png"))
    endpoints = [row for row in rows if row["kind"] == "endpoints"]
    if endpoints:
        drawn.append(_save(_geometry(endpoints), folder / "endpoints.png"))
    return drawn


def compare(rows: list[tuple[str, dict[str, list[float]]]], metrics: dict[str, str], path: pathlib.Path) -> None:
    """Methods side by side: a panel a metric, the mean over runs as a dot, one standard deviation as a bar.

    Args:
      rows: for each method its name, and of every metric one value a run.
      metrics: what to call each metric, and its name in the rows.
      path: of the PNG file; none is drawn if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return
    size = (2 + 2.4 * len(metrics), 1 + 0.28 * len(rows))
    figure = _figure(size)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)
    places = range(len(rows))
    for axes, (title, metric) in zip(panels[0], metrics.items(), strict=True):
        means = [np.mean(values[metric]) for _, values in rows]
        errors = [np.std(values[metric], ddof=1) if len(values[metric]) > 1 else 0 for _, values in rows]
        low, high = _without_outliers(np.array(means), np.array(errors))
        for place, mean, error in zip(places, means, errors, strict=True):
            if low <= mean <= high:
                axes.errorbar(mean, place, xerr=error, fmt="o", color=BLUE, ecolor=GREY, markersize=4)
            else:  # At the edge, with its number: on one axis with it, the others would be one dot.
                right = mean > high
                at = high if right else low
                axes.plot(at, place, ">" if right else "<", color=ORANGE, markersize=5, clip_on=False)
                offset = (-6 if right else 6, 0)
                axes.annotate(
                    f"{mean:.3f}",
                    (at, place),
                    xytext=offset,
                    textcoords="offset points",
                    ha="right" if right else "left",
                    va="center",
                    fontsize=7,
                    color=ORANGE,
                )
        axes.set_xlim(low, high)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", color="0.9")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(places, [name for name, _ in rows])
    panels[0][0].invert_yaxis()
    _save(figure, path)


def _without_outliers(means: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Limits that hold the values, except those farther from the middle half of them than three times its width."""
    lower, upper = np.percentile(means, [25, 75])
    width = max(upper - lower, 1e-3 * abs(upper))
    inside = (means >= lower - 3 * width) & (means <= upper + 3 * width)
    low, high = (means - errors)[inside].min(), (means + errors)[inside].max()
    margin = 0.06 * (high - low) or 1e-3
    return low - margin, high + margin


def _accuracy_along(results: dict[str, Any]) -> Any:
    """Accuracy of P(alpha), and of its ensemble with P(1 - alpha), as figures 4 and 5 of the paper."""
    figure, axes = _axes("α", "test accuracy")
    points, pairs = _grid(results), _pairs(results)
    alphas = [row["alpha"] for row in points]
    axes.plot(alphas, [row["accuracy"] for row in points], "o-", color=BLUE, label="P(α)")
    half = [row["mean_probability"]["accuracy"] for row in pairs]
    middle = points[len(half)]["accuracy"]
    axes.plot(alphas, [*half, middle, *half[::-1]], "s--", color=ORANGE, label="ensemble of P(α) and P(1 − α)")
    axes.legend(frameon=False)
    return figure


def _under_shift(results: dict[str, Any]) -> Any:
    """Accuracy of P(alpha) on each corrupted test set, minus that of the midpoint there, as in figure 9 of the paper."""
    from matplotlib import colormaps

    figure, axes = _axes("α", "accuracy minus that of the midpoint")
    sets = {"clean": results} | results["shifted"]
    colors = colormaps["cividis"](np.linspace(0, 0.95, len(sets)))
    for color, (name, measured) in zip(colors, sets.items(), strict=True):
        points = _grid(measured)
        middle = points[len(points) // 2]["accuracy"]
        axes.plot(
            [row["alpha"] for row in points],
            [row["accuracy"] - middle for row in points],
            color="black" if name == "clean" else color,
            linewidth=2 if name == "clean" else 1,
            label=name.replace("_", " "),
        )
    if len(sets) <= 8:  # 95 names would hide the curves
        axes.legend(frameon=False, fontsize=8)
    return figure


def _plane(plane: dict[str, Any]) -> Any:
    """Test error on the plane through three endpoints, as figure 2 of the paper."""
    figure, axes = _axes("distance", "distance")
    error = 1 - np.array(plane["accuracy"])
    filled = axes.contourf(plane["x"], plane["y"], error, levels=12, cmap="cividis")
    figure.colorbar(filled, label="test error")
    for number, (x, y) in enumerate(plane["corners"], 1):
        axes.plot(x, y, "o", color="white", markeredgecolor="black")
        axes.annotate(f"ω{number}", (x, y), xytext=(5, 5), textcoords="offset points", color="white")
    axes.set_aspect("equal")
    return figure


def _grid(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the points on the grid, without those that were added to it."""
    return [row for row in measured["points"] if row["name"][0].isdigit()]


def _pairs(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the ensembles of alpha and 1 - alpha."""
    return [row for row in measured["ensembles"] if all(member[0].isdigit() for member in row["members"])]


def _geometry(rows: list[dict[str, Any]]) -> Any:
    """L2 distance and squared cosine of the endpoints over training, mean over pairs, as figure 3 of the paper."""
    figure, axes = _axes("training step", "L2 distance of the endpoints")
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
    """Accuracy against confidence of the midpoint; on the diagonal it is calibrated."""
    figure, axes = _axes("confidence", "accuracy")
    bins = results["reliability"]
    full = [i for i, count in enumerate(bins["count"]) if count]
    confidence, accuracy = ([bins[name][i] for i in full] for name in ("confidence", "accuracy"))
    largest = max(bins["count"])
    sizes = [20 + 180 * bins["count"][i] / largest for i in full]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.scatter(confidence, accuracy, s=sizes, color=BLUE, alpha=0.8, linewidth=0, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    midpoint = next(row for row in results["points"] if row["name"] == results["midpoint"])
    axes.set_title(
        f"ECE {midpoint['ece']:.4f}; a dot's area grows with its number of examples", fontsize=9, color=GREY, pad=12
    )
    return figure


def _axes(x: str, y: str) -> Any:
    figure = _figure((5, 3.4))
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _figure(size: tuple[float, float]) -> Any:
    """Not pyplot's: it would choose a backend, or use the one with which a notebook shows its own figures."""
    from matplotlib.figure import Figure

    return Figure(size, layout="constrained")


def _save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    figure.savefig(path, dpi=160)
    return path
