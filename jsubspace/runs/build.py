"""From settings and a problem to a `Run`: the subspace, the optimizer, the devices and what follows from them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax

from jsubspace import penalties, points
from jsubspace.data import shards
from jsubspace.data.shards import Shard
from jsubspace.errors import UsageError
from jsubspace.objectives import Objective
from jsubspace.runs import images, optimizers, parts
from jsubspace.runs.problem import Problem
from jsubspace.shares import Shares, axes_of
from jsubspace.subspaces import Subspace
from jsubspace.training import device_choice
from jsubspace.training.loop import Cadence
from jsubspace.training.parallel import DataParallel
from jsubspace.training.train_state import TrainState, init_train_state
from jsubspace.training.train_step import NOTHING, Given, TrainStep, make_train_step, task_loss

INIT_KEY = 2**32 - 1
"""Number of the key that initialises the endpoints. Training steps have the numbers from 0."""

EVALUATION_KEY = 2**32 - 2
"""Number of the key that evaluation draws from."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that is trained and how. `assemble` makes it once, and nothing in it changes.

    Attributes:
      settings: all settings, for the record in the run's folder and in results.json.
      seed: the number from which all random numbers of the run follow.
      key: the key of all training steps. A step's own key follows from it and from the step's number.
      evaluation_key: the key of evaluation (augmentation in BatchNorm passes, random points). It differs from every
        training step's key.
      problem: the network, the task and the data.
      subspace: the subspace that is trained.
      evaluated: the subspace that is evaluated: the same, or the simplex of the networks that are collected during
        training.
      objective: beta and the other options of the gradient.
      spread: the spread of alpha as a function of the step, or None if it is 1 from the start.
      common_start: whether all endpoints start from one initialisation.
      center_scale: as in `points.init_endpoints`.
      schedule: the learning rate as a function of the step.
      optimizer: the optimizer of the stacked endpoints.
      devices: the devices that compute.
      shares: how each device holds the endpoints in a step: all of them, or with ``shard_endpoints`` its share.
      shardings: the placement of the train state's leaves, or None if every device holds all of them.
      cadence: the number of steps, and when the loop logs, tests, saves and keeps.
      collected_steps: the steps after which networks are collected. It is empty with the paper's schedule.
      evaluation: the evaluation group of the settings.
    """

    settings: ml_collections.ConfigDict
    seed: int
    key: jax.Array
    evaluation_key: jax.Array
    problem: Problem
    subspace: Subspace
    evaluated: Subspace
    objective: Objective
    spread: Callable[[jax.Array], jax.Array] | None
    common_start: bool
    center_scale: str
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    devices: DataParallel
    shares: Shares
    shardings: Any
    cadence: Cadence
    collected_steps: tuple[int, ...]
    evaluation: ml_collections.ConfigDict

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
        return ("validation" if self.problem.data.num_validation else "test") if chosen == "auto" else chosen

    @property
    def layerwise(self) -> bool:
        """Whether every layer has an alpha of its own."""
        return bool(self.objective.layerwise)

    @property
    def mask(self) -> penalties.Mask:
        """The leaves that the penalty and the geometry of the endpoints look at."""
        return self.objective.mask

    @property
    def shard(self) -> Shard:
        """The part of every batch that this host reads."""
        return shards.of_this_process(self.objective.num_samples)

    @functools.cached_property
    def init_state(self) -> Callable[[], TrainState]:
        """Returns the state before the first step. It is one function, so that jax traces the network's initialisation once."""

        def init_state() -> TrainState:
            endpoints = points.init_endpoints(
                jax.random.fold_in(self.key, INIT_KEY),
                self.problem.network.init,
                self.subspace,
                common_start=self.common_start,
                center_scale=self.center_scale,
            )
            return init_train_state(endpoints, self.optimizer)

        return init_state

    @functools.cached_property
    def state_shape(self) -> TrainState:
        """The state's shapes and dtypes. No array is made."""
        return jax.eval_shape(self.init_state)

    def compiled_step(self, given: Given = NOTHING, count: int = 1) -> TrainStep:
        """The step on all devices: ``(state, batch, key) -> (state, report)``. The new state takes the old one's memory.

        Given the training examples, the batch consists of rows of them, and ``count`` steps may be one program.
        """
        data = self.problem.data
        step = make_train_step(
            task_loss(self.problem.network, self.problem.task),
            data.augment,
            self.subspace,
            self.optimizer,
            self.objective,
            self.shares,
            self.spread,
            gather_fn=data.resident.gather if data.resident else None,
        )
        return step.compiled(self.devices, self.shardings, given, count)


