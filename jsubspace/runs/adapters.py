"""A run as evaluation sees it: its network, its batches and its devices, adapted to `Evaluator`."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jsubspace import preemption
from jsubspace.evaluation.batches import ScoredBatch
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.networks import Network
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks import Outcomes, Task
from jsubspace.runs.build import Run
from jsubspace.types import Endpoints, Params


def evaluator(run: Run, task: Task, plan: Survey, by_points: bool | None = None) -> Evaluator:
    """The evaluator of a run's network on the run's devices.

    Args:
      run: a run.
      task: how outputs are scored.
      plan: the points and ensembles.
      by_points: whether the work is spread over the devices by points. None means yes if there are more points than
        examples in a batch.
    """
    by_points = spreads_points(run, len(plan.weights)) if by_points is None else by_points
    return Evaluator(network(run, by_points), task, plan, run.devices, by_points)


def spreads_points(run: Run, num_points: int) -> bool:
    """Whether devices divide the points among them, and not the examples: there are more points than examples in a batch."""
    return num_points > min(run.batch_size, run.evaluation.batch_size)


def network(run: Run, by_points: bool = False) -> Network:
    """The run's network. With ``by_points``, devices run different networks, and BatchNorm does not average over devices."""
    model = run.model.clone(axis_name=None) if by_points and hasattr(run.model, "axis_name") else run.model

    def augment(images: jax.Array, index: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(run.evaluation_key, number[0]))
        return run.pipeline.augment(augment_key, images, index), dropout_key

    def stats(point: Params, images: jax.Array, dropout_key: jax.Array) -> Any:
        variables, rngs = {"params": point}, {"dropout": dropout_key}
        return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])[1]["batch_stats"]

    def predict(point: Params, batch_stats: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = model.apply({"params": point, "batch_stats": batch_stats or {}}, images, train=False)
        return outputs.logits, outputs.features

    return Network(
        predict,
        stats if run.has_batch_stats else None,
        prepare=lambda images: (run.pipeline.preprocess(images),),
        augment=augment,
    )


def train_batches(run: Run) -> Iterator[tuple[Any, ...]]:
    """The training batches for BatchNorm statistics: images, their places in the batch, and the number of the batch.

    They are one epoch of training data, shuffled and augmented as in training, in an order that training has not seen: of
    the epoch after the last. With the setting ``num_stats_batches`` they are the first batches of that epoch.
    """
    count = run.evaluation.num_stats_batches or run.pipeline.steps_per_epoch
    batches = itertools.islice(run.pipeline.train_batches(run.total_steps), count)
    for number, batch in enumerate(batches):
        preemption.check()
        yield batch["image"], batch["index"], np.full(len(batch["label"]), number, np.int32)


def batch_stats(run: Run, evaluator: Evaluator, rows: Endpoints) -> Any:
    """Statistics of every point from the run's training batches (`Evaluator.batch_stats`)."""
    return evaluator.batch_stats(rows, train_batches(run))


def on_test_data(run: Run, evaluator: Evaluator, rows: Endpoints, stats: Any) -> Outcomes:
    """What every test example of the run says (`Evaluator.outcomes`)."""
    return evaluator.outcomes(rows, stats, scored(run.pipeline.test_batches()))


def on_validation_data(run: Run, evaluator: Evaluator, rows: Endpoints, stats: Any) -> Outcomes:
    """What every validation example of the run says (`Evaluator.outcomes`)."""
    return evaluator.outcomes(rows, stats, scored(run.pipeline.validation_batches()))


def scored(batches: Iterable[dict[str, Any]]) -> Iterator[ScoredBatch]:
    """A pipeline's test or validation batches as the evaluator takes them."""
    for batch in batches:
        preemption.check()
        yield ScoredBatch((batch["image"],), (batch["label"],), batch["mask"])
