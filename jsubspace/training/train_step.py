"""One step of training, written for one device. `parallel` makes it run on all devices."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jsubspace import algorithm
from jsubspace.evaluation import metrics
from jsubspace.objectives import Objective
from jsubspace.shares import Shares
from jsubspace.subspaces import Subspace
from jsubspace.training.train_state import TrainState
from jsubspace.types import Params

Batch = dict[str, jax.Array]
TrainLoss = Callable[[Params, Batch, jax.Array], tuple[jax.Array, jax.Array]]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, "StepInfo"]]


class StepInfo(NamedTuple):
    """The report of a step: scalars of the whole batch.

    Attributes:
      loss: task loss, mean over examples.
      penalty: cos^2 as it entered the objective (of the sampled pair, or the mean over pairs), without the factor beta.
      accuracy: accuracy of the sampled networks on the augmented training examples. Logits that are NaN or +inf are wrong.
    """

    loss: jax.Array
    penalty: jax.Array
    accuracy: jax.Array


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """The mean over examples of (1 - s) NLL + s times the mean over classes of -log p: ``[n, k], [n] -> []``.

    It is NaN if a label is out of range.
    """
    log_probs = jax.nn.log_softmax(logits)
    # A label out of range has the loss NaN, which stops a run. A negative label would count from the last class.
    labels = jnp.where(labels < 0, logits.shape[-1], labels)
    nll = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    if not smoothing:
        return jnp.mean(nll)
    return jnp.mean((1 - smoothing) * nll - smoothing * jnp.mean(log_probs, axis=-1))


def classification_loss(
    apply_fn: Callable[[Params, jax.Array, jax.Array], jax.Array], label_smoothing: float = 0.0
) -> TrainLoss:
    """The loss of a classifier: the `cross_entropy` of its logits, and its accuracy.

    Args:
      apply_fn: ``(point, images, key) -> logits [n, k]``, the network in train mode. The key is for dropout.
      label_smoothing: s of `cross_entropy`.
    """

    def loss_fn(point: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = apply_fn(point, batch["image"], key)
        correct = metrics.is_right(logits, batch["label"])
        return cross_entropy(logits, batch["label"], label_smoothing), jnp.mean(correct, dtype=jnp.float32)

    return loss_fn


def make_train_step(
    loss_fn: TrainLoss,
    augment_fn: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    subspace: Subspace,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    shares: Shares,
    spread: Callable[[jax.Array], jax.Array] | None = None,
) -> TrainStep:
    """Makes ``train_step(state, batch, key) -> (state, info)``.

    The batch is a dictionary: ``image [n, h, w, c]``, ``label [n]``, ``index [n]``. The key is the run's key. The step's
    own key follows from it and from ``state.step``, so that a resumed run draws the same numbers as a run that never
    stopped. The key is the same on every device, and so is alpha.

    Args:
      loss_fn: ``(point, batch, key) -> (loss, accuracy)``, both means over the batch. See `classification_loss`.
      augment_fn: ``(key, images, index) -> images``: from the images of the batch to the images for the network.
        ``index`` holds the images' places in the whole batch.
      subspace: the subspace that is trained.
      optimizer: the optimizer of the stacked endpoints.
      objective: the options of the gradient.
      shares: how the endpoints lie on the devices, and the name of the device axis. If the state is divided among the
        devices, the step takes and returns this device's share.
      spread: the objective's spread of alpha as a function of ``state.step``, or None if it does not change.
    """

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, StepInfo]:
        subspace_key, augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        if shares.axis_name is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(shares.axis_name))
        images = augment_fn(augment_key, batch["image"], batch["index"])
        examples = {"image": images, "label": batch["label"]}
        of_step = objective if spread is None else dataclasses.replace(objective, spread=spread(state.step))
        grad_fn = algorithm.random_gradient(loss_fn, subspace, of_step, shares, has_aux=True)
        (_, info), grads = grad_fn(subspace_key, state.endpoints, examples, dropout_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.endpoints)
        endpoints = optax.apply_updates(state.endpoints, updates)
        accuracy = shares.mean(jnp.mean(info.aux))
        return TrainState(state.step + 1, endpoints, opt_state), StepInfo(info.loss, info.penalty, accuracy)

    return train_step
