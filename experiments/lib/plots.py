"""The look of the figures and their tables. A method has the same style in every figure."""

import math
import pathlib
import textwrap
from typing import Any

import numpy as np

STYLES: dict[str, tuple[str, str, str]] = {
    # The colours are from the palette of Okabe and Ito, which colour-blind readers can tell apart. Baselines are dashed.
    "standard": ("#000000", "--", ""),
    "two independent": ("#7F7F7F", ":", ""),
    "early stopping": ("#7F7F7F", "--", "v"),
    "line": ("#0072B2", "-", "o"),
    "line, ensemble": ("#D55E00", "--", "o"),
    "clean": ("#000000", "-", "o"),
    "layerwise line": ("#56B4E9", "-", "s"),
    "curve": ("#D55E00", "-", "^"),
    "simplex": ("#009E73", "-", "D"),
    "layerwise simplex": ("#66C2A5", "-", "P"),
    "SWA": ("#CC79A7", "--", "x"),
    "snapshots": ("#E69F00", "--", "*"),
    "dropout": ("#E69F00", "--", "+"),
    "label smoothing": ("#A6761D", "--", "d"),
    "simplex + label smoothing": ("#004D40", "-", "p"),
}
SIZE = (2.9, 2.6)
"""Inches of a panel. Two of them side by side can be read on a phone, which shows 390 pixels."""
LARGE, SMALL = 10, 9
"""Sizes of letters in points: titles and labels, and the numbers on axes."""
OTHERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def curves(panels: list[Any], path: pathlib.Path, columns: int) -> None:
    """Panels of curves with a band of one standard deviation over seeds, as ``path``.png and .pdf."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = pyplot().subplots(
        rows, columns, figsize=(SIZE[0] * columns, SIZE[1] * rows + 0.6), squeeze=False, layout="constrained"
    )
    styles = _styles(panels)
    for place, panel in zip(axes.flat, panels, strict=False):
        (_curves if panel.x_label else _levels)(place, panel, styles)
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    _legends(figure, [place for place, panel in zip(axes.flat, panels, strict=False) if panel.x_label], panels, columns)
    save(figure, path)


def _styles(panels: list[Any]) -> dict[str, tuple[str, str, str]]:
    """The style of every label, which is the same in all panels."""
    labels = dict.fromkeys(series.label for panel in panels for series in panel.series if series.label not in STYLES)
    kinds = ("-", "--", "-.")
    return STYLES | {label: (OTHERS[i % len(OTHERS)], kinds[i % 3], "o^sDPv"[i % 6]) for i, label in enumerate(labels)}


def _curves(axes: Any, panel: Any, styles: dict[str, tuple[str, str, str]]) -> None:
    for series in panel.series:
        color, line, marker = styles[series.label]
        mean, std = _statistics(series)
        if series.x is None:
            axes.axhline(mean[0], color=color, linestyle=line, linewidth=1.2, label=series.label)
            axes.axhspan(mean[0] - std[0], mean[0] + std[0], color=color, alpha=0.12, linewidth=0)
            continue
        every = max(1, len(series.x) // 10)
        axes.plot(
            series.x, mean, color=color, linestyle=line, marker=marker, markersize=4, markevery=every, linewidth=1.4,
            label=series.label,
        )  # fmt: skip
        axes.fill_between(series.x, mean - std, mean + std, color=color, alpha=0.15, linewidth=0)
    if panel.log_x:
        axes.set_xscale("log", base=2)
    axes.set_xlabel(panel.x_label, fontsize=LARGE)
    _finish(axes, panel)
    axes.set_ylabel(panel.y_label, fontsize=LARGE)


def _levels(axes: Any, panel: Any, styles: dict[str, tuple[str, str, str]]) -> None:
    """Methods side by side, with one dot each. The bar is one standard deviation over seeds, and the small dots are the seeds."""
    for place, series in enumerate(panel.series):
        values = np.array(series.y)[:, 0]
        color = styles[series.label][0] if series.label in STYLES else "#0072B2"
        axes.errorbar(np.mean(values), place, xerr=_statistics(series)[1][0], fmt="o", color=color, markersize=5)
        axes.plot(values, np.full(len(values), place), "o", color=color, markersize=2.5, alpha=0.5)
    axes.set_yticks(range(len(panel.series)), [series.label for series in panel.series])
    axes.set_ylim(len(panel.series) - 0.5, -0.5)
    axes.set_xlabel(panel.y_label, fontsize=LARGE)
    axes.grid(axis="y", color="0.92")
    _finish(axes, panel)
    axes.set_title(wrapped(panel.title, 26), fontsize=LARGE)  # beside the names there is less room
    if panel.percent:
        from matplotlib import ticker

        axes.yaxis.set_major_formatter(ticker.FixedFormatter([series.label for series in panel.series]))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(_percent))


def _finish(axes: Any, panel: Any) -> None:
    from matplotlib import ticker

    axes.set_title(wrapped(panel.title, 34), fontsize=LARGE)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.percent:
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(_percent))


def wrapped(title: str, width: int) -> str:
    """A title with a line for every part, and no line longer than ``width`` letters."""
    return "\n".join(line for part in title.replace(" (", ": (").split(": ") for line in textwrap.wrap(part, width))


def _legends(figure: Any, places: list[Any], panels: list[Any], columns: int) -> None:
    """One legend below all panels for the labels of the first panel. A panel with other labels has its own legend.

    A line below says what bands, bars and dots are.
    """
    shared: dict[str, Any] = {}
    for axes in places:
        handles, labels = axes.get_legend_handles_labels()
        if shared and not set(labels) & set(shared):
            axes.legend(frameon=False, fontsize=SMALL)
            continue
        for handle, label in zip(handles, labels, strict=True):
            shared.setdefault(label, handle)
    note = _note(panels)
    if shared:
        legend = figure.legend(
            shared.values(), shared, loc="outside lower center", ncols=min(2 * columns - 1, len(shared)), frameon=False,
            fontsize=SMALL, title=note, title_fontsize=SMALL,
        )  # fmt: skip
        legend.get_title().set_color("0.35")
    elif note:
        figure.supxlabel(note, fontsize=SMALL, color="0.35")


def _note(panels: list[Any]) -> str:
    """What bands, bars and small dots are. It is empty for one seed, which has neither bands nor bars."""
    seeds = max(len(series.y) for panel in panels for series in panel.series)
    if seeds == 1:
        return ""
    shapes = [
        name
        for name, is_shown in (
            ("bands", any(panel.x_label for panel in panels)),
            ("bars", any(not panel.x_label for panel in panels)),
        )
        if is_shown
    ]
    note = f"{' and '.join(shapes)}: ± one standard deviation over {seeds} seeds"
    return f"{note}\nsmall dots: the seeds" if "bars" in shapes else note


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.4g}"


def table(panel: Any) -> str:
    """The panel's numbers in Markdown: mean ± standard deviation (n - 1) over seeds."""
    places = sorted({x for series in panel.series if series.x is not None for x in _shown(series.x)})
    head = f"| {panel.title}: {panel.y_label} | seeds | " + " | ".join(
        [f"{panel.x_label} {x:g}" for x in places] or [panel.y_label]
    )
    lines = [f"{head} |", "| --- | --- |" + " --- |" * max(1, len(places))]
    for series in panel.series:
        mean, std = _statistics(series)
        if series.x is None:
            cells = [_cell(mean[0], std[0], len(series.y))] * max(1, len(places))
        else:
            at = {x: i for i, x in enumerate(series.x)}
            cells = [_cell(mean[at[x]], std[at[x]], len(series.y)) if x in at else "" for x in places]
        lines.append(f"| {series.label} | {len(series.y)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(x: list[float]) -> list[float]:
    """All places if there are few of them, else the ends, the quarters and the middle."""
    return x if len(x) <= 7 else [x[round(part * (len(x) - 1))] for part in (0, 0.25, 0.5, 0.75, 1)]


def _cell(mean: float, std: float, seeds: int) -> str:
    return f"{mean:.4g}" if seeds == 1 else f"{mean:.4f} ± {std:.4f}"


def _statistics(series: Any) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(series.y)
    return values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])


