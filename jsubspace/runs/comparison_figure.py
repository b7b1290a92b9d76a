"""The figure of a comparison: methods side by side."""

import importlib.util
import pathlib
from typing import Any, TypeAlias

import numpy as np

from jsubspace.evaluation import plots
from jsubspace.evaluation.plots import BLUE, GREY, ORANGE

Value: TypeAlias = tuple[float | None, list[float] | None]
"""A number or None, and its interval or None."""

Panel: TypeAlias = tuple[str, list[Value]]
"""A title, and the value of every method."""


COLUMNS = 2
"""How many panels stand in a row, so that a phone shows letters that can be read."""


def draw(names: list[str], panels: list[list[Panel]], path: pathlib.Path) -> None:
    """Methods side by side: in every panel one dot per method, and its interval as a bar.

    Args:
      names: the methods.
      panels: rows of panels. All intervals of a row are of one kind.
      path: of the PNG file. Nothing is drawn if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    below = [row[i : i + COLUMNS] for row in panels for i in range(0, len(row), COLUMNS)]
    columns = max(map(len, below))
    figure = Figure((2.4 + 1.8 * columns, 0.5 + (0.8 + 0.19 * len(names)) * len(below)), layout="constrained")
    grid = figure.subplots(len(below), columns, sharey=True, squeeze=False)
    for row, panels_of_row in zip(grid, below, strict=True):
        for axes, (title, values) in zip(row, panels_of_row, strict=False):
            _panel(axes, title, values)
            axes.set_ylim(len(names) - 0.3, -0.7)
        for axes in row[len(panels_of_row) :]:
            axes.set_axis_off()
        row[0].set_yticks(range(len(names)), names)
    of_differences = "\nDifferences: over test examples." if len(panels) > 1 else ""
    figure.supxlabel(f"Dots: means of runs. Bars: 95 % intervals over runs, if several.{of_differences}", fontsize=9)
    plots.save(figure, path)


def _panel(axes: Any, title: str, values: list[Value]) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", color="0.9")
    axes.tick_params(labelsize=9)
    axes.locator_params(axis="x", nbins=3)
    axes.spines[["top", "right"]].set_visible(False)
    known = [(place, mean, bounds or [mean, mean]) for place, (mean, bounds) in enumerate(values) if mean is not None]
    if not known:
        return
    means, bars = np.array([mean for _, mean, _ in known]), np.array([bounds for _, _, bounds in known])
    low, high = _without_outliers(means, bars)
    axes.set_xlim(low, high)
    for place, mean, bar in known:
        if low <= mean <= high:
            axes.plot(bar, [place, place], color=GREY, linewidth=1.5)
            axes.plot(mean, place, "o", color=BLUE, markersize=4)
        else:  # At the edge, with its number: on one axis with it, the others would be one dot.
            right = mean > high
            at = high if right else low
            axes.plot(at, place, ">" if right else "<", color=ORANGE, markersize=5, clip_on=False)
            axes.annotate(
                f"{mean:.3f}",
                (at, place),
                xytext=(-6 if right else 6, 0),
                textcoords="offset points",
                ha="right" if right else "left",
                va="center",
                fontsize=8,
                color=ORANGE,
            )


def _without_outliers(means: np.ndarray, bars: np.ndarray) -> tuple[float, float]:
    """Limits that hold the values, except those farther from the middle half of them than three times its width.

    A bar that is much longer than the values are apart is cut off. Two seeds alone have such bars.
    """
    lower, upper = np.percentile(means, [25, 75])
    width = max(upper - lower, 1e-3 * abs(upper))
    inside = (means >= lower - 3 * width) & (means <= upper + 3 * width)
    low = max(bars[inside, 0].min(), lower - 6 * width)
    high = min(bars[inside, 1].max(), upper + 6 * width)
    low, high = min(low, means[inside].min()), max(high, means[inside].max())
    margin = 0.06 * (high - low) or 1e-3
    return low - margin, high + margin