def build(settings: ml_collections.ConfigDict, problem: Problem | None = None) -> Run:
    """The run of settings that `limits.validate` has passed.

    Args:
      settings: the settings.
      problem: what is trained, or None for the images and the network that the settings name.

    Raises:
      UsageError: if the data is not prepared, the batches cannot be split over the devices, or the run is too short for its
        optimizer.
    """
    if problem is not None:
        return assemble(settings, problem, devices_for(settings, problem))
    devices = choose_devices(settings)
    return assemble(settings, images.prepared_problem(settings), devices)


def assemble(settings: ml_collections.ConfigDict, problem: Problem, devices: DataParallel) -> Run:
    """The run of settings, with a problem and devices that exist already."""
    if devices.axis_name is None:  # One program sees whole batches.
        problem = dataclasses.replace(problem, network=problem.network.on_one_device)
    data = problem.data.of_run(settings.seed)
    if data is not problem.data:
        problem = dataclasses.replace(problem, data=data)
    key = jax.random.key(settings.seed, impl="threefry2x32")  # The same draws whatever jax's default is.
    steps_per_epoch = problem.data.steps_per_epoch
    schedule = parts.make_schedule(settings, steps_per_epoch)
    collected_steps = tuple(epoch * steps_per_epoch for epoch in parts.collection_epochs(settings, steps_per_epoch))
    total_steps = settings.optimizer.num_epochs * steps_per_epoch
    optimizers.check_length(settings, total_steps)
    run = Run(
        settings=settings,
        seed=settings.seed,
        key=key,
        evaluation_key=jax.random.fold_in(key, EVALUATION_KEY),
        problem=problem,
        subspace=parts.make_subspace(settings),
        evaluated=parts.make_evaluated(settings),
        objective=parts.make_objective(settings),
        spread=parts.make_spread(settings, total_steps),
        common_start=settings.subspace.shared_init,
        center_scale=settings.subspace.center_scale,
        schedule=schedule,
        optimizer=optimizers.make(settings, schedule, problem.optimizer),
        devices=devices,
        shares=Shares(devices.axis_name),
        shardings=None,
        cadence=Cadence(
            total_steps=total_steps,
            epoch_steps=steps_per_epoch,
            log_steps=settings.log_every_steps,
            save_steps=settings.checkpoint_every_epochs * steps_per_epoch,
            test_steps=settings.evaluation.every_epochs * steps_per_epoch,
            kept_steps=tuple(sorted({*collected_steps, *(epoch * steps_per_epoch for epoch in settings.keep_epochs)})),
            keep_newest=settings.keep_checkpoints,
            profile_steps=settings.profile_steps,
        ),
        collected_steps=collected_steps,
        evaluation=settings.evaluation,
    )
    if not settings.shard_endpoints:
        return run
    state, shares = run.state_shape, run.shares
    if devices.axis_name is not None:
        shares = Shares(devices.axis_name, axes_of(state.endpoints, devices.count), problem.network.compute_dtype)
    return dataclasses.replace(run, shares=shares, shardings=devices.shardings_of(state))


def choose_devices(settings: ml_collections.ConfigDict) -> DataParallel:
    """Devices over which batches of the images that the settings name can be split evenly."""
    batch_sizes = {
        "data.batch_size / subspace.num_samples": settings.data.batch_size // settings.subspace.num_samples,
        "evaluation.batch_size": settings.evaluation.batch_size,
    }
    return device_choice.data_parallel(batch_sizes, settings.num_devices, settings.parallel)


def devices_for(settings: ml_collections.ConfigDict, problem: Problem) -> DataParallel:
    """Devices over which the batches of a problem can be split evenly.

    Raises:
      UsageError: if the number of samples does not divide a batch, or the devices do not.
    """
    data, num_samples = problem.data, settings.subspace.num_samples
    if data.batch_size % num_samples:
        raise UsageError(
            f"subspace.num_samples is {num_samples}. It must be a divisor of the batch size of the data, which is {data.batch_size}."
        )
    batch_sizes = {
        "the batch size of the data / subspace.num_samples": data.batch_size // num_samples,
        "the eval_batch_size of the data": data.eval_batch_size or data.batch_size,
    }
    return device_choice.data_parallel(batch_sizes, settings.num_devices, settings.parallel)
