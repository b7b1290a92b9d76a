"""What a trained subspace is worth: accuracy, calibration, ensembles and diversity along it.

All points are evaluated by one compiled program a batch, so that the data is read once whatever their number; every
ensemble is computed from the logits that its members already gave.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import ensembles, metrics, penalties, tree
from jsubspace.build import Run
from jsubspace.parallel import AXIS
from jsubspace.survey import Survey, survey
from jsubspace.types import Endpoints


class Sums(NamedTuple):
    """Masked sums over test examples.

    Attributes:
      points: of the p points, leaves ``[p, ...]``.
      by_probability, by_logit: of the e ensembles, by mean probability and by mean logit, leaves ``[e, ...]``.
      differences: between the members of each ensemble, mean over its pairs, leaves ``[e]``.
    """

    points: metrics.Classification
    by_probability: metrics.Classification | None
    by_logit: metrics.Classification | None
    differences: metrics.Difference | None


def evaluate(run: Run, endpoints: Endpoints) -> dict[str, Any]:
    """Everything that is measured of a run's endpoints; `report` says where it is written.

    Args:
      run: what the config stands for.
      endpoints: leaves ``[m, *s]``, on the run's devices.

    Returns:
      Numbers for JSON. ``endpoints``: the matrices ``l2`` and ``cosine_squared``, over the leaves that the penalty
      sees. ``points``: for each its name, alpha, weights, accuracy, nll, brier and ece. ``ensembles``: for each its
      name and members, the same four of the mean probability and of the mean logit, and disagreement, tv_distance and
      feature_cosine_squared of its members, mean over pairs. ``midpoint``: the name of the center. ``reliability``: of
      the midpoint, count, confidence and accuracy of every bin.
    """
    settings = run.config.evaluation
    plan = survey(run.subspace, settings.num_points, settings.num_random_points, run.evaluation_key)
    stats = reestimate_batch_stats(run, endpoints, plan)
    sums = test_sums(run, endpoints, plan, stats)
    return {
        "endpoints": _geometry(run, endpoints),
        "points": _point_rows(plan, sums),
        "ensembles": _ensemble_rows(plan, sums),
        "midpoint": plan.names[plan.center],
        "reliability": _reliability(jax.tree.map(lambda leaf: np.asarray(leaf)[plan.center], sums.points)),
    }


def reestimate_batch_stats(run: Run, endpoints: Endpoints, plan: Survey) -> Any:
    """BatchNorm statistics of every point: leaves ``[p, ...]``.

    The plain average over the batches of one epoch of training data, shuffled and augmented as in training, each
    batch in train mode. With ``config.evaluation.num_stats_batches``, over that many batches.
    """

    def batch_stats(endpoints: Endpoints, weights: jax.Array, batch: Any, key: jax.Array) -> Any:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, batch["number"][0]))
        images = run.pipeline.augment(augment_key, batch["image"], batch["index"])

        def at_point(c: jax.Array) -> Any:
            point = tree.contract(endpoints, c)
            _, updated = run.model.apply(
                {"params": point}, images, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats"]
            )
            return updated.get("batch_stats", {})

        return jax.lax.pmean(jax.lax.map(at_point, weights), AXIS)

    compiled = run.devices.compile(batch_stats)
    weights, key = run.devices.put(plan.weights), run.devices.put(run.evaluation_key)
    # The epoch after the last of training: an order that training has not seen.
    num_batches = run.config.evaluation.num_stats_batches or run.pipeline.steps_per_epoch
    batches = itertools.islice(run.pipeline.train_batches(run.total_steps), num_batches)
    numbered = (batch | {"number": np.full(len(batch["label"]), i, np.int32)} for i, batch in enumerate(batches))
    total = run.devices.sum_over(lambda batch: compiled(endpoints, weights, batch, key), numbered)
    return jax.tree.map(lambda leaf: leaf / num_batches, total)


def test_sums(run: Run, endpoints: Endpoints, plan: Survey, stats: Any) -> Sums:
    """`Sums` over the whole test set for all points and ensembles of the plan."""
    num_bins = run.config.evaluation.num_bins

    def sums_of_batch(endpoints: Endpoints, weights: jax.Array, stats: Any, batch: Any) -> Sums:
        images, labels, mask = run.pipeline.preprocess(batch["image"]), batch["label"], batch["mask"]

        def at_point(c_and_stats: tuple[jax.Array, Any]) -> Any:
            c, batch_stats = c_and_stats
            variables = {"params": tree.contract(endpoints, c), "batch_stats": batch_stats}
            return run.model.apply(variables, images, train=False)

        outputs = jax.lax.map(at_point, (weights, stats))
        return jax.lax.psum(summed(outputs.logits, outputs.features, labels, mask, plan.ensembles, num_bins), AXIS)

    compiled = run.devices.compile(sums_of_batch)
    weights = run.devices.put(plan.weights)
    return run.devices.sum_over(lambda batch: compiled(endpoints, weights, stats, batch), run.pipeline.test_batches())


def summed(
    logits: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    groups: tuple[tuple[int, ...], ...],
    num_bins: int,
) -> Sums:
    """`Sums` of a batch: logits ``[p, n, k]`` and features ``[p, n, f]`` of the points, whose places ``groups`` name."""
    log_probs = jax.nn.log_softmax(logits)

    def over_groups(of_group: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(of_group, groups)) if groups else None

    def classification(log_probs: jax.Array) -> metrics.Classification:
        return metrics.classification(log_probs, labels, mask, num_bins)

    def mean_difference(members: tuple[int, ...]) -> metrics.Difference:
        pairs = [
            metrics.difference((log_probs[i], log_probs[j]), (features[i], features[j]), mask)
            for i, j in itertools.combinations(members, 2)
        ]
        return jax.tree.map(lambda *leaves: sum(leaves) / len(pairs), *pairs)

    return Sums(
        classification(log_probs),
        over_groups(lambda members: classification(ensembles.mean_probability(logits[jnp.array(members)]))),
        over_groups(lambda members: classification(ensembles.mean_logit(logits[jnp.array(members)]))),
        over_groups(mean_difference),
    )


def _geometry(run: Run, endpoints: Endpoints) -> dict[str, Any]:
    l2 = jax.jit(lambda e: penalties.distances(e, run.mask))(endpoints)
    cosines = jax.jit(lambda e: penalties.cosines_squared(e, run.mask))(endpoints)
    return {"l2": np.asarray(l2).tolist(), "cosine_squared": np.asarray(cosines).tolist()}


def _point_rows(plan: Survey, sums: Sums) -> list[dict[str, Any]]:
    means = metrics.summarize(sums.points)
    return [
        {"name": name, "alpha": plan.alphas[i].tolist(), "weights": plan.weights[i].tolist()}
        | {metric: float(values[i]) for metric, values in means.items()}
        for i, name in enumerate(plan.names)
    ]


def _ensemble_rows(plan: Survey, sums: Sums) -> list[dict[str, Any]]:
    if sums.by_probability is None or sums.by_logit is None or sums.differences is None:
        return []
    by_probability, by_logit = metrics.summarize(sums.by_probability), metrics.summarize(sums.by_logit)
    differences = metrics.summarize_difference(sums.differences)
    return [
        {
            "name": name,
            "members": [plan.names[member] for member in members],
            "mean_probability": {metric: float(values[i]) for metric, values in by_probability.items()},
            "mean_logit": {metric: float(values[i]) for metric, values in by_logit.items()},
        }
        | {metric: float(values[i]) for metric, values in differences.items()}
        for i, (name, members) in enumerate(zip(plan.ensemble_names, plan.ensembles, strict=True))
    ]


def _reliability(sums: metrics.Classification) -> dict[str, Any]:
    """Of one point: count, mean confidence and accuracy of every bin; None where a bin is empty."""
    count = np.asarray(sums.bin_count)

    def mean(total: Any) -> list[float | None]:
        return [float(t / n) if n else None for t, n in zip(np.asarray(total), count, strict=True)]

    return {"count": count.tolist(), "confidence": mean(sums.bin_confidence), "accuracy": mean(sums.bin_correct)}
