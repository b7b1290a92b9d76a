"""Everything that is measured of a finished run, as numbers for JSON: the main part of results.json."""

from typing import Any

import jax
import numpy as np

from jsubspace import penalties, tree
from jsubspace.evaluation import connectors, estimates
from jsubspace.evaluation.evaluator import Evaluator, Outcomes
from jsubspace.evaluation.survey import GAUSSIAN, GLOBAL, LAYERWISE, Survey, center_alone, survey
from jsubspace.runs import config as config_lib
from jsubspace.runs import landscape
from jsubspace.runs.build import Run
from jsubspace.subspaces import Point, Simplex
from jsubspace.types import Endpoints


def measure(run: Run, endpoints: Endpoints) -> dict[str, Any]:
    """What is known of a run's endpoints, after one pass over the test set.

    Args:
      run: what the config stands for.
      endpoints: of ``run.evaluated``, leaves ``[m, *s]``, on the run's devices.

    Returns:
      A dictionary for JSON. *Scores* are accuracy, nll (nats), brier, ece and adaptive_ece, and under ``intervals`` a
      pair of bounds for each (`estimates`).

      subspace: what was evaluated, as ``Simplex(num_endpoints=3)``.
      endpoints: for ``kernels`` and ``all_leaves``, the matrices ``l2`` and ``cosine_squared``.
      points: of each its name, alpha (None for a network drawn at random), weights of the endpoints (likewise) and scores.
      midpoint: the name of the center.
      ensembles: of each its name, members, the scores of ``mean_probability`` and of ``mean_logit``, and disagreement,
        disagreement_where_one_is_right, tv_distance and feature_cosine_squared of the members, mean over pairs.
      predictors: what the method is known by, for a comparison: name, number of networks it takes, scores.
      reliability: of the midpoint, count, confidence and accuracy of every bin.
      connector: `connectors.verdict`, with the name of the barrier's point; None for a single network.
      sharpness, plane: `landscape`; None if not asked for.
      shifted: for every corrupted test set that was asked for, ``points`` and ``ensembles`` as above, without intervals.
    """
    settings = run.evaluation
    plan = survey(
        run.evaluated,
        settings.num_points,
        settings.num_random_points,
        run.evaluation_key,
        config_lib.split(settings.random_points) or default_kinds(run),
        settings.ensemble,
    )
    evaluator = Evaluator(run, plan)
    rows = evaluator.rows(endpoints)
    stats = evaluator.batch_stats(rows)
    outcomes = evaluator.outcomes(rows, stats, run.pipeline.test_batches())
    num_bins, num_resamples = settings.num_bins, settings.num_resamples
    points = point_rows(plan, run.evaluated.num_endpoints, outcomes, num_bins, num_resamples)
    combined = ensemble_rows(plan, outcomes, num_bins, num_resamples)
    shifted = {}
    for name, batches in run.shifted_batches():
        under_shift = evaluator.outcomes(rows, stats, batches)  # statistics of clean training data
        shifted[name] = {
            "points": point_rows(plan, run.evaluated.num_endpoints, under_shift, num_bins),
            "ensembles": ensemble_rows(plan, under_shift, num_bins),
        }
    return {
        "subspace": repr(run.evaluated),
        "endpoints": geometry(endpoints),
        "points": points,
        "midpoint": plan.names[plan.center],
        "ensembles": combined,
        "predictors": predictors(plan, points, combined),
        "reliability": estimates.reliability(jax.tree.map(lambda x: x[plan.center], outcomes.points), num_bins),
        "connector": connector(plan, outcomes, run, num_resamples),
        "sharpness": landscape.sharpness(run, rows, plan, stats) if settings.sharpness_batches else None,
        "plane": landscape.loss_plane(run, endpoints) if settings.plane_points else None,
        "shifted": shifted,
    }


class Midpoint:
    """Tests the midpoint of a run while it trains."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._evaluator = Evaluator(run, center_alone(run.subspace))

    def __call__(self, endpoints: Endpoints) -> dict[str, float]:
        """Scores of the midpoint, with BatchNorm statistics of its own."""
        stats = self._evaluator.batch_stats(endpoints)
        outcomes = self._evaluator.outcomes(endpoints, stats, self._run.pipeline.test_batches())
        means = estimates.summarize(outcomes.points, self._run.evaluation.num_bins)
        return {name: float(values[0]) for name, values in means.items()}


def early_stopping(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The best test of the midpoint during training, by accuracy: optimal early stopping. None if there was no test.

    Optimal, because it is chosen on the test set: a bound for what stopping early can give, as in the paper.

    Args:
      rows: of metrics.jsonl.
    """
    tests = [row for row in rows if row["kind"] == "test"]
    if not tests:
        return None
    best = max(tests, key=lambda row: row["accuracy"])
    return {name: best[name] for name in ("epoch", "step", *_SCORES) if name in best}


