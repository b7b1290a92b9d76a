"""One step of training on one device, its collectives named by an axis; `parallel` makes it run on all."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jsubspace import gradients, penalties
from jsubspace.shares import Shares
from jsubspace.subspaces import Subspace
from jsubspace.training.train_state import TrainState
from jsubspace.types import Endpoints, LayerNames, Params

Batch = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, "StepInfo"]]


class StepInfo(NamedTuple):
    """What a step reports, scalars of the whole batch.

    Attributes:
      loss: task loss, mean over examples.
      penalty: cos^2 as it entered the objective (the sampled pair's or the mean), without beta.
      accuracy: of the sampled networks on the augmented training examples.
    """

    loss: jax.Array
    penalty: jax.Array
    accuracy: jax.Array


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """(1 - s) NLL + s times the mean over classes of -log p; mean over examples. ``[n, k], [n] -> []``."""
    log_probs = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    if not smoothing:
        return jnp.mean(nll)
    return jnp.mean((1 - smoothing) * nll - smoothing * jnp.mean(log_probs, axis=-1))


def make_train_step(
    apply_fn: Callable[[Params, jax.Array, jax.Array], jax.Array],
    augment_fn: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    subspace: Subspace,
    optimizer: optax.GradientTransformation,
    *,
    beta: float = 1.0,
    layerwise: bool | LayerNames = False,
    num_samples: int = 1,
    all_pairs: bool = False,
    mask: penalties.Mask = None,
    label_smoothing: float = 0.0,
    axis_name: str | None = None,
    shares: Shares | None = None,
) -> TrainStep:
    """Makes ``train_step(state, batch, key) -> (state, info)``.

    Args:
      apply_fn: ``(point, images, key) -> logits [n, k]``, the network in train mode; key for dropout.
      augment_fn: ``(key, images, index) -> images``: from what the batch holds to what the network takes;
        ``index`` are the images' places in the whole batch.
      subspace, beta, layerwise, num_samples, all_pairs, mask: see `jsubspace.value_and_grad`.
      optimizer: of the stacked endpoints. Its update may take ``grad_fn(endpoints, i) -> grads``, the gradient of this
        step's loss elsewhere (`optim.sharpness_aware`).
      label_smoothing: s of `cross_entropy`.
      axis_name: of the devices, or None.
      shares: where the state is divided among the devices: what the step takes and returns is this device's share.

    The batch is a dictionary: ``image [n, h, w, c]``, ``label [n]``, ``index [n]``. The key is the run's: the
    step's own follows from it and ``state.step``, so a run that is resumed draws what it would have drawn. The
    key is the same on every device, and so alpha is.
    """

    def loss_fn(point: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = apply_fn(point, batch["image"], key)
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        return cross_entropy(logits, batch["label"], label_smoothing), jnp.mean(correct, dtype=jnp.float32)

    grad_fn = gradients.value_and_grad(
        loss_fn,
        subspace,
        beta=beta,
        layerwise=layerwise,
        num_samples=num_samples,
        all_pairs=all_pairs,
        mask=mask,
        has_aux=True,
        axis_name=axis_name,
        shares=shares,
    )

    optimizer = optax.with_extra_args_support(optimizer)

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, StepInfo]:
        subspace_key, augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        if axis_name is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
        images = augment_fn(augment_key, batch["image"], batch["index"])
        examples = {"image": images, "label": batch["label"]}
        (_, info), grads = grad_fn(subspace_key, state.endpoints, examples, dropout_key)

        def grad_elsewhere(endpoints: Endpoints, _: int) -> Endpoints:
            return grad_fn(subspace_key, endpoints, examples, dropout_key)[1]

        updates, opt_state = optimizer.update(grads, state.opt_state, state.endpoints, grad_fn=grad_elsewhere)
        endpoints = optax.apply_updates(state.endpoints, updates)
        accuracy = jnp.mean(info.aux) if axis_name is None else jax.lax.pmean(jnp.mean(info.aux), axis_name)
        return TrainState(state.step + 1, endpoints, opt_state), StepInfo(info.loss, info.penalty, accuracy)

    return train_step
