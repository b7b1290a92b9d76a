"""The claims of the paper in our words, and the numbers of the recorded figures that decide them.

For every claim, each seed gives a number that is positive if the claim is true.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.lib.verdicts import Measured


class FigureRecord:
    """The recorded panels of a figure."""

    def __init__(self, path: pathlib.Path) -> None:
        self._panels = json.loads(path.read_text(encoding="utf-8"))["panels"]

    def values(self, panel: int, label: str, x: float | None = None) -> np.ndarray:
        """One value per seed of a series, at ``x`` if the series has places."""
        found = next(series for series in self._panels[panel]["series"] if series["label"] == label)
        values = np.array(found["y"])
        if found["x"] is None:
            return values[:, 0]
        return values[:, int(np.abs(np.array(found["x"]) - x).argmin())]

    def series(self, panel: int, label: str) -> np.ndarray:
        """All values of a series, ``[seeds, x]``."""
        return np.array(next(series["y"] for series in self._panels[panel]["series"] if series["label"] == label))

    def labels(self, panel: int) -> list[str]:
        """The labels of the series of a panel."""
        return [series["label"] for series in self._panels[panel]["series"]]

    def places(self, panel: int, label: str) -> list[float]:
        """The x of a series."""
        return next(series["x"] for series in self._panels[panel]["series"] if series["label"] == label)


class Claim(NamedTuple):
    """A sentence of the paper in our words.

    Attributes:
      text: the sentence.
      where: section and figure.
      figure: the figure on which it is measured.
      measure: returns the numbers that are positive if it is true, from the figure's record.
    """

    text: str
    where: str
    figure: str
    measure: Callable[[FigureRecord], Sequence[Measured]]


def _over(record: FigureRecord, panel: int, a: str, b: str, x: float = 0.5, name: str = "") -> Measured:
    """The difference of a and b at one place."""
    return Measured(name or f"{a} − {b}", record.values(panel, a, x) - record.values(panel, b, x))


def _end(record: FigureRecord, panel: int, label: str) -> np.ndarray:
    return record.series(panel, label)[:, -1]


def _spread(record: FigureRecord, label: str) -> np.ndarray:
    values = record.series(-1, label)
    return values.max(1) - values.min(1)


def _by_m(record: FigureRecord) -> list[Measured]:
    ms = [m for m in record.places(0, "simplex") if m > 2]
    return [_over(record, 0, "simplex", "standard", m, f"m = {m}: simplex − standard") for m in ms]


def _layerwise_by_m(record: FigureRecord) -> list[Measured]:
    return [
        _over(record, 0, "layerwise simplex", "SWA", m, f"m = {m}: layerwise − SWA")
        for m in record.places(0, "layerwise simplex")
    ]


def _noise(record: FigureRecord, a: str, b: str) -> list[Measured]:
    return [_over(record, 0, a, b, noise, f"noise {noise:g}: {a} − {b}") for noise in record.places(0, a) if noise > 0]


def _budgets(record: FigureRecord) -> list[Measured]:
    """At the smallest budget the line is behind, at the largest before."""
    epochs = record.places(0, "line")
    return [
        _over(record, 0, "standard", "line", epochs[0], f"{epochs[0]} epochs: standard − line"),
        _over(record, 0, "line", "standard", epochs[-1], f"{epochs[-1]} epochs: line − standard"),
    ]


def _calibration(record: FigureRecord) -> list[Measured]:
    return [
        _over(record, 1, "standard", "line", e, f"{e} epochs: ECE standard − line") for e in record.places(1, "line")
    ]


CLAIMS = (
    Claim(
        "With β = 1 the endpoints of a line become nearly orthogonal and stay about as far apart as at the beginning",
        "4.1, figure 3",
        "figure3",
        lambda r: [
            Measured("0.01 − cos² at the end", 0.01 - _end(r, 1, "β = 1")),
            Measured(
                "distance at the end / at the first epoch − 0.5", _end(r, 0, "β = 1") / r.series(0, "β = 1")[:, 0] - 0.5
            ),
        ],
    ),
    Claim(
        "With β = 0 they come closer to each other but remain a distance apart, and independent networks are farther apart",
        "4.1, figure 3",
        "figure3",
        lambda r: [
            Measured("distance, β = 1 − β = 0", _end(r, 0, "β = 1") - _end(r, 0, "β = 0")),
            Measured("distance, β = 0", _end(r, 0, "β = 0")),
            Measured("distance, independent − β = 1", r.values(0, "two independent") - _end(r, 0, "β = 1"), ring=True),
        ],
    ),
    Claim(
        "The midpoint of a line, a layerwise line, a curve is more accurate than standard training",
        "4.2, figure 4",
        "figure4",
        lambda r: [_over(r, 0, kind, "standard") for kind in ("line", "layerwise line", "curve")],
    ),
    Claim(
        "The midpoint of a layerwise line is more accurate than the midpoint of a line",
        "4.2, figure 4",
        "figure4",
        lambda r: [_over(r, 0, "layerwise line", "line")],
    ),
    Claim(
        "A layerwise line's ensemble of its ends is less accurate than a line's",
        "4.2, figure 5",
        "figure5",
        lambda r: [_over(r, 0, "line", "layerwise line", 0.0)],
    ),
    Claim(
        "The ensemble of the ends approaches (within 0.5 %), matches or exceeds the ensemble of two independent networks",
        "4.2, figure 5",
        "figure5",
        lambda r: [
            Measured(
                f"{kind} − two independent + 0.005",
                r.values(0, kind, 0.0) - r.values(0, "two independent") + 0.005,
                ring=True,
            )
            for kind in ("line", "curve")
        ],
    ),
    Claim(
        "Two networks from the ends predict better together than the midpoint alone if β > 0",
        "4.2, figure 6",
        "figure6",
        lambda r: [
            Measured(
                f"β = {beta}: ensemble of the ends − midpoint",
                r.values(1, f"β = {beta}", 0.0) - r.values(0, f"β = {beta}", 0.5),
            )
            for beta in (1, 2)
        ],
    ),
    Claim(
        "For β > 0 the midpoint's accuracy can exceed standard training's",
        "4.2, figure 6",
        "figure6",
        lambda r: [_over(r, 0, f"β = {beta}", "standard") for beta in (1, 2)],
    ),
    Claim(
        "The gain of the center grows with more endpoints than two",
        "4.3, figure 7",
        "figure7",
        _by_m,
    ),
    Claim(
        "The center of a layerwise simplex matches or exceeds SWA of as many checkpoints",
        "4.3, figure 7",
        "figure7",
        _layerwise_by_m,
    ),
    Claim(
        "The center of a simplex is more robust to label noise than standard training, early stopping and SWA",
        "4.3, figure 8",
        "figure8",
        lambda r: [m for other in ("standard", "early stopping", "SWA") for m in _noise(r, "simplex", other)],
    ),
    Claim(
        "It is better calibrated than standard training",
        "4.3, figure 8",
        "figure8",
        lambda r: [
            _over(r, 1, "standard", "simplex", noise, f"noise {noise:g}: ECE standard − simplex")
            for noise in r.places(1, "simplex")
        ],
    ),
    Claim(
        "Points of a line that are alike on clean data differ on corrupted data (range of relative accuracies along the line)",
        "4.4, figure 9",
        "figure9",
        lambda r: [
            Measured(f"range on {label} − on clean", _spread(r, label) - _spread(r, "clean"))
            for label in r.labels(-1)
            if label != "clean"
        ],
    ),
    Claim(
        "With a small budget the line is behind standard training, with a larger one before it",
        "4.4, figure 10",
        "figure10",
        _budgets,
    ),
    Claim(
        "The midpoint is better calibrated than standard training whatever the budget",
        "4.4, figure 10",
        "figure10",
        _calibration,
    ),
    Claim(
        "Two models from the ends of a line predict better than six drawn from a simplex",
        "4.5, figure 11",
        "figure11",
        lambda r: [_over(r, 0, "line, two ends", "simplex, random")],
    ),
    Claim(
        "The large network's midpoint is more robust to label noise than standard training and early stopping",
        "4.4, figure 12 left",
        "figure12",
        lambda r: [m for other in ("standard", "early stopping") for m in _noise(r, "line", other)],
    ),
    Claim(
        "Linearly connected models can be no better than standard training each, and their ensemble better than an "
        "ensemble of two independent networks",
        "4.6, figure 12 right",
        "figure12",
        lambda r: [
            *(
                Measured(f"standard − α = {alpha}", r.values(1, "standard") - r.values(1, f"at α = {alpha}"))
                for alpha in (-0.05, 1.05)
            ),
            _over(r, 1, "ensemble of -0.05 & 1.05", "two independent")._replace(ring=True),
        ],
    ),
    Claim(
        "A shared initialisation changes the final cosine and distance little (distance within a fifth)",
        "4.1, appendix E",
        "appendix_shared_init",
        lambda r: [
            Measured("0.01 − cos² at the end", 0.01 - _end(r, 3, "shared initialisation")),
            Measured(
                "0.2 − relative difference of the distances",
                0.2 - np.abs(_end(r, 2, "shared initialisation") / _end(r, 2, "two initialisations") - 1),
            ),
        ],
    ),
    Claim(
        "Between independent networks the line crosses a barrier, while runs that share some first epochs are linearly connected",
        "2 and appendix H",
        "appendix_connectors",
        lambda r: [
            Measured(
                "independent: standard − middle",
                r.values(0, "standard") - r.values(0, "0 epochs shared", 0.5),
                ring=True,
            ),
            *(
                Measured(f"{label}: middle − standard + 0.01", r.values(0, label, 0.5) - r.values(0, "standard") + 0.01)
                for label in _shared(r)
            ),
        ],
    ),
)


def _shared(record: FigureRecord) -> list[str]:
    return [label for label in record.labels(0) if label.endswith("epochs shared") and not label.startswith("0 ")]
