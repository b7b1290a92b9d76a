"""What was measured of the uncertainty of networks and ensembles."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jsubspace.evaluation.uncertainty.conformal import Coverage
from jsubspace.evaluation.uncertainty.detection import Detection
from jsubspace.evaluation.uncertainty.selective import Selective


@dataclasses.dataclass(frozen=True)
class UncertaintyRow:
    """A network or an ensemble, and what its predictions say about their errors, on test data.

    Attributes:
      name: for people.
      members: names of the points. A single network has one.
      scores: of `jsubspace.Classification`, with ``intervals``.
      scaled: the same at the fitted temperature.
      temperature: fitted on validation data, for an ensemble after its members' probabilities were averaged.
      entropy: the mean entropy of the predictions, in nats.
      mutual_information: the mean mutual information of class and member in nats, or None for a single network.
      intervals: the 95 % intervals of ``temperature``, ``entropy`` and, for an ensemble, ``mutual_information``.
      selective: the risk of answers that may be refused, the least confident first.
      detection: how well the examples of another data set are found, by ``confidence``, ``entropy`` and, for an ensemble,
        ``mutual_information``. It is empty if no other data set was given.
      conformal: sets of classes, by kind ("threshold", "adaptive").
    """

    name: str
    members: tuple[str, ...]
    scores: Mapping[str, Any]
    scaled: Mapping[str, Any]
    temperature: float
    entropy: float
    mutual_information: float | None
    intervals: Mapping[str, tuple[float, float]]
    selective: Selective
    detection: Mapping[str, Detection]
    conformal: Mapping[str, Coverage]

    def to_json(self) -> dict[str, Any]:
        """The row as dictionaries, lists, strings and numbers."""
        return {
            "name": self.name,
            "members": list(self.members),
            "scores": dict(self.scores),
            "scaled": dict(self.scaled),
            "temperature": self.temperature,
            "entropy": self.entropy,
            "mutual_information": self.mutual_information,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "selective": self.selective.to_json(),
            "detection": {name: found.to_json() for name, found in self.detection.items()},
            "conformal": {name: found.to_json() for name, found in self.conformal.items()},
        }


@dataclasses.dataclass(frozen=True)
class UncertaintyReport:
    """What was measured of the uncertainty of a subspace.

    Attributes:
      subspace: what was measured.
      points: the midpoint first, then the ends and further points.
      ensembles: the ensembles of these points.
      miscoverage: the part of the labels that a conformal set may miss.
    """

    subspace: str
    points: tuple[UncertaintyRow, ...]
    ensembles: tuple[UncertaintyRow, ...]
    miscoverage: float

    @property
    def center(self) -> UncertaintyRow:
        """The midpoint."""
        return self.points[0]

    @property
    def rows(self) -> tuple[UncertaintyRow, ...]:
        """Points and ensembles."""
        return (*self.points, *self.ensembles)

    def table(self) -> str:
        """One line per network and ensemble, for a terminal."""
        by_information = any("mutual_information" in row.detection for row in self.rows)
        titles = ["", "accuracy", "NLL", "ECE", "T", "NLL at T", "ECE at T", "AURC", *_sets(self.miscoverage)]
        if self.center.detection:
            titles += ["AUROC", "FPR95", *(["AUROC by MI"] if by_information else [])]
        cells = [titles]
        for row in self.rows:
            numbers = [
                *(f"{row.scores[name]:.4f}" for name in ("accuracy", "nll", "ece")),
                f"{row.temperature:.3f}",
                *(f"{row.scaled[name]:.4f}" for name in ("nll", "ece")),
                f"{row.selective.aurc:.4f}",
                *(f"{found.size:.2f}" for found in row.conformal.values()),
            ]
            if row.detection:
                numbers += [f"{row.detection['entropy'].auroc:.4f}", f"{row.detection['entropy'].fpr95:.4f}"]
                if by_information:
                    found = row.detection.get("mutual_information")
                    numbers.append("-" if found is None else f"{found.auroc:.4f}")
            cells.append([row.name, *numbers])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in cells
        )

    def to_json(self) -> dict[str, Any]:
        """The report as dictionaries, lists, strings and numbers."""
        return {
            "subspace": self.subspace,
            "miscoverage": self.miscoverage,
            "points": [row.to_json() for row in self.points],
            "ensembles": [row.to_json() for row in self.ensembles],
        }


def _sets(miscoverage: float) -> tuple[str, str]:
    """The titles of the mean sizes of conformal sets."""
    percent = f"{100 * (1 - miscoverage):g} % set"
    return f"size of {percent}", "adaptive"