def save(figure: Any, path: pathlib.Path) -> None:
    """Writes ``figure`` as ``path``.png and ``path``.pdf without their dates, so that the same runs give the same files."""
    figure.savefig(path.with_suffix(".png"), dpi=160)
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    pyplot().close(figure)


def pyplot() -> Any:
    """matplotlib.pyplot, without a window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def planes(panels: list[Any], path: pathlib.Path, columns: int) -> None:
    """Test error on planes, as filled contours with one scale for all. The trained subspace is drawn on top."""
    from matplotlib import ticker

    rows = math.ceil(len(panels) / columns)
    figure, axes = pyplot().subplots(
        rows, columns, figsize=(2.9 * columns, 2.7 * rows), squeeze=False, layout="constrained"
    )
    errors = np.concatenate([np.ravel(panel.error) for panel in panels])
    # The levels are denser where the subspaces are. Far from them the error is several times its minimum.
    levels = errors.min() * np.geomspace(1, errors.max() / errors.min(), 15)
    for place, panel in zip(axes.flat, panels, strict=False):
        filled = place.contourf(panel.x, panel.y, panel.error, levels=levels, cmap="cividis", norm="log", extend="max")
        corners = np.array(panel.corners)
        place.plot(*_outline(panel.kind, corners).T, color="white", linewidth=1.2)
        for name, (x, y) in zip(panel.names, corners, strict=True):
            place.plot(x, y, "o", color="white", markeredgecolor="black", markersize=5)
            place.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", color="white", fontsize=SMALL)
        place.set_title(wrapped(panel.title, 34), fontsize=LARGE)
        place.tick_params(labelsize=SMALL)
        place.set_xlabel("L2 distance", fontsize=LARGE)
        place.set_aspect("equal")
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    bar = figure.colorbar(filled, ax=axes, label="test error (%)", shrink=0.8)
    bar.set_ticks(levels[::2])
    bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=1, symbol=""))
    bar.ax.minorticks_off()
    save(figure, path)


def _outline(kind: str, corners: np.ndarray) -> np.ndarray:
    """The subspace in the plane of its endpoints: ``[n, 2]``."""
    if kind == "curve":
        alpha = np.linspace(0, 1, 50)[:, None]
        return (1 - alpha) ** 2 * corners[0] + 2 * alpha * (1 - alpha) * corners[2] + alpha**2 * corners[1]
    return corners[:2] if kind == "line" else corners[[0, 1, 2, 0]]
