"""One step of training: the gradient, written for one device, and the update. `parallel` makes it run on all devices."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jsubspace import algorithm
from jsubspace.evaluation.devices import SAME, SPLIT
from jsubspace.evaluation.tasks import Task
from jsubspace.network import Network
from jsubspace.objectives import Objective
from jsubspace.shares import Shares
from jsubspace.storage.journal import Report
from jsubspace.subspaces import Subspace
from jsubspace.training.averages import trained
from jsubspace.training.parallel import DataParallel
from jsubspace.training.train_state import TrainState
from jsubspace.types import Endpoints, Params

Batch = tuple[Any, ...]
"""The arrays of a batch, ``[n, ...]``."""

Scores = dict[str, jax.Array]
TrainLoss = Callable[[Params, Batch, jax.Array], tuple[jax.Array, Scores]]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Report]]


class Given(NamedTuple):
    """Arrays that a step reads and does not change. They lie whole on every device, and are no constants of the program.

    Attributes:
      origin: the origin of the penalty's task vectors, or None.
      examples: the arrays of all training examples, if they live on the devices. A batch then consists of rows.
    """

    origin: Params | None = None
    examples: Batch | None = None


NOTHING = Given()


class StepInfo(NamedTuple):
    """The report of a step: scalars of the whole batch.

    Attributes:
      loss: task loss, mean over examples.
      penalty: cos^2 as it entered the objective (of the sampled pair, or the mean over pairs), without the factor beta.
      scores: the task's other scores of the sampled networks on the augmented training examples, by name.
    """

    loss: jax.Array
    penalty: jax.Array
    scores: Scores

    def numbers(self) -> Scores:
        """All scalars by name."""
        return {"loss": self.loss, "penalty": self.penalty, **self.scores}


def task_loss(network: Network, task: Task) -> TrainLoss:
    """The loss of a network in train mode: the mean over examples of ``task.losses``.

    Returns:
      ``(point, (*inputs, *targets), key) -> (loss, scores)``, where the scores are means too. The key is for dropout.
    """
    num_targets = len(task.target_names)

    def loss_fn(point: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Scores]:
        place = len(batch) - num_targets
        outputs, targets = network.apply(point, *batch[:place], key=key, train=True), batch[place:]
        scores = task.training_scores(outputs, *targets)
        means = {name: jnp.mean(values, dtype=jnp.float32) for name, values in scores.items()}
        losses = task.losses(outputs, *targets)
        if jnp.shape(losses) != jnp.shape(batch[0])[:1]:
            raise ValueError(
                f"{type(task).__name__}.losses returned the shape {list(jnp.shape(losses))} for {len(batch[0])} examples. It must return "
                "one number per example, [n]."
            )
        return jnp.mean(losses), means

    return loss_fn


@dataclasses.dataclass(frozen=True)
class StepParts:
    """The two halves of a step.

    Attributes:
      gradient: ``(endpoints, step, batch, key, given) -> (grads, info)``, written for one device. It names its collectives, and it
        takes and returns this device's share of divided endpoints.
      optimizer: the optimizer of the stacked endpoints.
    """

    gradient: Callable[..., tuple[Endpoints, StepInfo]]
    optimizer: optax.GradientTransformation

    def whole(
        self, state: TrainState, batch: Batch, key: jax.Array, given: Given = NOTHING
    ) -> tuple[TrainState, StepInfo]:
        """The step of a device that holds all endpoints."""
        grads, info = self.gradient(trained(state), state.step, batch, key, given)
        return self._updated(state, grads), info

    def compiled(
        self, devices: DataParallel, shardings: Any = None, given: Given = NOTHING, count: int = 1
    ) -> TrainStep:
        """The step on all devices, or ``count`` steps in one program. The new state takes the old one's memory.

        Several steps are a loop inside of the program, and have the bits of as many single steps.

        If the endpoints are divided among the devices, the optimizer still sees whole arrays. XLA divides its work, and adds
        up its norms and matrix products over the devices. An elementwise optimizer moves nothing.

        Args:
          devices: the devices.
          shardings: how the state is divided (`DataParallel.shardings_of`), or None if every device holds all of it.
          given: what the step reads besides.
          count: the number of steps. More than one take their batches from the rows of a block.
        """
        last = (given,) if jax.tree.leaves(given) else ()
        same = (SAME,) * len(last)
        if shardings is None:
            steps = _in_a_loop(self.whole, count)
            compiled = devices.compile(steps, (SAME, SPLIT, SAME, *same), returns=(SAME, SAME), donate=(0,))
        else:
            place = shardings.endpoints
            gradient = devices.compile(self.gradient, (place, SAME, SPLIT, SAME, *same), returns=(place, SAME))

            def step(state: TrainState, batch: Batch, key: jax.Array, *given: Given) -> tuple[TrainState, StepInfo]:
                grads, info = gradient(trained(state), state.step, batch, key, *given)
                return self._updated(state, grads), info

            steps, returns = _in_a_loop(step, count), (shardings, SAME)
            compiled = devices.compile_whole(steps, (shardings, SPLIT, SAME, *same), returns=returns, donate=(0,))
        return (lambda state, batch, key: compiled(state, batch, key, *last)) if last else compiled

    def _updated(self, state: TrainState, grads: Endpoints) -> TrainState:
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.endpoints)
        return TrainState(state.step + 1, optax.apply_updates(state.endpoints, updates), opt_state)


def make_train_step(
    loss_fn: TrainLoss,
    augment_fn: Callable[..., Batch],
    subspace: Subspace,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    shares: Shares,
    spread: Callable[[jax.Array], jax.Array] | None = None,
    gather_fn: Callable[..., Batch] | None = None,
) -> StepParts:
    """Makes the step ``(state, batch, key, given) -> (state, info)``, in its two halves.

    The batch is a tuple of arrays ``[n, ...]``. The key is the run's key. The step's own key follows from it and from
    ``state.step``, so that a resumed run draws the same numbers as a run that never stopped. The key is the same on every
    device, and so is alpha. With an origin, one network that is whole on every device, the penalty compares the task vectors.

    Args:
      loss_fn: ``(point, batch, key) -> (loss, scores)``, all means over the batch. See `task_loss`.
      augment_fn: ``(key, *batch) -> batch``: from the arrays of the batch to those that the loss takes.
      subspace: the subspace that is trained.
      optimizer: the optimizer of the stacked endpoints.
      objective: the options of the gradient.
      shares: how the endpoints lie on the devices, and the name of the device axis.
      spread: the objective's spread of alpha as a function of ``state.step``, or None if it does not change.
      gather_fn: ``(examples, rows, step) -> batch``, for a step that is given all examples.
    """

    def gradient(
        endpoints: Endpoints, step: jax.Array, batch: Batch, key: jax.Array, given: Given = NOTHING
    ) -> tuple[Endpoints, StepInfo]:
        if given.examples is not None:
            assert gather_fn is not None
            batch = gather_fn(given.examples, batch, step)
        subspace_key, augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, step), 3)
        if shares.axis_name is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(shares.axis_name))
        examples = augment_fn(augment_key, *batch)
        of_step = objective if spread is None else dataclasses.replace(objective, spread=spread(step))
        if given.origin is not None:
            of_step = dataclasses.replace(of_step, origin=given.origin)
        grad_fn = algorithm.random_gradient(loss_fn, subspace, of_step, shares, has_aux=True)
        (_, info), grads = grad_fn(subspace_key, endpoints, examples, dropout_key)
        scores = {name: shares.mean(jnp.mean(value)) for name, value in info.aux.items()}
        return grads, StepInfo(info.loss, info.penalty, scores)

    return StepParts(gradient, optimizer)


def _in_a_loop(step: Callable[..., tuple[TrainState, StepInfo]], count: int) -> TrainStep:
    """``count`` steps that take the same arguments, with the report of all of them."""

    def once(state: TrainState, *rest: Any) -> tuple[TrainState, Report]:
        state, info = step(state, *rest)
        return state, Report.of(info.numbers())

    def steps(state: TrainState, *rest: Any) -> tuple[TrainState, Report]:
        return jax.lax.scan(lambda state, _: once(state, *rest), state, length=count)

    return once if count == 1 else steps
