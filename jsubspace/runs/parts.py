"""The parts of a run that its settings name: subspace, network, objective, schedule. `optimizers` has the optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from jsubspace import leaf_kinds
from jsubspace.errors import UsageError
from jsubspace.models.cresnet import CResNet
from jsubspace.models.mlp import MLP
from jsubspace.models.resnet import ResNet
from jsubspace.objectives import Objective
from jsubspace.runs import optimizers
from jsubspace.runs.config import collects
from jsubspace.subspaces import Chain, Curve, Line, Point, Simplex, Subspace
from jsubspace.training import schedules
from jsubspace.training.parallel import AXIS


def make_subspace(settings: ml_collections.ConfigDict) -> Subspace:
    """The subspace that the group ``subspace`` of the settings names."""
    m = settings.subspace.num_endpoints
    match settings.subspace.name:
        case "point":
            return Point()
        case "line":
            return Line()
        case "curve":
            return Curve(num_bends=(m or 3) - 2)
        case "chain":
            return Chain(num_bends=(m or 3) - 2)
        case "simplex":
            return Simplex(m)
    raise ValueError(settings.subspace.name)


def make_evaluated(settings: ml_collections.ConfigDict) -> Subspace:
    """The subspace that is evaluated: the trained one, or the simplex of the networks that are collected in training."""
    return Simplex(settings.optimizer.num_collected) if collects(settings) else make_subspace(settings)


def make_model(settings: ml_collections.ConfigDict, num_classes: int) -> Any:
    """The network that the group ``model`` of the settings names."""
    model, dtype = settings.model, compute_dtype(settings)
    if model.name == "mlp":
        return MLP(num_classes, (model.width,) * model.depth, dropout_rate=model.dropout_rate, dtype=dtype)
    shared = {
        "num_classes": num_classes,
        "depth": model.depth,
        "width": model.width,
        "dropout_rate": model.dropout_rate,
        "dtype": dtype,
        "axis_name": AXIS if model.sync_batch_norm else None,
        "unbiased_batch_stats": model.unbiased_batch_stats,
        "remat": model.remat,
    }
    if model.name == "resnet":
        return ResNet(stem=model.stem, inner_width=model.inner_width, **shared)
    return CResNet(**shared)


def compute_dtype(settings: ml_collections.ConfigDict) -> Any:
    """The dtype that the network computes in, or None if it computes in the dtype of its parameters."""
    return jnp.bfloat16 if settings.model.dtype == "bfloat16" else None


def make_objective(settings: ml_collections.ConfigDict) -> Objective:
    """The options of the gradient."""
    return Objective(
        beta=settings.penalty.beta,
        layerwise=settings.subspace.layerwise,
        num_samples=settings.subspace.num_samples,
        all_pairs=settings.penalty.all_pairs,
        mask=leaf_kinds.all_leaves if settings.penalty.all_leaves else leaf_kinds.kernels,
        at_point=optimizers.clipping(settings),
        sam_rho=settings.optimizer.sam_rho,
        pull_back=settings.subspace.pull_back,
    )


def make_spread(settings: ml_collections.ConfigDict, total_steps: int) -> Callable[[jax.Array], jax.Array] | None:
    """The spread of alpha as a function of the step: it grows linearly from 0 to 1. None if it is 1 from the start."""
    growth = settings.subspace.spread_growth * total_steps
    return (lambda step: jnp.minimum(step / growth, 1).astype(jnp.float32)) if growth else None


def make_schedule(settings: ml_collections.ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the step. It changes every step, or every epoch if the settings say so.

    Raises:
      UsageError: if the run has too few epochs or steps for its schedule.
    """
    optimizer = settings.optimizer
    if optimizer.num_epochs == 0:
        return optax.constant_schedule(0.0)  # Nothing is trained.
    try:
        schedule = schedules.make_schedule(
            optimizer.schedule,
            optimizer.learning_rate,
            warmup_epochs=optimizer.warmup_epochs,
            num_epochs=optimizer.num_epochs,
            num_networks=optimizer.num_collected,
            unit=_unit(settings, steps_per_epoch),
        )
    except ValueError as error:
        raise UsageError(f"config.optimizer.num_epochs is {optimizer.num_epochs}: {error}") from error
    return schedules.per_epoch(schedule, steps_per_epoch) if optimizer.per_epoch else schedule


def collection_epochs(settings: ml_collections.ConfigDict, steps_per_epoch: int) -> tuple[int, ...]:
    """The epochs after which networks are collected. It is empty with the paper's schedule."""
    if not collects(settings):
        return ()
    optimizer = settings.optimizer
    return schedules.collection_epochs(
        optimizer.schedule,
        optimizer.warmup_epochs,
        optimizer.num_epochs,
        optimizer.num_collected,
        _unit(settings, steps_per_epoch),
    )


def _unit(settings: ml_collections.ConfigDict, steps_per_epoch: int) -> int:
    """The counts of the schedule per epoch."""
    return 1 if settings.optimizer.per_epoch else steps_per_epoch


def num_workers(settings: ml_collections.ConfigDict) -> int | None:
    """The number of processes that decode ImageNet, or None for one per core."""
    return None if settings.data.num_workers < 0 else settings.data.num_workers
