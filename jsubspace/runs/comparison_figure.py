"""The figure of a comparison: methods side by side."""

import importlib.util
import pathlib

import numpy as np

from jsubspace.evaluation.plots import BLUE, GREY, ORANGE


def draw(rows: list[tuple[str, dict[str, list[float]]]], metrics: dict[str, str], path: pathlib.Path) -> None:
    """Methods side by side: one panel per metric, the mean over runs as a dot, one standard deviation as a bar.

    Args:
      rows: for each method its name, and one value per run of every metric.
      metrics: the title of each metric, and its name in the rows.
      path: of the PNG file. Nothing is drawn if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return
    size = (2 + 2.4 * len(metrics), 1 + 0.28 * len(rows))
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained")
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
    figure.savefig(path, dpi=160)


def _without_outliers(means: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Limits that hold the values, except those farther from the middle half of them than three times its width."""
    lower, upper = np.percentile(means, [25, 75])
    width = max(upper - lower, 1e-3 * abs(upper))
    inside = (means >= lower - 3 * width) & (means <= upper + 3 * width)
    low, high = (means - errors)[inside].min(), (means + errors)[inside].max()
    margin = 0.06 * (high - low) or 1e-3
    return low - margin, high + margin
