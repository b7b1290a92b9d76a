"""Checks that the network, the task and the data of a problem fit each other, before anything is written or trained."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.data.protocol import Arrays, Data
from jsubspace.data.shards import WHOLE_BATCH
from jsubspace.errors import UsageError, one_line
from jsubspace.evaluation.tasks import Outcomes
from jsubspace.evaluation.tasks import task as tasks
from jsubspace.network import Network
from jsubspace.runs.problem import Problem
from jsubspace.training.parallel import DataParallel
from jsubspace.training.train_step import task_loss
from jsubspace.types import Params

log = logging.getLogger(__name__)


def check(problem: Problem) -> None:
    """Reads the first batch of training, test and validation data, and computes the shapes of what a run makes of them.

    The targets of all examples are checked if they are in memory (`Data.in_memory`), and else the targets of the first batch.

    Raises:
      UsageError: if a part of the problem is missing or is of another kind, there is no training or test batch, a target is
        wrong, or the parts do not fit each other.
    """
    _check_kinds(problem)
    data, point = problem.data, point_of(problem)
    if data.steps_per_epoch < 1 or data.num_train < 1:
        raise UsageError(
            "the data of the problem has no training batch. Training needs batches, and so do statistics of BatchNorm."
        )
    batch = _first("training", data.train_batches(0, WHOLE_BATCH))
    num_arrays = _check_train_batch(problem, point, batch)
    _check_scored_batch(problem, point, "test", _first("test", data.test_batches(WHOLE_BATCH)), batch[:num_arrays])
    if data.num_validation:
        _check_scored_batch(problem, point, "validation", _first("validation", data.validation_batches(WHOLE_BATCH)))


def check_targets(
    problem: Problem, name: str, number: int, targets: Arrays, mask: Any = None, outputs: Any = None, where: str = ""
) -> None:
    """Checks the targets of a batch on the host.

    Args:
      problem: whose task knows what targets are.
      name: what the data is called in a message, as "test".
      number: the number of the batch.
      targets: arrays ``[n, ...]``.
      mask: bool ``[n]``, False for padding, which is not checked. None without padding.
      outputs: the network's outputs, traced, for `Task.check_range`. None for `Task.check_targets`.
      where: ends the message.

    Raises:
      UsageError: if a target is wrong.
    """
    arrays = tuple(map(np.asarray, targets))
    if mask is not None and not np.all(mask):
        arrays = tuple(array[np.asarray(mask)] for array in arrays)
    if mask is not None and not np.any(mask):
        return  # Every example of this host is padding.
    try:
        if outputs is None:
            problem.task.check_targets(number, *arrays)
        else:
            problem.task.check_range(number, outputs, *arrays)
    except ValueError as error:
        raise _of_data(name, error, where) from error


def check_outcomes(problem: Problem, name: str, outcomes: Outcomes) -> None:
    """Raises a UsageError if the numbers per example show a mistake in the targets of the data ``name``."""
    try:
        problem.task.check_outcomes(outcomes)
    except ValueError as error:
        raise _of_data(name, error) from error


def warn_of_parts(network: Network, devices: DataParallel) -> None:
    """Warns if BatchNorm sees each device's part of a batch alone. The number of devices then changes the results."""
    if network.stats is not None and network.alone is None and devices.axis_name is not None and devices.count > 1:
        log.warning(
            "BatchNorm of the network sees the part of a batch on each of the %d devices alone, so the results depend on their number. "
            'They do not with parallel = "jit", and with a BatchNorm that averages over the axis "batch" (docs/own_problem.md).',
            devices.count,
        )


