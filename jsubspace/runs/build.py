"""From a config to a `Run`: the data, the network, the subspace, the optimizer, the devices and what follows from them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

import jsubspace
from jsubspace import penalties, points
from jsubspace.data import corruptions, pipeline
from jsubspace.data.batching import Batch, Batching
from jsubspace.errors import UsageError
from jsubspace.evaluation.devices import SAME, SPLIT
from jsubspace.objectives import Objective
from jsubspace.runs import parts
from jsubspace.shares import Shares, axes_of
from jsubspace.subspaces import Subspace
from jsubspace.training import parallel
from jsubspace.training.loop import Cadence
from jsubspace.training.parallel import AXIS, DataParallel
from jsubspace.training.train_state import TrainState, init_train_state
from jsubspace.training.train_step import TrainStep, classification_loss, make_train_step
from jsubspace.types import Params

INIT_KEY = 2**32 - 1
"""Number of the key that initialises the endpoints. Training steps have the numbers from 0."""

EVALUATION_KEY = 2**32 - 2
"""Number of the key that evaluation draws from."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a config stands for. `assemble` makes it once, and nothing in it changes.

    Attributes:
      config: the settings, for the record in the run's folder and in results.json.
      seed: the number from which all random numbers of the run follow.
      key: the key of all training steps. A step's own key follows from it and from the step's number.
      evaluation_key: the key of evaluation (augmentation in BatchNorm passes, random points). It differs from every
        training step's key.
      pipeline: the data.
      model: the Flax network.
      subspace: the subspace that is trained.
      evaluated: the subspace that is evaluated: the same, or the simplex of the networks that are collected during
        training.
      objective: beta and the other options of the gradient.
      spread: the spread of alpha as a function of the step, or None if it is 1 from the start.
      label_smoothing: the amount of label smoothing in the loss.
      common_start: whether all endpoints start from one initialisation.
      center_scale: as in `points.init_endpoints`.
      schedule: the learning rate as a function of the step.
      optimizer: the optimizer of the stacked endpoints.
      devices: the devices that compute.
      shares: how each device holds the endpoints in a step: all of them, or with ``shard_endpoints`` its share.
      shardings: the placement of the train state's leaves, or None if every device holds all of them.
      batch_size: examples per training batch, over all devices.
      cadence: the number of steps, and when the loop logs, tests, saves and keeps.
      collected_steps: the steps after which networks are collected. It is empty with the paper's schedule.
      evaluation: the evaluation group of the settings.
      shifted_batches: a function that yields ``(name, batches)`` for every corrupted test set that was asked for, where
        the name is like ``"snow_3"``.
    """

    config: ml_collections.ConfigDict
    seed: int
    key: jax.Array
    evaluation_key: jax.Array
    pipeline: pipeline.Pipeline
    model: Any
    subspace: Subspace
    evaluated: Subspace
    objective: Objective
    spread: Callable[[jax.Array], jax.Array] | None
    label_smoothing: float
    common_start: bool
    center_scale: str
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    devices: DataParallel
    shares: Shares
    shardings: Any
    batch_size: int
    cadence: Cadence
    collected_steps: tuple[int, ...]
    evaluation: ml_collections.ConfigDict
    shifted_batches: Callable[[], Iterator[tuple[str, Iterable[Batch]]]]

    @property
    def total_steps(self) -> int:
        """The number of steps from the first to the last."""
        return self.cadence.total_steps

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints are never deleted."""
        return self.cadence.kept_steps

    @property
    def collects(self) -> bool:
        """Whether networks are collected during training."""
        return bool(self.collected_steps)

    @property
    def tested_on(self) -> str:
        """The data on which training is tested and the best test is chosen: "validation" or "test"."""
        chosen = self.evaluation.early_stopping
        return ("validation" if self.pipeline.num_validation else "test") if chosen == "auto" else chosen

    @functools.cached_property
    def has_batch_stats(self) -> bool:
        """Whether the network has BatchNorm, so that every point needs statistics of its own."""
        images = jax.ShapeDtypeStruct((1, *self.pipeline.data_set.image_shape), jnp.float32)
        variables = jax.eval_shape(lambda images: self.model.init(jax.random.key(0), images, train=True), images)
        return "batch_stats" in variables

    @property
    def layerwise(self) -> bool:
        """Whether every layer has an alpha of its own."""
        return bool(self.objective.layerwise)

    @property
    def mask(self) -> penalties.Mask:
        """The leaves that the penalty and the geometry of the endpoints look at."""
        return self.objective.mask

    def facts(self) -> dict[str, Any]:
        """What a network of the run needs when it leaves the run: its settings, and the normalisation of images."""
        data_set = self.pipeline.data_set
        normalisation = {"mean": list(data_set.mean), "std": list(data_set.std)}
        return normalisation | {"config": self.config.to_dict(), "jsubspace": jsubspace.__version__}

    def init_state(self) -> TrainState:
        """The state before the first step."""
        images = jnp.zeros((1, *self.pipeline.data_set.image_shape))
        endpoints = points.init_endpoints(
            jax.random.fold_in(self.key, INIT_KEY),
            lambda key: self.model.init(key, images, train=True)["params"],
            self.subspace,
            common_start=self.common_start,
            center_scale=self.center_scale,
        )
        return init_train_state(endpoints, self.optimizer)

    @functools.cached_property
    def state_shape(self) -> TrainState:
        """The state's shapes and dtypes. No array is made."""
        return jax.eval_shape(self.init_state)

    def train_step(self) -> TrainStep:
        """The step for one device. `compiled_step` runs it on all of them."""

        def apply_fn(point: Params, images: jax.Array, key: jax.Array) -> jax.Array:
            outputs, _ = self.model.apply(
                {"params": point}, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
            )
            return outputs.logits

        loss_fn = classification_loss(apply_fn, self.label_smoothing)
        return make_train_step(
            loss_fn, self.pipeline.augment, self.subspace, self.optimizer, self.objective, self.shares, self.spread
        )

    def compiled_step(self) -> TrainStep:
        """The step on all devices: ``(state, batch, key) -> (state, info)``. The new state takes the old one's memory."""
        state = self.shardings or SAME
        return self.devices.compile(self.train_step(), (state, SPLIT, SAME), returns=(state, SAME), donate=(0,))


