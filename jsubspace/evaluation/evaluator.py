"""Evaluates all points of a subspace in one compiled program per batch.

The data is read once, whatever the number of points is. Every ensemble is computed from the outputs that its members
already gave. A few numbers per example and point leave the devices (`tasks`), and the host makes means, intervals and
verdicts from them.
"""

import collections
import copy
import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import loops, tree
from jsubspace.batch_stats import scaled
from jsubspace.evaluation import averaging
from jsubspace.evaluation.batches import ScoredBatch
from jsubspace.evaluation.devices import SAME, SPLIT, Devices, OneProgram
from jsubspace.evaluation.networks import Passes
from jsubspace.evaluation.positions import GAUSSIAN, LAYERWISE, WEIGHTWISE
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks.task import Outcomes, Task
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints, Params

DRAW = {
    LAYERWISE: averaging.layerwise_points,
    WEIGHTWISE: averaging.weightwise_points,
    GAUSSIAN: averaging.gaussian_points,
}
"""How the networks of each kind are drawn."""


class Evaluator:
    """The points of a plan, evaluated for any endpoints. The programs are compiled once.

    The work is spread over the devices by data: each device takes its part of every batch for all points. Where there are
    more points than examples in a batch, the work is spread by points: each device takes the whole batch for its share of
    the points.

    Args:
      network: what is evaluated.
      task: how outputs are scored.
      plan: the points and ensembles.
      devices: where the programs run. The default is one `jax.jit`, which follows the arrays' shardings.
      by_points: whether the work is spread by points. The network's collectives over devices must then be off.
    """

    def __init__(
        self,
        network: Passes,
        task: Task,
        plan: Survey,
        devices: Devices | None = None,
        by_points: bool = False,
    ) -> None:
        self._network, self._task, self._plan = network, task, plan
        self._devices: Devices = OneProgram() if devices is None else devices
        self._by_points = by_points and self._devices.axis_name is not None
        batch = SAME if self._by_points else SPLIT
        self._put_weights(plan.weights)
        self._stats_program = self._devices.compile(self._stats_of_batch, (SAME, SAME, batch))
        self._scores_program = self._devices.compile(self._outcomes_of_batch, (SAME, SAME, batch))

    def at(self, weights: np.ndarray) -> "Evaluator":
        """The same programs for other points: ``weights`` like the plan's, ``[p, M]``.

        Raises:
          ValueError: if they are not as many points and rows as in the plan. The programs would compute something else.
        """
        given, planned = np.shape(weights), np.shape(self._plan.weights)
        if given != planned:
            raise ValueError(
                f"Evaluator.at: the weights have the shape {list(given)}, but the plan has {list(planned)}, one row for each point. "
                "Make another Evaluator for another number of points."
            )
        other = copy.copy(self)
        other._put_weights(weights)
        return other

    def rows(self, endpoints: Endpoints, subspace: Subspace, key: jax.Array) -> Endpoints:
        """The endpoints, followed by the networks that the plan draws: leaves ``[M, *s]``."""
        if not self._plan.drawn:
            return endpoints

        def extended(endpoints: Endpoints, key: jax.Array) -> Endpoints:
            drawn = [
                DRAW[kind](jax.random.fold_in(key, i), endpoints, subspace, count)
                for i, (kind, count) in enumerate(self._plan.drawn)
            ]
            shared = tree.shared_leaves(endpoints)  # They stay one row. The networks that are drawn have them, too.
            return jax.tree.map(
                lambda is_shared, leaf, *others: leaf if is_shared else jnp.concatenate([leaf, *others]),
                *(shared, endpoints, *drawn),
            )

        return self._devices.run_once(extended, endpoints, self._devices.put(key))

    def batch_stats(
        self, rows: Endpoints, batches: Iterable[tuple[Any, ...]], weights: Iterable[float] | None = None
    ) -> Any:
        """Statistics of every point: leaves ``[p, ...]``, or None for a network that has no statistics.

        They are the average over training batches of each batch's own statistics, in train mode
        (`jsubspace.reestimate_batch_stats`), in float32 or wider.

        Args:
          rows: the result of `rows`.
          batches: training batches.
          weights: one number per batch. It is read after the batch, and without it all batches count alike.

        Raises:
          ValueError: if there is no batch.
        """
        if self._network.stats is None:
            return None
        counted: list[float] = []
        under_way: collections.deque[float] = collections.deque()  # The devices may read batches ahead.

        def counting() -> Iterable[Any]:
            given = itertools.repeat(1.0) if weights is None else iter(weights)
            for batch in batches:
                counted.append(next(given))
                under_way.append(counted[-1])
                yield batch

        def of_batch(batch: Any) -> Any:
            return scaled(self._stats_program(rows, self._weights, batch), under_way.popleft())

        total = self._devices.sum_over(of_batch, counting(), whole=self._by_points)
        if not counted:
            raise ValueError("there is no training batch. BatchNorm statistics of a point need at least one.")
        if not sum(counted) > 0:
            raise ValueError(
                f"the weights of the training batches sum to {sum(counted)}, and their sum must be positive."
            )
        return jax.tree.map(lambda leaf: leaf[: self._num_points] / sum(counted), total)

    def outcomes(self, rows: Endpoints, stats: Any, batches: Iterable[ScoredBatch]) -> Outcomes:
        """What every example says about all points and ensembles, on the host.

        Raises:
          ValueError: if there is no batch.
        """
        stats = self._devices.put(jax.tree.map(self._padded, stats))
        parts = [
            jax.tree.map(lambda leaf, mask=mask: leaf[..., mask], found)
            for found, mask in self._devices.map_over(
                lambda batch: self._scores_program(rows, (self._weights, stats), batch), batches, whole=self._by_points
            )
        ]
        if not parts:
            raise ValueError("there is no test batch. At least one example is needed.")
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1), *parts)

    def _put_weights(self, weights: np.ndarray) -> None:
        self._num_points = len(weights)
        self._weights = self._devices.put(self._padded(weights))

    def _padded(self, leaf: Any) -> Any:
        """``[p, ...]``, by points followed by copies of the last row until the devices divide it."""
        missing = -len(leaf) % self._devices.count if self._by_points else 0
        return jnp.concatenate([leaf, *[leaf[-1:]] * missing]) if missing else leaf

    def _over_points(self, function: Any, per_point: Any) -> Any:
        """``function`` of every point's row of ``per_point``, leaves ``[p, ...]``, on every device."""
        if not self._by_points:
            return loops.over(function, per_point)
        share = len(jax.tree.leaves(per_point)[0]) // self._devices.count
        axis: Any = self._devices.axis_name
        start = jax.lax.axis_index(axis) * share
        ours = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, share), per_point)
        return jax.lax.all_gather(loops.over(function, ours), axis, tiled=True)

    def _check_examples(self, reduced: Any, n: int) -> None:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(reduced)]
        if not shapes or any(shape[:1] != (n,) for shape in shapes):
            raise ValueError(
                f"the network gave {type(self._task).__name__} outputs of the shapes {[list(shape) for shape in shapes]} for a batch of "
                f"{n} examples. The leading axis of every output must be the examples."
            )

    def _is_split(self) -> bool:
        return self._devices.axis_name is not None and not self._by_points

    def _stats_of_batch(self, rows: Endpoints, weights: jax.Array, batch: Any) -> Any:
        inputs, stats_fn = self._network.augment(*batch), self._network.stats
        assert stats_fn is not None

        def at_point(c: jax.Array) -> Any:
            return stats_fn(tree.contract(rows, c), *inputs)

        stats = self._over_points(at_point, weights)
        stats = scaled(stats)
        return jax.lax.pmean(stats, self._devices.axis_name) if self._is_split() else stats

    def _outcomes_of_batch(
        self, rows: Endpoints, weights_and_stats: tuple[jax.Array, Any], batch: ScoredBatch
    ) -> tuple[Outcomes, jax.Array]:
        """Outcomes of the whole batch, on every device, and the batch's mask.

        The statistics are no argument of their own. If they are None, the program may have as many arrays as arguments, and
        ``pmap`` of jax 0.10 then takes the i-th array for the i-th argument.
        """
        inputs, combined = self._network.prepare(*batch.inputs), bool(self._plan.ensembles)

        def at_point(weights_and_stats: tuple[jax.Array, Any]) -> Any:
            c, of_point = weights_and_stats
            point: Params = tree.contract(rows, c)
            outputs = self._network.predict(point, of_point, *inputs)
            reduced = self._task.at_point(outputs, batch.targets, combined)
            self._check_examples(reduced, len(batch.mask))
            return reduced

        found = self._over_points(at_point, weights_and_stats)
        reduced = jax.tree.map(lambda leaf: leaf[: self._num_points], found)
        outcomes = (self._task.outcomes(reduced, batch.targets, self._plan.groups), batch.mask)
        if not self._is_split():
            return outcomes
        name: Any = self._devices.axis_name
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, name, axis=leaf.ndim - 1, tiled=True), outcomes)