def point_of(problem: Problem) -> Params:
    """The shapes and dtypes of the network's parameters.

    Raises:
      UsageError: if the network makes no parameters, or others than floating-point arrays.
    """
    point = _shapes("network.init(key)", problem.network.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(point)
    wrong = [(path, leaf) for path, leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not leaves or wrong:
        found = (
            f"the leaf {jax.tree_util.keystr(wrong[0][0])} is {wrong[0][1].dtype}" if wrong else "it returns no array"
        )
        raise UsageError(
            f"network.init(key) of the problem must return floating-point arrays alone, but {found}. Keep other arrays inside of "
            "the network's functions, as jsubspace.models.adapters does for modules of Flax and Equinox."
        )
    return point


def _check_kinds(problem: Problem) -> None:
    if not isinstance(problem, Problem):
        raise UsageError(
            f"the problem is a {type(problem).__name__}. It must be a jsubspace.training.Problem(network, task, data)."
        )
    if not isinstance(problem.network, Network):
        raise UsageError(
            f"the network of the problem is a {type(problem.network).__name__}. jsubspace.models.adapters makes a network from a "
            "module of Flax or Equinox, or from functions."
        )
    if not isinstance(problem.data, Data):
        raise UsageError(
            f"the data of the problem is a {type(problem.data).__name__}, which cannot resume at a step. For arrays in memory use "
            "jsubspace.data.arrays.ArrayData, for Grain jsubspace.data.from_grain.from_grain, and for anything else a subclass "
            "of jsubspace.data.protocol.Data."
        )
    try:
        tasks.checked(problem.task)
    except ValueError as error:
        raise UsageError(f"the problem: {str(error).removeprefix('measure: ')}") from error


def _check_train_batch(problem: Problem, point: Params, batch: Arrays) -> int:
    """The number of inputs and targets. A batch may hold further arrays behind them, for the augmentation."""
    network, key = problem.network.on_one_device, jax.random.key(0)
    plain = _plain(problem, "training", batch)
    inputs, _ = problem.separated(plain)
    shapes = tuple(map(_shape, batch))
    examples = _shapes("data.augment(key, *batch)", problem.data.augment, key, *shapes)
    if [array.shape for array in examples] != [array.shape for array in plain]:
        found, expected = (", ".join(str(list(array.shape)) for array in arrays) for arrays in (examples, plain))
        raise UsageError(
            f"data.augment of the problem returns arrays of the shapes {found}, but evaluation gets {expected} (data.prepare). "
            "Both return the network's inputs and the targets."
        )
    _shapes("the loss in train mode", task_loss(network, problem.task), point, examples, key)
    if network.stats is not None:
        _shapes("network.stats", network.stats, point, *inputs, key=key)
    return len(plain)


def _check_scored_batch(problem: Problem, point: Params, name: str, batch: Any, train: Arrays | None = None) -> None:
    """Checks a batch, and the targets of the training data, ``train``, against the outputs of the network in evaluation mode."""
    if not isinstance(batch, tuple) or len(batch) != 2 or np.shape(batch[1]) != np.shape(batch[0][0])[:1]:
        raise UsageError(
            f"data.{name}_batches of the problem yields a {type(batch).__name__}. It must yield pairs: the arrays of a batch, and a "
            "mask with one bool per example, which is False for padding."
        )
    network = problem.network.on_one_device
    inputs, targets = problem.separated(_plain(problem, name, *batch))
    stats = None
    if network.stats is not None:
        stats = _shapes("network.stats", network.stats, point, *inputs, key=jax.random.key(0))

    def scored(point: Params, stats: Any, inputs: Arrays, targets: Arrays) -> Any:
        outputs = network.apply(point, *inputs, stats=stats)
        reduced = problem.task.at_point(outputs, targets, True)
        if train is not None:
            _check_targets(problem, "training", train, outputs=outputs)
        _check_targets(problem, name, *batch, outputs=outputs)
        return reduced

    _shapes(f"the network in evaluation mode on the {name} data", scored, point, stats, inputs, targets)


def _plain(problem: Problem, name: str, batch: Arrays, mask: Any = None) -> Arrays:
    """The shapes of the inputs and targets of a batch. The content of the targets is checked on the host."""
    num_targets = len(problem.task.target_names)
    if not isinstance(batch, tuple) or len(batch) < 1 + num_targets:
        names = " and the ".join(problem.task.target_names)
        raise UsageError(
            f"a {name} batch of the problem is a {type(batch).__name__} of {len(batch)} arrays. For {type(problem.task).__name__} it "
            f"must be a tuple of the network's inputs{f' and, last, the {names}' if names else ''}."
        )
    plain = _shapes("data.prepare(*batch)", problem.data.prepare, *map(_shape, batch))
    _check_targets(problem, name, batch[: len(plain)], mask)
    return plain


def _check_targets(problem: Problem, name: str, batch: Arrays, mask: Any = None, outputs: Any = None) -> None:
    """`check_targets` for all examples if they are in memory, and else for the first batch."""
    if not problem.task.target_names:
        return
    examples, data = problem.data.in_memory(name), problem.data
    if examples is None:
        check_targets(problem, name, 0, problem.separated(batch)[1], mask, outputs)
        return
    size = data.batch_size if name == "training" else data.eval_batch_size or data.batch_size
    _, targets = problem.separated(examples[: len(batch)])
    for number, start in enumerate(range(0, len(targets[0]), size)):
        chosen = tuple(array[start : start + size] for array in targets)
        where = f" Batch {number} has the examples {start} to {start + len(chosen[0]) - 1} of the arrays."
        check_targets(problem, name, number, chosen, None, outputs, where)


def _of_data(name: str, error: ValueError, where: str = "") -> UsageError:
    return UsageError(f"the {name} data of the problem: {str(error).removeprefix('measure: ')}{where}")


def _first(name: str, batches: Any) -> Any:
    for batch in batches:
        return batch
    hint = "Set num_validation to 0 if there is none." if name == "validation" else "A run needs at least one example."
    raise UsageError(f"the data of the problem has no {name} batch. {hint}")


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype that an array of the host has on a device."""
    array = np.asarray(array)
    return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))


def _shapes(what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The shapes that a user's function returns.

    Raises:
      UsageError: whatever the function raises. The message names the function.
    """
    try:
        return jax.eval_shape(function, *args, **kwargs)
    except UsageError:
        raise
    except Exception as error:  # The function is the user's, and may raise anything.
        brief = str(error) if type(error) is ValueError else one_line(error)
        raise UsageError(f"the problem cannot be trained. {what} failed: {brief}") from error
