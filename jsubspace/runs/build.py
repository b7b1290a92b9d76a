"""From a config to the things a run is made of."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from jsubspace.runs import config as config_lib
from jsubspace import points, tree
from jsubspace.training import optim, parallel, schedules
from jsubspace.data import pipeline
from jsubspace.data.batching import Batching
from jsubspace.models.cresnet import CResNet
from jsubspace.models.mlp import MLP
from jsubspace.models.resnet import ResNet
from jsubspace.training.parallel import AXIS, SAME, SPLIT, DataParallel
from jsubspace.shares import Shares, axes_of
from jsubspace.subspaces import Chain, Curve, Line, Point, Simplex, Subspace
from jsubspace.training.train_state import TrainState, init_train_state
from jsubspace.training.train_step import TrainStep, make_train_step
from jsubspace.types import Params


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a config stands for; nothing in it changes.

    Attributes:
      config: the settings.
      pipeline: the data.
      model: the Flax network.
      subspace: what is trained.
      evaluated: what is evaluated: the same, or the simplex of the networks that are collected along the way.
      schedule: step -> learning rate.
      optimizer: of the stacked endpoints.
      devices: where it runs.
    """

    config: ml_collections.ConfigDict
    pipeline: pipeline.Pipeline
    model: Any
    subspace: Subspace
    evaluated: Subspace
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    devices: DataParallel

    @property
    def total_steps(self) -> int:
        """Steps from the first to the last."""
        return self.config.optimizer.num_epochs * self.pipeline.steps_per_epoch

    @property
    def collected_steps(self) -> tuple[int, ...]:
        """The steps after which networks are collected; none with the paper's schedule."""
        settings = self.config.optimizer
        if not config_lib.collects(self.config):
            return ()
        epochs = schedules.collection_epochs(
            settings.schedule, settings.warmup_epochs, settings.num_epochs, settings.num_collected
        )
        return tuple(epoch * self.pipeline.steps_per_epoch for epoch in epochs)

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints are never deleted."""
        asked_for = (epoch * self.pipeline.steps_per_epoch for epoch in self.config.keep_epochs)
        return tuple(sorted({*self.collected_steps, *asked_for}))

    @property
    def num_workers(self) -> int | None:
        """Processes that decode; None for one a core."""
        return num_workers(self.config)

    @property
    def key(self) -> jax.Array:
        """The key of all training steps; a step's own follows from it and the step's number."""
        return jax.random.key(self.config.seed)

    @property
    def evaluation_key(self) -> jax.Array:
        """Of the augmentation in BatchNorm passes and of random points; no step has it (`fold_in` takes steps from 0)."""
        return jax.random.fold_in(self.key, 2**32 - 2)

    @property
    def mask(self) -> Any:
        """Which leaves the penalty and the geometry of the endpoints look at."""
        return tree.all_leaves if self.config.penalty.all_leaves else tree.kernels

    def init_state(self) -> TrainState:
        """The state before the first step."""
        images = jnp.zeros((1, *self.pipeline.data_set.image_shape))
        endpoints = points.init_endpoints(
            jax.random.fold_in(self.key, 2**32 - 1),  # a key that no step has
            lambda key: self.model.init(key, images, train=True)["params"],
            self.subspace.num_endpoints,
            shared=self.config.subspace.shared_init,
        )
        return init_train_state(endpoints, self.optimizer)

    def train_step(self) -> TrainStep:
        """The step for one device; compile it with ``devices``."""
        settings = self.config

        def apply_fn(point: Params, images: jax.Array, key: jax.Array) -> jax.Array:
            outputs, _ = self.model.apply(
                {"params": point}, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
            )
            return outputs.logits

        return make_train_step(
            apply_fn,
            self.pipeline.augment,
            self.subspace,
            self.optimizer,
            beta=settings.penalty.beta,
            layerwise=settings.subspace.layerwise,
            num_samples=settings.subspace.num_samples,
            all_pairs=settings.penalty.all_pairs,
            mask=self.mask,
            label_smoothing=settings.optimizer.label_smoothing,
            axis_name=AXIS,
            shares=self.shares,
        )

    def compiled_step(self) -> TrainStep:
        """The step on all devices: ``(state, batch, key) -> (state, info)``. The state's memory is used again."""
        state = self.shardings or SAME
        return self.devices.compile(self.train_step(), (state, SPLIT, SAME), returns=(state, SAME), donate=(0,))

    @property
    def shares(self) -> Shares:
        """How the step's devices hold the endpoints: each all of them, or with ``config.shard_endpoints`` its share."""
        if not self.config.shard_endpoints:
            return Shares(AXIS)
        endpoints = jax.eval_shape(self.init_state).endpoints
        return Shares(AXIS, axes_of(endpoints, len(self.devices.devices)), compute_dtype(self.config))

    @property
    def shardings(self) -> Any:
        """Where the leaves of the train state lie; None if every device holds all of them."""
        return self.devices.shardings_of(jax.eval_shape(self.init_state)) if self.config.shard_endpoints else None