def default_kinds(run: Run) -> tuple[str, ...]:
    """The random points that the method is known by: none on a line or curve."""
    if not isinstance(run.evaluated, Simplex) or run.evaluated.num_endpoints < 2:
        return ()
    layerwise = (LAYERWISE,) if run.layerwise else ()
    return (GLOBAL, *layerwise, *((GAUSSIAN,) if run.collects else ()))


def point_rows(
    plan: Survey, num_endpoints: int, outcomes: Outcomes, num_bins: int, num_resamples: int = 0
) -> list[dict[str, Any]]:
    """A row a point; with intervals if there are resamples."""
    scores = _scores(outcomes.points, num_bins, num_resamples)
    rows = []
    for i, name in enumerate(plan.names):
        is_position = i < len(plan.alphas)
        alpha = plan.alphas[i].tolist() if is_position else None
        weights = plan.weights[i, :num_endpoints].tolist() if is_position else None
        rows.append({"name": name, "alpha": alpha, "weights": weights} | scores[i])
    return rows


def ensemble_rows(plan: Survey, outcomes: Outcomes, num_bins: int, num_resamples: int = 0) -> list[dict[str, Any]]:
    """A row an ensemble; with intervals if there are resamples."""
    if outcomes.by_probability is None or outcomes.by_logit is None or outcomes.differences is None:
        return []
    by_probability = _scores(outcomes.by_probability, num_bins, num_resamples)
    by_logit = _scores(outcomes.by_logit, num_bins, num_resamples)
    differences = estimates.summarize_difference(outcomes.differences)
    return [
        {
            "name": name,
            "members": [plan.names[member] for member in members],
            "mean_probability": by_probability[i],
            "mean_logit": by_logit[i],
        }
        | {measured: float(values[i]) for measured, values in differences.items()}
        for i, (name, members) in enumerate(zip(plan.ensemble_names, plan.ensembles, strict=True))
    ]


def predictors(plan: Survey, points: list[dict[str, Any]], combined: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The midpoint, and the main ensembles by mean probability."""
    midpoint = points[plan.center]
    rows = [{"name": midpoint["name"], "networks": 1} | {name: midpoint[name] for name in _SCORES}]
    for row in combined:
        if row["name"] in plan.main_ensembles:
            rows.append({"name": row["name"], "networks": len(row["members"])} | row["mean_probability"])
    return rows


def geometry(endpoints: Endpoints) -> dict[str, Any]:
    """L2 distances and squared cosines of all pairs, over the kernels and over all leaves."""

    def measured(mask: Any) -> dict[str, Any]:
        l2 = jax.jit(lambda e: penalties.distances(e, mask))(endpoints)
        cosines = jax.jit(lambda e: penalties.cosines_squared(e, mask))(endpoints)
        return {"l2": np.asarray(l2).tolist(), "cosine_squared": np.asarray(cosines).tolist()}

    return {"kernels": measured(tree.kernels), "all_leaves": measured(tree.all_leaves)}


def connector(plan: Survey, outcomes: Outcomes, run: Run, num_resamples: int) -> dict[str, Any] | None:
    """Whether the subspace connects its ends; None for a single network, or without points to tell by."""
    if isinstance(run.evaluated, Point) or not len(plan.along) or len(plan.ends) < 2:
        return None
    s = len(plan.along)
    alphas = plan.alphas[:s].astype(np.float64)
    combinations = alphas if isinstance(run.evaluated, Simplex) else np.stack([1 - alphas, alphas], axis=-1)
    found = connectors.verdict(
        np.asarray(outcomes.points.correct)[:s], plan.along, plan.ends, combinations, num_resamples=num_resamples
    )
    return found | {"barrier_at": plan.names[found["barrier_at"]]}


_SCORES = ("accuracy", "nll", "brier", "ece", "adaptive_ece", "intervals")


def _scores(scores: Any, num_bins: int, num_resamples: int) -> list[dict[str, Any]]:
    """Of every network, its means and, if there are resamples, their intervals."""
    means = estimates.summarize(scores, num_bins)
    bounds = estimates.intervals(scores, num_bins, num_resamples) if num_resamples else {}
    rows = []
    for i in range(len(means["accuracy"])):
        row: dict[str, Any] = {name: float(values[i]) for name, values in means.items()}
        if bounds:
            row["intervals"] = {name: values[i].tolist() for name, values in bounds.items()}
        rows.append(row)
    return rows
