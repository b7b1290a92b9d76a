"""Pictures of a report. matplotlib is imported when a picture is drawn."""

import pathlib
from typing import Any

import numpy as np

from jsubspace import shown
from jsubspace.evaluation import score_names
from jsubspace.storage import files

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
"""Colours from the palette of Okabe and Ito. Colour-blind readers can tell them apart."""

NAMES = {"accuracy": "accuracy", "nll": "NLL", "brier": "Brier score", "ece": "calibration error",
         "ece_debiased": "debiased calibration error",
         "adaptive_ece": "adaptive calibration error"}  # fmt: skip
"""What a score is called on an axis."""


def over_subspace(report: dict[str, Any], score: str, data: str = "") -> Any:
    """A score over the subspace, as a matplotlib figure.

    A one-dimensional grid is drawn as a curve (figures 4 and 5 of the paper) with its intervals as a band, and with the
    ensemble of alpha and its mirror image on a path. A two-dimensional grid is drawn as a map. Other subspaces have a dot per
    point and per ensemble, with its interval as a bar. The points of a simplex's mesh are left out. The dot of a plain calibration error may lie above its
    interval, because the plain error is too high on average (`calibration`).

    Args:
      report: of `Report.to_json`, or the content of results.json.
      score: which score.
      data: "test" or "validation" for the axis, or "".
    """
    label = f"{data} {NAMES.get(score) or score_names.title(score)}".strip()
    dimensions = {np.size(row["alpha"]) for row in grid(report)}
    if dimensions == {1}:
        return _curve(report, score, label)
    if dimensions == {2}:
        return _map(report, score, label)
    return _dots(report, score, label)


def save(figure: Any, path: pathlib.Path) -> None:
    """Writes a matplotlib figure completely or not at all. The ending of the path names the format, which is PNG without one.

    Raises:
      OSError: if the file cannot be written.
      ValueError: if matplotlib does not know the format.
    """
    with files.new_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix(".") or "png", dpi=160)


def grid(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the points on the grid, in its order."""
    return [row for row in report["points"] if row["kind"] == "grid"]


def mirrored(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the ensembles of a path's alpha and its mirror image, from the ends inwards. The list is empty without a path."""
    names = [row["name"] for row in grid(report)]
    found = {frozenset(row["members"]): row for row in report["ensembles"] if row["kind"] in ("ends", "pair")}
    pairs = [frozenset((names[i], names[-1 - i])) for i in range(len(names) // 2)]
    return [found[pair] for pair in pairs] if pairs and all(pair in found for pair in pairs) else []


def axes(x: str, y: str, size: tuple[float, float] = (5, 3.4)) -> tuple[Any, Any]:
    """A figure and its one pair of axes.

    The figure does not belong to pyplot, which would choose a backend, or use the one with which a notebook shows its own
    figures.
    """
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained")
    only = figure.subplots()
    only.set_xlabel(x)
    only.set_ylabel(y)
    only.spines[["top", "right"]].set_visible(False)
    return figure, only


def _curve(report: dict[str, Any], score: str, label: str) -> Any:
    figure, only = axes("position α", label)
    rows, pairs = grid(report), mirrored(report)
    alphas = [np.asarray(row["alpha"]).item() for row in rows]
    bounds = [row.get("intervals", {}).get(score) for row in rows]
    if all(bounds):
        only.fill_between(
            alphas, *np.array(bounds, float).T, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval of P(α)"
        )
    only.plot(alphas, [row[score] for row in rows], "o-", color=BLUE, label="P(α)")
    if pairs:
        half = [row["mean_probability"][score] for row in pairs]
        middle = [row[score] for row in rows[len(half) : len(rows) - len(half)]]
        values = [*half, *middle, *half[::-1]]
        only.plot(alphas, values, "s--", color=ORANGE, label="ensemble of P(α) and P(1 − α)")
    if pairs or all(bounds):
        only.legend(frameon=False)
    return figure


def _map(report: dict[str, Any], score: str, label: str) -> Any:
    figure, only = axes("first coordinate of α", "second coordinate of α")
    rows = grid(report)
    x, y = np.array([np.ravel(row["alpha"]) for row in rows]).T
    dots = only.scatter(x, y, c=[row[score] for row in rows], cmap="cividis", s=60, marker="s", linewidth=0)
    figure.colorbar(dots, label=label)
    for role, marker, name in (("end", "o", "end"), ("center", "*", "midpoint")):
        places = [
            np.ravel(row["alpha"]) for row in report["points"] if role in row["roles"] and row["alpha"] is not None
        ]
        if places:
            only.plot(*np.array(places).T, marker, color="none", markeredgecolor="black", markersize=13, label=name)
    if only.get_legend_handles_labels()[0]:
        only.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    only.set_aspect("equal")
    return figure


def _dots(report: dict[str, Any], score: str, label: str) -> Any:
    points = [(row["name"], row) for row in report["points"] if row["kind"] != "mesh"]
    combined = [(f"ensemble: {row['name']}", row["mean_probability"]) for row in report["ensembles"]]
    rows = points + combined
    figure, only = axes(label, "", (5, 1 + 0.25 * len(rows)))
    for place, (_, row) in enumerate(rows):
        bounds = row.get("intervals", {}).get(score)
        if bounds:
            only.plot(bounds, [place, place], color=GREY, linewidth=2)
        only.plot(row[score], place, "o", color=BLUE if place < len(points) else ORANGE)
    if any(row.get("intervals", {}).get(score) for _, row in rows):
        only.set_title("bars: 95 % intervals", fontsize=9, color=GREY)
    only.set_yticks(range(len(rows)), [shown.label(name) for name, _ in rows])
    only.invert_yaxis()
    return figure
