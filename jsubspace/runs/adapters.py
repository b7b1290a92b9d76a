"""A run as evaluation sees it: its network, its batches and its devices, adapted to `Evaluator`."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jsubspace import preemption
from jsubspace.data.protocol import Data
from jsubspace.evaluation.batches import ScoredBatch
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.networks import Passes
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks import Outcomes, Task
from jsubspace.runs import problem_checks
from jsubspace.runs.build import Run
from jsubspace.runs.digests import Digest
from jsubspace.runs.problem import Batches
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
    return Evaluator(passes(run, by_points), task, plan, run.devices, by_points)


def spreads_points(run: Run, num_points: int) -> bool:
    """Whether devices divide the points among them, and not the examples: there are more points than examples in a batch.

    One program for all devices (`training.parallel.Partitioned`) always divides the examples.
    """
    data = run.problem.data
    return run.devices.axis_name is not None and num_points > min(data.batch_size, eval_batch_size(data))


def eval_batch_size(data: Data) -> int:
    """The number of examples in a test batch, over all devices."""
    return data.eval_batch_size or data.batch_size


def passes(run: Run, by_points: bool = False) -> Passes:
    """The passes through the run's network, with its data's augmentation before them.

    With ``by_points``, devices run different networks, and BatchNorm does not average over devices.
    """
    problem = run.problem
    network = problem.network.on_one_device if by_points else problem.network

    def augment(*batch: jax.Array) -> tuple[Any, ...]:
        *arrays, number = batch
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(run.evaluation_key, number[0]))
        inputs, _ = problem.separated(problem.data.augment(augment_key, *arrays))
        return *inputs, dropout_key

    def stats(point: Params, *inputs_and_key: Any) -> Any:
        *inputs, dropout_key = inputs_and_key
        assert network.stats is not None
        return network.stats(point, *inputs, key=dropout_key)

    def predict(point: Params, stats: Any, *inputs: jax.Array) -> Any:
        return network.apply(point, *inputs, stats=stats)

    return Passes(predict, None if network.stats is None else stats, problem.data.prepare, augment)


def train_batches(run: Run) -> Iterator[tuple[Any, ...]]:
    """The training batches for BatchNorm statistics: the arrays of a batch, and last the number of the batch.

    They are one epoch of training data, shuffled and augmented as in training, in an order that training has not seen: of
    the epoch after the last. With the setting ``num_stats_batches`` they are the first batches of that epoch. A stream has no
    such epoch, and its first epoch is taken.
    """
    data = run.problem.data
    count = run.evaluation.num_stats_batches or data.steps_per_epoch
    batches = data.train_batches(0 if data.is_stream else run.total_steps, run.shard)
    for number, batch in enumerate(itertools.islice(batches, count)):
        preemption.check()
        yield *batch, np.full(len(batch[0]), number, np.int32)


def batch_stats(run: Run, evaluator: Evaluator, rows: Endpoints) -> Any:
    """Statistics of every point from the run's training batches (`Evaluator.batch_stats`)."""
    return evaluator.batch_stats(rows, train_batches(run))


def on_test_data(run: Run, evaluator: Evaluator, rows: Endpoints, stats: Any, digest: Digest | None = None) -> Outcomes:
    """What every test example of the run says (`Evaluator.outcomes`). ``digest`` sees the targets as they pass by."""
    return outcomes_of(run, evaluator, rows, stats, "test", run.problem.data.test_batches(run.shard), digest)


def on_validation_data(run: Run, evaluator: Evaluator, rows: Endpoints, stats: Any) -> Outcomes:
    """What every validation example of the run says (`Evaluator.outcomes`)."""
    return outcomes_of(run, evaluator, rows, stats, "validation", run.problem.data.validation_batches(run.shard))


def outcomes_of(
    run: Run,
    evaluator: Evaluator,
    rows: Endpoints,
    stats: Any,
    name: str,
    batches: Batches,
    digest: Digest | None = None,
) -> Outcomes:
    """What every example of the batches says (`Evaluator.outcomes`). ``name`` is what the data is called in a message.

    Raises:
      UsageError: if a target is wrong.
    """
    found = evaluator.outcomes(rows, stats, scored(run, batches, name, digest))
    problem_checks.check_outcomes(run.problem, name, found)
    return found


def scored(run: Run, batches: Batches, name: str = "test", digest: Digest | None = None) -> Iterator[ScoredBatch]:
    """Test or validation batches of the data as the evaluator takes them, with their targets checked on the host.

    ``digest`` gets the targets. A task without targets is about its inputs, and ``digest`` then gets the inputs.

    Raises:
      UsageError: if a target is wrong. ``name`` is what the data is called in the message.
    """
    for number, (arrays, mask) in enumerate(batches):
        preemption.check()
        inputs, targets = run.problem.separated(arrays)
        problem_checks.check_targets(run.problem, name, number, targets, mask)
        if digest is not None:
            digest.add(targets or inputs, mask)
        yield ScoredBatch(inputs, targets, mask)