def build(config: ml_collections.ConfigDict) -> Run:
    """Makes everything for a config that `limits.validate` has passed.

    Raises:
      UsageError: if the data is not prepared, or the batches cannot be split over the devices.
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
            num_validation=config.data.num_validation,
            pooling=config.data.pooling,
            num_workers=parts.num_workers(config),
            num_samples=config.subspace.num_samples,
        ),
    )
    pipeline.check_corrupted(config.data.name, config.data.dir, config.evaluation.corruptions)
    return assemble(config, data, devices)


def assemble(config: ml_collections.ConfigDict, data: pipeline.Pipeline, devices: DataParallel) -> Run:
    """The run of a config, with data and devices that exist already."""
    key = jax.random.key(config.seed, impl="threefry2x32")  # The same draws whatever jax's default is.
    schedule, steps_per_epoch = parts.make_schedule(config, data.steps_per_epoch), data.steps_per_epoch
    collected_steps = tuple(epoch * steps_per_epoch for epoch in parts.collection_epochs(config, steps_per_epoch))
    run = Run(
        config=config,
        seed=config.seed,
        key=key,
        evaluation_key=jax.random.fold_in(key, EVALUATION_KEY),
        pipeline=data,
        model=parts.make_model(config, data.data_set.num_classes),
        subspace=parts.make_subspace(config),
        evaluated=parts.make_evaluated(config),
        objective=parts.make_objective(config),
        spread=parts.make_spread(config, config.optimizer.num_epochs * steps_per_epoch),
        label_smoothing=config.optimizer.label_smoothing,
        common_start=config.subspace.shared_init,
        center_scale=config.subspace.center_scale,
        schedule=schedule,
        optimizer=parts.make_optimizer(config, schedule),
        devices=devices,
        shares=Shares(AXIS),
        shardings=None,
        batch_size=config.data.batch_size,
        cadence=Cadence(
            total_steps=config.optimizer.num_epochs * steps_per_epoch,
            epoch_steps=steps_per_epoch,
            log_steps=config.log_every_steps,
            save_steps=config.checkpoint_every_epochs * steps_per_epoch,
            test_steps=config.evaluation.every_epochs * steps_per_epoch,
            kept_steps=tuple(sorted({*collected_steps, *(epoch * steps_per_epoch for epoch in config.keep_epochs)})),
            keep_newest=config.keep_checkpoints,
        ),
        collected_steps=collected_steps,
        evaluation=config.evaluation,
        shifted_batches=lambda: _shifted_batches(config),
    )
    if not config.shard_endpoints:
        return run
    state = run.state_shape
    shares = Shares(AXIS, axes_of(state.endpoints, len(devices.devices)), parts.compute_dtype(config))
    return dataclasses.replace(run, shares=shares, shardings=devices.shardings_of(state))


def check_batch(run: Run) -> None:
    """Checks that a batch is not larger than the training data, of which it would be less than its setting says.

    Raises:
      UsageError: if it is.
    """
    if run.batch_size > run.pipeline.num_train:
        raise UsageError(
            f"config.data.batch_size is {run.batch_size}, but there are {run.pipeline.num_train} training images. Set it to at "
            "most this number."
        )


def choose_devices(config: ml_collections.ConfigDict) -> DataParallel:
    """Devices over which the config's batches can be split evenly."""
    batch_sizes = {
        "data.batch_size / subspace.num_samples": config.data.batch_size // config.subspace.num_samples,
        "evaluation.batch_size": config.evaluation.batch_size,
    }
    return parallel.data_parallel(batch_sizes, config.num_devices)


def _shifted_batches(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Iterable[Batch]]]:
    for corruption, severity in corruptions.parse(config.evaluation.corruptions):
        batches = pipeline.corrupted_batches(
            config.data.name,
            config.data.dir,
            corruption,
            severity,
            config.evaluation.batch_size,
            config.data.pooling,
            parts.num_workers(config),
        )
        yield f"{corruption}_{severity}", batches
