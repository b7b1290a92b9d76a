"""Pictures of barriers between networks. matplotlib is imported when a picture is drawn."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jsubspace import shown
from jsubspace.evaluation.plots import BLUE, GREY, ORANGE
from jsubspace.merging.barriers import CONNECTED, NOT_CONNECTED, Barrier

_MARKS = {CONNECTED: "✓", NOT_CONNECTED: "✗"}
"""Beside the number, so that nobody needs the colour. A pair that is not decided has a question mark."""


def matrix_and_path(names: Sequence[str], pairs: Sequence[Barrier], worst: Barrier, tolerance: float) -> Any:
    """The matrix of barriers with verdicts, and below it the loss along the worst segment. A phone can show it."""
    from matplotlib.figure import Figure

    side = max(2.6, 0.62 * len(names) + 1.2)
    figure = Figure((max(5.2, side + 1.6), side + 3.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[side, 2.8])
    _matrix(figure, above, names, pairs, tolerance)
    _path(below, worst)
    return figure


def _matrix(figure: Any, axes: Any, names: Sequence[str], pairs: Sequence[Barrier], tolerance: float) -> None:
    m = len(names)
    heights = np.full((m, m), np.nan)
    for pair in pairs:
        i, j = (names.index(name) for name in pair.names)
        heights[i, j] = heights[j, i] = pair.height if math.isfinite(pair.height) else np.nan
    top = max(np.nanmax(heights, initial=0), 2 * tolerance, 1e-9)
    image = axes.imshow(heights, cmap="cividis", vmin=0, vmax=top)
    for pair in pairs:
        i, j = (names.index(name) for name in pair.names)
        text = f"{pair.height:.2f}\n{_MARKS.get(pair.verdict, '?')}"
        for row, column in ((i, j), (j, i)):
            light = math.isfinite(pair.height) and pair.height > top / 2
            dark = math.isfinite(pair.height) and not light
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    labels = [shown.label(name) for name in names]
    axes.set_xticks(range(m), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(m), labels)
    axes.set_title("✓ connected, ✗ not connected, ? not decided", fontsize=10)
    figure.colorbar(image, ax=axes, label="barrier (nats)", shrink=0.8)


def _path(axes: Any, worst: Barrier) -> None:
    positions, losses = np.array(worst.positions), np.array(worst.losses)
    axes.plot(positions, losses, "o-", color=BLUE, label="loss")
    axes.plot([0, 1], [losses[0], losses[-1]], "--", color=ORANGE, label="between the ends")
    if worst.at is not None and worst.height > 0 and math.isfinite(worst.height):
        top = float(losses[np.argmin(np.abs(positions - worst.at))])
        axes.plot([worst.at] * 2, [top - worst.height, top], color=GREY, linewidth=3, label="barrier")
    axes.set_xlabel("position t on the segment")
    axes.set_ylabel("loss (nats)")
    axes.set_title(f"the worst pair: {' to '.join(map(shown.label, worst.names))}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