def build(config: ml_collections.ConfigDict) -> Run:
    """Makes everything for a config that `limits.validate` has passed.

    Raises:
      UsageError: if the data is not prepared, or the devices do not divide the batches.
    """
    devices = choose_devices(config)
    data = pipeline.make_pipeline(
        config.data.name,
        config.data.dir,
        Batching(
            batch_size=config.data.batch_size,
            eval_batch_size=config.evaluation.batch_size,
            seed=config.seed,
            label_noise=config.data.label_noise,
            num_train=config.data.num_train,
            pooling=config.data.pooling,
            num_workers=num_workers(config),
            num_samples=config.subspace.num_samples,
        ),
    )
    pipeline.check_corrupted(config.data.name, config.data.dir, config.evaluation.corruptions)
    return assemble(config, data, devices)


def assemble(config: ml_collections.ConfigDict, data: pipeline.Pipeline, devices: DataParallel) -> Run:
    """The run of a config on data and devices that are there already."""
    schedule = make_schedule(config, data.steps_per_epoch)
    model = make_model(config, data.data_set.num_classes)
    subspace, evaluated = make_subspace(config), make_evaluated(config)
    return Run(config, data, model, subspace, evaluated, schedule, make_optimizer(config, schedule), devices)


def choose_devices(config: ml_collections.ConfigDict) -> DataParallel:
    """Devices that divide the config's batches."""
    batch_sizes = {
        "config.data.batch_size / config.subspace.num_samples": config.data.batch_size // config.subspace.num_samples,
        "config.evaluation.batch_size": config.evaluation.batch_size,
    }
    return parallel.data_parallel(batch_sizes, config.num_devices)


def make_subspace(config: ml_collections.ConfigDict) -> Subspace:
    """The subspace that ``config.subspace`` names."""
    m = config.subspace.num_endpoints
    match config.subspace.name:
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
    raise ValueError(config.subspace.name)


def make_evaluated(config: ml_collections.ConfigDict) -> Subspace:
    """What is evaluated: what is trained, or the simplex of the networks that are collected along the way."""
    return Simplex(config.optimizer.num_collected) if config_lib.collects(config) else make_subspace(config)


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> Any:
    """The network that ``config.model`` names."""
    settings = config.model
    dtype = compute_dtype(config)
    if settings.name == "mlp":
        widths = (settings.width,) * settings.depth
        return MLP(num_classes, widths, dropout_rate=settings.dropout_rate, dtype=dtype)
    shared = {
        "num_classes": num_classes,
        "depth": settings.depth,
        "width": settings.width,
        "dropout_rate": settings.dropout_rate,
        "dtype": dtype,
        "axis_name": AXIS if settings.sync_batch_norm else None,
        "unbiased_batch_stats": settings.unbiased_batch_stats,
    }
    if settings.name == "resnet":
        return ResNet(stem=settings.stem, inner_width=settings.inner_width, **shared)
    return CResNet(**shared)


def compute_dtype(config: ml_collections.ConfigDict) -> Any:
    """What the network computes in; None for what its parameters are in."""
    return jnp.bfloat16 if config.model.dtype == "bfloat16" else None


def make_schedule(config: ml_collections.ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """step -> learning rate, changing every step or every epoch."""
    settings = config.optimizer
    if settings.num_epochs == 0:
        return optax.constant_schedule(0.0)  # nothing is trained
    schedule = schedules.make_schedule(
        settings.schedule,
        settings.learning_rate,
        warmup_epochs=settings.warmup_epochs,
        num_epochs=settings.num_epochs,
        num_networks=settings.num_collected,
        unit=1 if settings.per_epoch else steps_per_epoch,
    )
    return schedules.per_epoch(schedule, steps_per_epoch) if settings.per_epoch else schedule


def make_optimizer(config: ml_collections.ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """SGD of the stacked endpoints, with what ``config.optimizer`` and ``config.subspace.fixed_ends`` put around it."""
    optimizer = optim.sgd(schedule, config.optimizer.momentum, config.optimizer.weight_decay)
    if config.optimizer.sam_rho:
        optimizer = optim.sharpness_aware(optimizer, config.optimizer.sam_rho)
    if config.subspace.fixed_ends:
        optimizer = optim.fix_first(optimizer, 2)
    return optimizer


def num_workers(config: ml_collections.ConfigDict) -> int | None:
    """Processes that decode ImageNet: ``config.data.num_workers``, with None for one a core."""
    return None if config.data.num_workers < 0 else config.data.num_workers
