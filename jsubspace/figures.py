"""Figures of one run: accuracy along it, its shape during training, its calibration."""

import pathlib
from typing import Any

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
    try:
        import matplotlib
    except ModuleNotFoundError:
        return []
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_save(_reliability(results), folder / "reliability.png")]
    if results["points"][0]["name"] == "0.00":
        drawn.append(_save(_accuracy_along(results), folder / "accuracy.png"))
    endpoints = [row for row in rows if row["kind"] == "endpoints"]
    if endpoints:
        drawn.append(_save(_geometry(endpoints), folder / "endpoints.png"))
    return drawn


def _accuracy_along(results: dict[str, Any]) -> Any:
    """Accuracy of P(alpha), and of its ensemble with P(1 - alpha), as figures 4 and 5 of the paper."""
    figure, axes = _axes("α", "test accuracy")
    alphas = [row["alpha"] for row in results["points"]]
    axes.plot(alphas, [row["accuracy"] for row in results["points"]], "o-", color=BLUE, label="P(α)")
    half = [row["mean_probability"]["accuracy"] for row in results["ensembles"]]
    middle = results["points"][len(half)]["accuracy"]
    axes.plot(alphas, [*half, middle, *half[::-1]], "s--", color=ORANGE, label="ensemble of P(α) and P(1 − α)")
    axes.legend(frameon=False)
    return figure


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
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    from matplotlib import pyplot

    figure.savefig(path, dpi=160)
    pyplot.close(figure)
    return path
