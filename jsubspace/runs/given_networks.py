"""Networks in files and the problem that they solve, as the functions of `merging` take them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace import preemption
from jsubspace.data.shards import WHOLE_BATCH
from jsubspace.errors import UsageError
from jsubspace.exchange import saved
from jsubspace.exchange.leaf_files import Stored
from jsubspace.runs import problem_checks
from jsubspace.runs.problem import Problem
from jsubspace.types import Params


def networks(problem: Problem, stored: Sequence[Stored]) -> dict[str, Params]:
    """The networks in files, by their paths, in the tree of the problem's network.

    Raises:
      UsageError: if a file does not hold a network of the problem.
    """
    like = problem_checks.point_of(problem)
    return {str(one.path): saved.read(one, like, "") for one in stored}


def log_prob_fn(problem: Problem) -> Callable[..., jax.Array]:
    """``(point, *batch) -> [n]``: minus the task's loss of every example, in evaluation mode.

    A network with BatchNorm normalises by the batch, so that no point needs statistics of training data.
    """
    network = problem.network.on_one_device

    def per_example(point: Params, *batch: jax.Array) -> jax.Array:
        inputs, targets = problem.separated(batch)
        inputs = problem.data.prepare(*inputs)
        stats = None if network.stats is None else network.stats(point, *inputs)
        return -problem.task.losses(network.apply(point, *inputs, stats=stats), *targets)

    return per_example


def validation_batches(problem: Problem) -> list[tuple[np.ndarray, ...]]:
    """The validation examples of the problem, without padding.

    Raises:
      UsageError: if it has no validation examples, or a target is wrong.
    """
    found = []
    for number, (arrays, mask) in enumerate(problem.data.validation_batches(WHOLE_BATCH)):
        preemption.check()
        problem_checks.check_targets(problem, "validation", number, problem.separated(arrays)[1], mask)
        found.append(tuple(np.asarray(array)[np.asarray(mask)] for array in arrays))
    if not found:
        raise UsageError(
            "the data of the problem has no validation examples, and test examples may not choose a network. Keep some training examples "
            "apart, as in ArrayData(validation=(x, y))."
        )
    return found


def facts(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights as JSON holds them."""
    return {name: facts(value) if isinstance(value, Mapping) else float(value) for name, value in weights.items()}
