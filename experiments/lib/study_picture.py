"""The picture of a study: what each method gains or loses against standard training, budget by budget."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lib import plots
from experiments.lib.study import Budget
from experiments.lib.study_record import Record
from experiments.lib.study_tables import State, paired, state
from jsubspace.evaluation import bounds

SCORES = {"accuracy": ("accuracy", 100, "%"), "nll": ("NLL", 1, ""), "ece_debiased": ("debiased ECE", 1, "")}
"""For every panel the name, the factor and the unit."""

COLOURS = {
    "line": ("#0072B2", "o"),
    "line_center": ("#56B4E9", "s"),
    "control": ("#000000", "x"),
    "control_six": ("#7F7F7F", "+"),
    "label_smoothing": ("#A6761D", "d"),
    "six": ("#009E73", "D"),
    "six_center": ("#E69F00", "P"),
}
"""The colour and the marker of methods that stand in the picture."""

OFF_SCALE = "label_smoothing"
"""This method makes the probabilities less confident on purpose. It does not set the scale, and is an arrow beyond it."""


def draw(budgets: Sequence[Budget], record: Record, path: pathlib.Path) -> bool:
    """Draws the differences of complete methods to standard training, as ``path``.png and .pdf.

    Returns:
      Whether there was a difference to draw.
    """
    found = [(budget, _complete(budget, record)) for budget in budgets]
    found = [(budget, states) for budget, states in found if len(states) > 1]
    if not found:
        return False
    height = 1.4 + 0.13 * sum(len(states) for _, states in found) + 0.15 * len(found)
    figure, axes = plots.pyplot().subplots(1, len(SCORES), figsize=(8.7, height), sharey=True, layout="constrained")
    for place, score in zip(axes, SCORES, strict=True):
        _panel(place, found, score)
    handles, labels = axes[0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    note = "bars: 95 % t intervals of differences paired by seed; an arrow lies outside"
    legend = figure.legend(
        by_label.values(), by_label, loc="outside lower center", ncols=2, frameon=False, fontsize=plots.SMALL, title=note,
        title_fontsize=plots.SMALL,
    )  # fmt: skip
    legend.get_title().set_color("0.35")
    plots.save(figure, path)
    return True


def _complete(budget: Budget, record: Record) -> list[State]:
    """The methods with all their reported runs, standard training first. Without standard training there is none."""
    states = [state(budget, method, record) for method in budget.methods]
    first, others = states[0], states[1:]
    is_whole = [one for one in (first, *others) if len(one.values("accuracy")) == len(budget.seeds)]
    return [one for one in is_whole if one is first or one.method.name in COLOURS] if first in is_whole else []


def _panel(axes: Any, found: Sequence[tuple[Budget, list[State]]], score: str) -> None:
    name, factor, unit = SCORES[score]
    rows = [
        (place, one.method, [factor * value for value in paired(one, states[0], score).values()])
        for place, one, states in _places(found)
    ]
    intervals = {place: bounds.of_runs(values) or [float(np.mean(values))] * 2 for place, _, values in rows}
    ends = [abs(end) for place, method, _ in rows for end in intervals[place] if method.name != OFF_SCALE]
    limit = 1.08 * max(ends, default=0.0) or 1.0  # There may be no difference at all.
    for place, method, values in rows:
        mean, (colour, marker) = float(np.mean(values)), COLOURS[method.name]
        if abs(mean) > limit:
            axes.plot(np.sign(mean) * limit, place, ">" if mean > 0 else "<", color=colour, markersize=5, clip_on=False)
            continue
        axes.plot(intervals[place], [place, place], color=colour, linewidth=1.2)
        axes.plot(mean, place, marker, color=colour, markersize=4.5, label=method.title)
    axes.set_xlim(-limit, limit)
    axes.axvline(0, color="0.4", linewidth=0.9, linestyle="--")
    centres = [np.mean([place for place, _, states in _places(found) if states is of]) for _, of in found]
    axes.set_yticks(centres, [plots.wrapped(budget.title.replace(", ", ": "), 20) for budget, _ in found])
    axes.set_ylim(max(intervals) + 1, -1)
    axes.set_title(f"{name} minus standard's" + (f" ({unit})" if unit else ""), fontsize=plots.LARGE)
    axes.tick_params(labelsize=plots.SMALL)
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _places(found: Sequence[tuple[Budget, list[State]]]) -> list[tuple[float, State, list[State]]]:
    """The height of every method in the picture, from above, with a gap between budgets."""
    places: list[tuple[float, State, list[State]]] = []
    height = 0.0
    for _, states in found:
        for one in states[1:]:
            places.append((height, one, states))
            height += 1
        height += 1.2
    return places
