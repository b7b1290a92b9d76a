"""What a trained subspace is worth: accuracy, calibration, ensembles and diversity along it.

All points are evaluated by one compiled program a batch, so that the data is read once whatever their number; every
ensemble is computed from the logits that its members already gave. What leaves the devices is a few numbers an example
and point (`metrics`), from which the host makes means, intervals and verdicts.
"""

import copy
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import tree
from jsubspace.evaluation import averaging, ensembles, metrics
from jsubspace.evaluation.metrics import Difference, Scores
from jsubspace.evaluation.survey import GAUSSIAN, LAYERWISE, WEIGHTWISE, Survey
from jsubspace.runs.build import Run
from jsubspace.training.parallel import AXIS, SAME, SPLIT
from jsubspace.types import Endpoints

DRAW = {
    LAYERWISE: averaging.layerwise_points,
    WEIGHTWISE: averaging.weightwise_points,
    GAUSSIAN: averaging.gaussian_points,
}


class Outcomes(NamedTuple):
    """What every example of a test set says.

    Attributes:
      points: of the p points, leaves ``[p, n]``.
      by_probability, by_logit: of the e ensembles, by mean probability and by mean logit, leaves ``[e, n]``.
      differences: between the members of each ensemble, mean over its pairs, leaves ``[e, n]``. The three of ensembles
        are None if there are none.
    """

    points: Scores
    by_probability: Scores | None
    by_logit: Scores | None
    differences: Difference | None


