"""What was measured of a subspace: points, ensembles, and how the subspace lies between its ends."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from jsubspace.evaluation import plots, score_names, tables
from jsubspace.evaluation.positions import CENTER_ROLE, END_ROLE, PAIR, is_same
from jsubspace.evaluation.rows import EnsembleRow, PointRow, json_of
from jsubspace.storage import places


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured of a subspace.

    Attributes:
      subspace: what was measured, as ``Simplex(num_endpoints=3)``.
      endpoints: for ``kernels`` and ``all_leaves``, the matrices ``l2`` and ``cosine_squared`` of all pairs.
      points: every point that was evaluated.
      ensembles: every ensemble that was evaluated.
      reliability: for every bin of the midpoint's confidences, ``count``, mean ``confidence`` and ``accuracy``. It is empty if
        the task is no classification.
      connector: whether the subspace is a connector of its ends (`connectors.verdict`), with the name of the point where
        the barrier is. It is None if there is nothing to compare.
      higher_is_better: the names of the scores, and whether a higher score is the better one. None means that it is neither.
      task: the task as results.json holds it, or None for a classification.

    Example:
      >>> row = PointRow("0.50", "grid", ("center",), 0.5, [0.5, 0.5], {"accuracy": 0.9, "nll": 0.3})
      >>> report = Report("Line()", {}, (row,), (), {}, None, {"accuracy": True, "nll": False})
      >>> report.center.nll, report.at(0.5).accuracy
      (0.3, 0.9)
    """

    subspace: str
    endpoints: Mapping[str, Any]
    points: tuple[PointRow, ...]
    ensembles: tuple[EnsembleRow, ...]
    reliability: Mapping[str, Any]
    connector: Mapping[str, Any] | None
    higher_is_better: Mapping[str, bool | None]
    task: Mapping[str, Any] | None = None
    data: ClassVar[str] = "test"
    """The data that was measured: "test" or "validation"."""

    @property
    def center(self) -> PointRow:
        """The midpoint."""
        return next(row for row in self.points if CENTER_ROLE in row.roles)

    @property
    def ends(self) -> tuple[PointRow, ...]:
        """The points at the ends of the subspace. A ring has no ends."""
        return tuple(row for row in self.points if END_ROLE in row.roles)

    def at(self, alpha: Any) -> PointRow:
        """The point that was evaluated at ``alpha``.

        Raises:
          ValueError: if no point was evaluated there. The message names the nearest point.
        """
        wanted = np.asarray(alpha, np.float64)
        rows = [row for row in self.points if row.alpha is not None and np.shape(row.alpha) == wanted.shape]
        if not rows:
            shape = list(np.shape(self.center.alpha))
            raise ValueError(f"alpha has shape {list(wanted.shape)}, but in {self.subspace} it has shape {shape}.")
        nearest = min(rows, key=lambda row: float(np.abs(np.asarray(row.alpha) - wanted).max(initial=0)))
        if not is_same(nearest.alpha, wanted):
            raise ValueError(
                f"no point was evaluated at alpha = {np.asarray(alpha).tolist()}. The nearest is {nearest.alpha}. Ask for more "
                "points (num_points), or list the alpha (ensemble)."
            )
        return nearest

    def ensemble(self, *alphas: Any) -> EnsembleRow:
        """The ensemble of the points at ``alphas``, in any order. Without an alpha, the ensemble of all ends.

        Raises:
          ValueError: if no such ensemble was evaluated. The message names the ensembles that were.
        """
        if not alphas and not self.ends:
            raise ValueError(
                f"{self.subspace} has no ends, so there is no ensemble of them. Name the alphas of an ensemble."
            )
        wanted = sorted(np.ravel(alpha).tolist() for alpha in (alphas or [row.alpha for row in self.ends]))
        alpha_of = {row.name: row.alpha for row in self.points}
        for row in self.ensembles:
            found = [alpha_of[member] for member in row.members]
            if len(found) == len(wanted) and all(alpha is not None for alpha in found):
                in_order = sorted(np.ravel(np.float32(alpha)).tolist() for alpha in found)
                if all(map(is_same, in_order, wanted)):
                    return row
        known = ", ".join(row.name for row in self.ensembles) or "missing"
        raise ValueError(
            f"no ensemble of {', '.join(map(str, alphas or self.ends))} was evaluated. The ensembles are: {known}. List the "
            "alphas of another one (ensemble)."
        )

    @property
    def predictors(self) -> list[dict[str, Any]]:
        """What the method is known by in a comparison: the midpoint, and every ensemble that is no mere pair of a path."""
        rows = [{"name": self.center.name, "networks": 1} | json_of(self.center.scores, self.center.intervals)]
        for row in self.ensembles:
            if row.kind != PAIR:
                rows.append({"name": row.name, "networks": len(row.members)} | json_of(row.scores, row.intervals))
        return rows

    def table(self) -> str:
        """Points, ensembles, distances and the connector's verdict, for a terminal."""
        return tables.table(self.to_json())

    def plot(self, path: str | pathlib.Path | None = None, score: str | None = None) -> Any:
        """A picture of a score over the subspace: a curve, a map of a two-dimensional grid, or a dot per point.

        Args:
          path: a PNG, PDF or SVG file to write. Without a path nothing is written.
          score: which score is drawn. The default is the main score of the task, accuracy for a classification.

        Returns:
          A matplotlib figure, which a notebook shows.

        Raises:
          ValueError: for an unknown score.
          ModuleNotFoundError: without matplotlib (the extra ``plot``).
        """
        score = score_names.main({"task": self.task}) if score is None else score
        self._check(score)
        figure = plots.over_subspace(self.to_json(), score, self.data)
        if path is not None:
            plots.save(figure, places.located(path, "the figure's file"))
        return figure

    def to_json(self) -> dict[str, Any]:
        """The report as results.json holds it: dictionaries, lists, strings and numbers."""
        return {
            "data": self.data,
            **({"task": dict(self.task)} if self.task else {}),
            "subspace": self.subspace,
            "endpoints": dict(self.endpoints),
            "points": [row.to_json() for row in self.points],
            "midpoint": self.center.name,
            "ensembles": [row.to_json() for row in self.ensembles],
            "predictors": self.predictors,
            **({"reliability": dict(self.reliability)} if self.reliability else {}),
            "connector": None if self.connector is None else dict(self.connector),
        }

    def _check(self, score: str) -> None:
        if score not in self.higher_is_better:
            raise ValueError(f"there is no score {score!r}. The scores are {', '.join(self.higher_is_better)}.")


@dataclasses.dataclass(frozen=True)
class ValidationReport(Report):
    """A report that was measured on validation batches, so that a point may be chosen by it."""

    data: ClassVar[str] = "validation"

    def best(self, score: str | None = None) -> PointRow:
        """The point with the best score. The default is the NLL, or the main score of a task without NLL.

        A score that is not finite is never the best, and neither is a network that was drawn and has no single alpha.

        Raises:
          ValueError: for an unknown score, a score that is neither better when higher nor when lower, or if no point has a
            finite one.
        """
        score = score_names.chosen_by({"task": self.task}) if score is None else score
        self._check(score)
        if self.higher_is_better[score] is None:
            known = ", ".join(name for name, direction in self.higher_is_better.items() if direction is not None)
            raise ValueError(f"no {score} is the best: neither higher nor lower is better. Choose by {known}.")
        sign = -1 if self.higher_is_better[score] else 1
        rows = [row for row in self.points if row.alpha is not None and math.isfinite(row.scores[score])]
        if not rows:
            raise ValueError(
                f"no point has a finite {score}, so there is no best one. Look at the networks or the data."
            )
        return min(rows, key=lambda row: sign * row.scores[score])
