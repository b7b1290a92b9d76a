"""The rows of a report: points and ensembles with their scores, made from what examples say."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jsubspace import leaf_kinds, penalties
from jsubspace.evaluation import connectors
from jsubspace.evaluation.positions import RANDOM
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks.task import Outcomes, Task
from jsubspace.types import Endpoints


class _Scored:
    """A row with its scores as attributes: ``row.nll`` is ``row.scores["nll"]``."""

    def __getattr__(self, name: str) -> float:
        scores = self.__dict__.get("scores", {}) | self.__dict__.get("differences", {})
        if name in scores:
            return scores[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}. Its scores are {', '.join(scores)}.")


@dataclasses.dataclass(frozen=True)
class PointRow(_Scored):
    """A point and its scores.

    Attributes:
      name: for people.
      kind: how the point was chosen: grid, center, corner, mesh, random, layerwise, weightwise, gaussian, listed or network.
      roles: what the point is in the subspace: "center", "end", or neither.
      alpha: ``[*alpha_shape]`` as a number or lists. It is None for a network that was drawn and has no single alpha.
      weights: the weights of the endpoints, ``[m]``, or None where alpha is None.
      scores: means over examples, by name. They are also attributes of the row.
      intervals: a pair of bounds for each score. It is empty if no intervals were asked for.
    """

    name: str
    kind: str
    roles: tuple[str, ...]
    alpha: Any
    weights: list[float] | None
    scores: Mapping[str, float]
    intervals: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The row as results.json holds it."""
        names = {"name": self.name, "kind": self.kind, "roles": list(self.roles)}
        return names | {"alpha": self.alpha, "weights": self.weights} | json_of(self.scores, self.intervals)


@dataclasses.dataclass(frozen=True)
class EnsembleRow(_Scored):
    """An ensemble and its scores.

    Attributes:
      name: for people.
      kind: how the members were chosen: ends, pair, random, layerwise, weightwise, gaussian or listed.
      members: names of the points.
      scores: of the members' mean probability. They are also attributes of the row.
      intervals: a pair of bounds for each of these scores.
      mean_logit: for a classification, scores and intervals of the members' mean logit, as in results.json. Else it is empty.
      differences: for a classification, how differently the members predict, over all pairs of members
        (`estimates.summarize_difference`). Else it is empty.
    """

    name: str
    kind: str
    members: tuple[str, ...]
    scores: Mapping[str, float]
    intervals: Mapping[str, list[float]]
    mean_logit: Mapping[str, Any]
    differences: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """The row as results.json holds it."""
        names = {"name": self.name, "kind": self.kind, "members": list(self.members)}
        combined = {"mean_probability": json_of(self.scores, self.intervals)}
        by_logit = {"mean_logit": dict(self.mean_logit)} if self.mean_logit else {}
        return names | combined | by_logit | dict(self.differences)


def json_of(scores: Mapping[str, float], intervals: Mapping[str, list[float]]) -> dict[str, Any]:
    """Scores with their intervals, if there are any, as results.json holds them."""
    return dict(scores) | ({"intervals": dict(intervals)} if intervals else {})


def point_rows(
    plan: Survey, num_endpoints: int, outcomes: Outcomes, task: Task, num_resamples: int = 0
) -> tuple[PointRow, ...]:
    """One row per point, with intervals if there are resamples."""
    rows = []
    for i, (position, scores) in enumerate(
        zip(plan.positions, task.scores(outcomes.points, num_resamples), strict=True)
    ):
        intervals = scores.pop("intervals", {})
        alpha, weights = None, None
        if position.alpha is not None:
            alpha = np.asarray(position.alpha, np.float32).tolist()
            weights = plan.weights[i, :num_endpoints].tolist()
        rows.append(PointRow(position.name, position.kind, position.roles, alpha, weights, scores, intervals))
    return tuple(rows)


def ensemble_rows(plan: Survey, outcomes: Outcomes, task: Task, num_resamples: int = 0) -> tuple[EnsembleRow, ...]:
    """One row per ensemble, with intervals if there are resamples."""
    if outcomes.by_probability is None:
        return ()
    by_probability = task.scores(outcomes.by_probability, num_resamples)
    nothing: list[dict[str, Any]] = [{}] * len(by_probability)
    by_logit = nothing if outcomes.by_logit is None else task.scores(outcomes.by_logit, num_resamples)
    differences = nothing if outcomes.differences is None else task.differences(outcomes.differences)
    rows = []
    for found, scores, logit, differing in zip(plan.ensembles, by_probability, by_logit, differences, strict=True):
        members = tuple(plan.positions[member].name for member in found.members)
        intervals = scores.pop("intervals", {})
        rows.append(EnsembleRow(found.name, found.kind, members, scores, intervals, logit, differing))
    return tuple(rows)


def geometry(endpoints: Endpoints) -> dict[str, Any]:
    """L2 distances and squared cosines of all pairs, over the kernels and over all leaves. ``kernels`` is None without kernels."""

    def measured(endpoints: Endpoints, mask: Any) -> dict[str, jax.Array]:
        return {
            "l2": penalties.distances(endpoints, mask),
            "cosine_squared": penalties.cosines_squared(endpoints, mask),
        }

    masks: dict[str, Any] = {"kernels": leaf_kinds.kernels, "all_leaves": leaf_kinds.all_leaves}
    if not any(jax.tree.leaves(leaf_kinds.kernels(endpoints))):
        del masks["kernels"]
    # One program, because every program takes a while to compile.
    found = jax.jit(lambda e: {name: measured(e, mask) for name, mask in masks.items()})(endpoints)
    return {"kernels": None, **jax.tree.map(lambda matrix: np.asarray(matrix).tolist(), found)}


def connector(plan: Survey, outcomes: Outcomes, task: Task) -> dict[str, Any] | None:
    """Whether the subspace connects its ends (`connectors.verdict`), or None without ends or points to judge by."""
    s = len(plan.along)
    if not s:
        return None
    per_example = task.connects_by(outcomes.points)[:s]
    draws = tuple(i for i in range(s) if plan.along[i] > 0 and plan.positions[i].kind == RANDOM)
    found = connectors.verdict(
        per_example,
        plan.along,
        plan.ends,
        plan.combinations,
        draws=draws,
        tolerance=task.tolerance,
        higher_is_better=task.higher_is_better[task.main] is True,
        is_fraction=task.main in task.fractions,
    )
    score = {"score": task.main} if task.described else {}
    return found | {"barrier_at": plan.positions[found["barrier_at"]].name} | score
