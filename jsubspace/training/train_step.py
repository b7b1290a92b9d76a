"""One step of training, written for one device. `parallel` makes it run on all devices."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jsubspace import algorithm
from jsubspace.evaluation.tasks import Task
from jsubspace.network import Network
from jsubspace.objectives import Objective
from jsubspace.shares import Shares
from jsubspace.subspaces import Subspace
from jsubspace.training.train_state import TrainState
from jsubspace.types import Params

Batch = tuple[Any, ...]
"""The arrays of a batch, ``[n, ...]``."""

Scores = dict[str, jax.Array]
TrainLoss = Callable[[Params, Batch, jax.Array], tuple[jax.Array, Scores]]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, "StepInfo"]]


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


def make_train_step(
    loss_fn: TrainLoss,
    augment_fn: Callable[..., Batch],
    subspace: Subspace,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    shares: Shares,
    spread: Callable[[jax.Array], jax.Array] | None = None,
) -> TrainStep:
    """Makes ``train_step(state, batch, key, origin=None) -> (state, info)``.

    The batch is a tuple of arrays ``[n, ...]``. The key is the run's key. The step's own key follows from it and from
    ``state.step``, so that a resumed run draws the same numbers as a run that never stopped. The key is the same on every
    device, and so is alpha. With an origin, one network that is whole on every device, the penalty compares the task vectors.

    Args:
      loss_fn: ``(point, batch, key) -> (loss, scores)``, all means over the batch. See `task_loss`.
      augment_fn: ``(key, *batch) -> batch``: from the arrays of the batch to those that the loss takes.
      subspace: the subspace that is trained.
      optimizer: the optimizer of the stacked endpoints.
      objective: the options of the gradient.
      shares: how the endpoints lie on the devices, and the name of the device axis. If the state is divided among the
        devices, the step takes and returns this device's share.
      spread: the objective's spread of alpha as a function of ``state.step``, or None if it does not change.
    """

    def train_step(
        state: TrainState, batch: Batch, key: jax.Array, origin: Params | None = None
    ) -> tuple[TrainState, StepInfo]:
        subspace_key, augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        if shares.axis_name is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(shares.axis_name))
        examples = augment_fn(augment_key, *batch)
        of_step = objective if spread is None else dataclasses.replace(objective, spread=spread(state.step))
        if origin is not None:
            of_step = dataclasses.replace(of_step, origin=origin)
        grad_fn = algorithm.random_gradient(loss_fn, subspace, of_step, shares, has_aux=True)
        (_, info), grads = grad_fn(subspace_key, state.endpoints, examples, dropout_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.endpoints)
        endpoints = optax.apply_updates(state.endpoints, updates)
        scores = {name: shares.mean(jnp.mean(value)) for name, value in info.aux.items()}
        return TrainState(state.step + 1, endpoints, opt_state), StepInfo(info.loss, info.penalty, scores)

    return train_step
