"""The demo's picture: accuracy from one end of the line to the other, and standard training as a level."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lib import figure
from jsubspace.evaluation import bounds, plots

LARGE, SMALL = 12, 11
"""Sizes of letters that can be read when the picture is shown at half its size."""


def draw(standard: Sequence[dict[str, Any]], line: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Draws the picture.

    Args:
      standard: for every seed, the content of results.json of standard training.
      line: the same of the line.
      path: of the PNG file.
    """
    along = figure.along("line", line)
    values, alphas = 100 * np.array(along.y), np.array(along.x)
    both = 100 * np.mean([figure.ensemble(result)["accuracy"] for result in line])
    level = 100 * np.array([figure.midpoint(result)["accuracy"] for result in standard])
    low, high = 100 * np.array(_interval([figure.midpoint(result) for result in standard]))
    several = len(line) > 1
    drawing, axes = plots.axes("position on the line between two networks", "test digits read right (%)", (6.4, 4.2))
    axes.axhspan(low, high, color="0.88", linewidth=0)
    axes.axhline(level.mean(), color="black", linewidth=1.6, linestyle="--")
    axes.axhline(both, color=plots.ORANGE, linewidth=1.6, linestyle=":")
    axes.plot([0, 1], [both, both], "D", color=plots.ORANGE, markersize=7, clip_on=False, zorder=3)
    lower = values.mean(0)
    if several:
        lower, upper = np.array([bounds.of_runs(column) for column in values.T]).T
        axes.fill_between(alphas, lower, upper, color=plots.BLUE, alpha=0.2, linewidth=0)
    axes.plot(alphas, values.mean(0), "o-", color=plots.BLUE, linewidth=2.2, markersize=6, clip_on=False)
    interval = ", with its 95 % interval"
    bottom, top = min(low, values.mean(0).min()), max(high, both, values.mean(0).max())
    room = (top - bottom) * 0.14
    axes.set_ylim(bottom - room / 2, top + 1.6 * room)
    words = {"fontsize": SMALL, "ha": "center", "bbox": {"color": "white", "alpha": 0.7, "pad": 1, "linewidth": 0}}
    axes.text(
        0.5,
        both + 0.15 * room,
        "both ends together: the mean of their answers",
        color=plots.ORANGE,
        va="bottom",
        **words,
    )
    below = lower[(alphas > 0.1) & (alphas < 0.9)].min() - 0.2 * room
    axes.text(
        0.5,
        below,
        f"each dot: one network on the line{interval if several else ''}",
        color=plots.BLUE,
        va="top",
        **words,
    )
    axes.text(0.5, level.mean() + 0.15 * room, f"ordinary training{interval}", color="black", va="bottom", **words)
    axes.set_xticks([0, 0.5, 1], ["one end", "middle", "other end"])
    axes.tick_params(labelsize=SMALL)
    axes.xaxis.label.set_size(SMALL)
    axes.yaxis.label.set_size(SMALL)
    of_seeds = f" ({len(line)} seeds)" if several else ""
    axes.set_title(title(values.mean(0), float(level.mean()), high, of_seeds), fontsize=LARGE, loc="left")
    plots.save(drawing, path)


def title(along: np.ndarray, standard: float, high: float, of_seeds: str = "") -> str:
    """What is seen of the accuracies ``along`` the line, next to ``standard`` training and the upper bound of its interval."""
    noise = f"Trained with 40 % random labels{of_seeds}:\n"
    middle = along[len(along) // 2]
    if along.min() > high:
        return f"{noise}every network on the line beats ordinary training"
    if middle > high:
        return f"{noise}the middle of the line beats ordinary training"
    if middle > standard:
        return f"{noise}the line is a little better than ordinary training, maybe by chance"
    return f"{noise}the line does not beat ordinary training"


def _interval(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Over seeds, or for one seed over test images."""
    return bounds.of_runs([row["accuracy"] for row in rows]) or rows[0]["intervals"]["accuracy"]