class Evaluator:
    """The points of a plan, evaluated for any endpoints; the programs are compiled once.

    The work is spread over the devices by data, each taking its part of every batch for all points; or, if there are more
    points than examples in a batch, by points, each taking all of every batch for its share of them.

    Args:
      run: what the config stands for.
      plan: the points and ensembles.
      by_points: how the work is spread; None for whichever is more.
    """

    def __init__(self, run: Run, plan: Survey, by_points: bool | None = None) -> None:
        self._run, self._plan = run, plan
        batch_size = min(run.batch_size, run.evaluation.batch_size)
        self._by_points = len(plan.weights) > batch_size if by_points is None else by_points
        # By points, nothing is averaged over devices while a network runs: they run different ones.
        self._model = (
            run.model.clone(axis_name=None) if self._by_points and hasattr(run.model, "axis_name") else run.model
        )
        self._key = run.devices.put(run.evaluation_key)
        self._put_weights(plan.weights)
        self._batch_stats, self._outcomes = (
            self._compiled(self._batch_stats_of, (SAME, SAME, SPLIT, SAME)),
            self._compiled(self._outcomes_of, (SAME, SAME, SAME, SPLIT)),
        )

    def at(self, weights: np.ndarray) -> "Evaluator":
        """The same programs for other points: ``weights`` like the plan's, ``[p, M]``."""
        other = copy.copy(self)
        other._put_weights(weights)
        return other

    def rows(self, endpoints: Endpoints) -> Endpoints:
        """The endpoints and, behind them, the networks that the plan draws: leaves ``[M, *s]``."""
        if not self._plan.drawn:
            return endpoints

        def extended(endpoints: Endpoints, key: jax.Array) -> Endpoints:
            drawn = [
                DRAW[kind](jax.random.fold_in(key, i), endpoints, self._run.evaluated, count)
                for i, (kind, count) in enumerate(self._plan.drawn)
            ]
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), endpoints, *drawn)

        return self._run.devices.run_once(extended, endpoints, self._key)

    def batch_stats(self, rows: Endpoints) -> Any:
        """BatchNorm statistics of every point: leaves ``[p, ...]``.

        The plain average over the batches of one epoch of training data, shuffled and augmented as in training, each
        batch in train mode. With ``config.evaluation.num_stats_batches``, over that many batches.
        """
        pipeline = self._run.pipeline
        # The epoch after the last of training: an order that training has not seen.
        num_batches = self._run.evaluation.num_stats_batches or pipeline.steps_per_epoch
        batches = itertools.islice(pipeline.train_batches(self._run.total_steps), num_batches)
        numbered = (batch | {"number": np.full(len(batch["label"]), i, np.int32)} for i, batch in enumerate(batches))
        total = self._run.devices.sum_over(
            lambda batch: self._batch_stats(rows, self._weights, batch, self._key), numbered, whole=self._by_points
        )
        return jax.tree.map(lambda leaf: leaf[: self._num_points] / num_batches, total)

    def outcomes(self, rows: Endpoints, stats: Any, batches: Iterable[Any]) -> Outcomes:
        """`Outcomes` of a test set for all points and ensembles, on the host."""
        stats = self._run.devices.put(jax.tree.map(self._padded, stats))
        parts = [
            jax.tree.map(lambda leaf, mask=mask: leaf[..., mask], outcomes)
            for outcomes, mask in self._run.devices.map_over(
                lambda batch: self._outcomes(rows, self._weights, stats, batch), batches, whole=self._by_points
            )
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1), *parts)

    def _compiled(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """``function`` on all devices; they have the batch whole if the work is spread by points."""
        devices = self._run.devices
        if not self._by_points:
            return devices.compile(function, arguments)
        return devices.compile(function, tuple(SAME for _ in arguments))

    def _put_weights(self, weights: np.ndarray) -> None:
        self._num_points = len(weights)
        self._weights = self._run.devices.put(self._padded(weights))

    def _padded(self, leaf: Any) -> Any:
        """``[p, ...]`` with the last row again and again, until the devices divide it; as it is if spread by data."""
        missing = -len(leaf) % len(self._run.devices.devices) if self._by_points else 0
        return jnp.concatenate([leaf, *[leaf[-1:]] * missing]) if missing else leaf

    def _over_points(self, function: Any, per_point: Any) -> Any:
        """``function`` of every point's row of ``per_point``, leaves ``[p, ...]``, on every device."""
        if not self._by_points:
            return jax.lax.map(function, per_point)
        share = len(jax.tree.leaves(per_point)[0]) // len(self._run.devices.devices)
        start = jax.lax.axis_index(AXIS) * share
        ours = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, share), per_point)
        return jax.lax.all_gather(jax.lax.map(function, ours), AXIS, tiled=True)

    def _batch_stats_of(self, rows: Endpoints, weights: jax.Array, batch: Any, key: jax.Array) -> Any:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, batch["number"][0]))
        images = self._run.pipeline.augment(augment_key, batch["image"], batch["index"])

        def at_point(c: jax.Array) -> Any:
            variables, rngs = {"params": tree.contract(rows, c)}, {"dropout": dropout_key}
            _, updated = self._model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])
            return updated.get("batch_stats", {})

        stats = self._over_points(at_point, weights)
        return stats if self._by_points else jax.lax.pmean(stats, AXIS)

    def _outcomes_of(self, rows: Endpoints, weights: jax.Array, stats: Any, batch: Any) -> tuple[Outcomes, jax.Array]:
        """Of the whole batch, on every device; and the batch's mask."""
        images, labels = self._run.pipeline.preprocess(batch["image"]), batch["label"]
        combined = bool(self._plan.ensembles)

        def at_point(c_and_stats: tuple[jax.Array, Any]) -> Any:
            c, batch_stats = c_and_stats
            variables = {"params": tree.contract(rows, c), "batch_stats": batch_stats}
            outputs = self._model.apply(variables, images, train=False)
            # Features are large, and nobody asks for them where nothing is compared.
            return outputs.logits, outputs.features if combined else None

        outputs = self._over_points(at_point, (weights, stats))
        logits, features = jax.tree.map(lambda leaf: leaf[: self._num_points], outputs)
        outcomes = (outcomes_of(logits, features, labels, self._plan.ensembles), batch["mask"])
        if self._by_points:
            return outcomes
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, AXIS, axis=leaf.ndim - 1, tiled=True), outcomes)


def outcomes_of(logits: jax.Array, features: Any, labels: jax.Array, groups: tuple[tuple[int, ...], ...]) -> Outcomes:
    """`Outcomes` of logits ``[p, n, k]`` and features ``[p, n, f]`` (None without groups) of points, whose places
    ``groups`` name."""
    log_probs = jax.nn.log_softmax(logits)

    def over_groups(of_group: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(of_group, groups)) if groups else None

    def mean_difference(members: tuple[int, ...]) -> Difference:
        pairs = [
            metrics.difference((log_probs[i], log_probs[j]), (features[i], features[j]), labels)
            for i, j in itertools.combinations(members, 2)
        ]
        return jax.tree.map(lambda *leaves: sum(leaves) / len(pairs), *pairs)

    return Outcomes(
        metrics.score(log_probs, labels),
        over_groups(lambda members: metrics.score(ensembles.mean_probability(logits[jnp.array(members)]), labels)),
        over_groups(lambda members: metrics.score(ensembles.mean_logit(logits[jnp.array(members)]), labels)),
        over_groups(mean_difference),
    )
