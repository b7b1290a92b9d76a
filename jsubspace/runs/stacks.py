"""Networks that were trained before, stacked into endpoints. They come from other runs, or from this run's checkpoints.

An ensemble of independent runs is a simplex of their networks, and nothing is trained on it. A connector of two runs is
a curve between their networks, and only its bends are trained. The average of a run's checkpoints is the center of their
simplex. A branch of a run resumes from its checkpoint after some epochs, with another seed.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jsubspace import arguments, points, tree
from jsubspace.errors import UsageError
from jsubspace.runs import config, config_files, parts, pretrained, results
from jsubspace.runs.build import Run
from jsubspace.runs.settings import identifying
from jsubspace.storage import places
from jsubspace.storage.checkpoint import FOLDER, Checkpoints
from jsubspace.subspaces import Chain, Curve
from jsubspace.training.train_state import TrainState, init_train_state, not_finite
from jsubspace.types import Endpoints, Params


def init_state(run: Run) -> TrainState:
    """The state before the run's first step, on its devices: fresh, or from the runs or the network that ``start`` names.

    A fresh state is placed as in training: with ``shard_endpoints`` no device ever holds all of it.

    Raises:
      UsageError: if one of those runs does not exist, has no checkpoint after that epoch, or trained another network, or if
        the pretrained network is another one.
    """
    settings = run.settings
    paths = start_runs(settings)
    if pretrained.is_start(settings):
        return run.devices.run_once(
            lambda endpoints: init_train_state(endpoints, run.optimizer),
            pretrained.endpoints(run),
            shardings=run.shardings,
        )
    if not paths:
        return run.devices.run_once(run.init_state, shardings=run.shardings)
    if settings.start.epoch:
        return _branch(run, settings, paths)
    endpoints = run.devices.put(_arranged([_network(run, folder) for folder in paths], run, paths))
    return run.devices.run_once(lambda endpoints: init_train_state(endpoints, run.optimizer), endpoints)


def start_runs(settings: ml_collections.ConfigDict) -> list[pathlib.Path]:
    """The folders of the runs that ``start.runs`` names.

    Raises:
      UsageError: if one holds no run, if the last network of a run is needed and the run is not finished, or if a run was
        trained on images that are kept for validation here.
    """
    found = [places.located(name, "config.start.runs") for name in arguments.words(settings.start.runs)]
    for path in found:
        _check_validation(settings, config_files.load(path), path)
        if settings.start.epoch == 0 and not results.is_finished(results.read(path)):
            raise UsageError(
                f"{path} (of config.start.runs) holds a run that is not finished. Finish it first: python -m jsubspace.main."
            )
    return found


def check_start(run: Run) -> None:
    """Raises what `init_state` would raise about the start, before anything is written."""
    pretrained.check(run)
    if arguments.words(run.settings.start.runs):
        init_state(run)


def collected(run: Run, checkpoints: Checkpoints[TrainState]) -> Endpoints:
    """The networks that the run collected during training: the corners of its simplex, leaves ``[m, *s]``.

    Raises:
      UsageError: if the checkpoint of one of them is missing.
    """
    like = run.state_shape
    states = [checkpoints.restore(like, run.devices.replicated, step)[0] for step in run.collected_steps]
    return run.devices.put(_joined([state.endpoints for state in states]))


def checked(endpoints: Endpoints, folder: pathlib.Path) -> Endpoints:
    """The endpoints that were restored from the run in ``folder``.

    Raises:
      UsageError: if a number is not finite. The message names the leaf. An argmax and a mean would hide the number.
    """
    if leaf := not_finite(endpoints):
        raise UsageError(
            f"the endpoints in {folder} are not finite: the leaf {leaf} holds NaN or infinity. The run diverged, or its files "
            "were changed. Restore an earlier checkpoint, or train again with a lower optimizer.learning_rate."
        )
    return endpoints


def _joined(endpoints: list[Endpoints]) -> Endpoints:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *endpoints)


def _check_validation(here: ml_collections.ConfigDict, there: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    """Networks that saw the validation images in training would make every choice on them worthless.

    A larger number of validation images includes a smaller number, so the other run may keep more images.
    """
    if config.is_of_a_problem(here) != config.is_of_a_problem(there):
        raise UsageError(
            f"{folder} (of config.start.runs) trained another kind of problem. A problem of your own and a run on the images of the "
            "library do not start from each other."
        )
    if config.is_of_a_problem(here) or here.data.num_validation == 0:
        return  # Nobody but its author knows which examples the data of a problem keeps.
    a, b = here.data, there.data
    if (a.name, a.num_train) != (b.name, b.num_train) or a.num_validation > b.num_validation:
        raise UsageError(
            f"config.data.num_validation is {a.num_validation} here, but {folder} (of config.start.runs) may have been trained "
            f"on these images: there data.name is {b.name}, data.num_train {b.num_train} and data.num_validation "
            f"{b.num_validation}. Set the same values, or data.num_validation to 0."
        )


def _network(run: Run, folder: pathlib.Path) -> Params:
    """The network of the run in ``folder`` that `export` writes, leaves ``[*s]``: the midpoint at the end of the run.

    It is the mean of the networks if the run collected networks.
    """
    settings = config_files.load(folder)
    checkpoints: Checkpoints[TrainState]
    with Checkpoints(folder / FOLDER, read_only=True) as checkpoints:
        steps_per_epoch = (checkpoints.latest_step() or 0) // max(settings.optimizer.num_epochs, 1)
        epochs = parts.collection_epochs(settings, steps_per_epoch)
        steps = [epoch * steps_per_epoch for epoch in epochs] or [None]
        found = [checkpoints.restore_part("endpoints", run.devices.replicated, step) for step in steps]
    endpoints = _joined(found)
    return points.midpoint(checked(endpoints, folder), parts.make_evaluated(settings))


def _arranged(networks: list[Params], run: Run, paths: list[pathlib.Path]) -> Endpoints:
    """The networks as endpoints: one network per endpoint, one for all, or two ends with bends evenly between them."""
    m, n = run.subspace.num_endpoints, len(networks)
    expected = run.state_shape.endpoints
    for network, folder in zip(networks, paths, strict=True):
        _check_shapes(network, expected, folder)
    if n == m:
        return tree.stack(networks)
    if n == 1:
        return tree.stack(networks * m)
    if n == 2 and isinstance(run.subspace, Curve | Chain):
        ends = tree.stack(networks)
        bends = [points.interpolate(ends, (j + 1) / (m - 1)) for j in range(m - 2)]
        return tree.stack([*networks, *bends])
    raise UsageError(
        f"config.start.runs names {n} runs for {m} endpoints. Name one for each, one for all of them, or (for a curve or chain) "
        "two for the ends."
    )


def _check_shapes(network: Params, expected: Endpoints, folder: pathlib.Path) -> None:
    if not tree.same_structure(network, expected):
        raise UsageError(
            f"{folder} trained another architecture than config.model describes. Stack runs of one architecture."
        )
    leaves = jax.tree_util.tree_leaves_with_path(network)
    for (path, leaf), like in zip(leaves, jax.tree.leaves(expected), strict=True):
        if leaf.shape != like.shape[1:] or leaf.dtype != like.dtype:
            raise UsageError(
                f"{jax.tree_util.keystr(path)} is {leaf.dtype}{list(leaf.shape)} in {folder} but config.model makes it "
                f"{like.dtype}{list(like.shape[1:])}. Stack runs of one architecture and width."
            )


def _branch(run: Run, settings: ml_collections.ConfigDict, paths: list[pathlib.Path]) -> TrainState:
    """The whole state of the one run that is named, after ``start.epoch`` epochs."""
    if len(paths) != 1:
        raise UsageError(f"config.start.epoch resumes from one run, but config.start.runs names {len(paths)}.")
    theirs = config_files.load(paths[0])
    model = tuple(name for name in identifying() if name.startswith("model."))
    of_images = ("data.name", "data.batch_size", "data.num_train", "data.num_validation", "data.pooling", *model)
    for field in (*((config.PROBLEM,) if config.is_of_a_problem(settings) else of_images), "subspace"):
        a, b = (config.value(either, field) for either in (theirs, settings))
        if a != b:
            raise UsageError(
                f"config.{field} is {_on_a_line(b)} here but {_on_a_line(a)} in {paths[0]}, the run to resume from. Set it to the "
                "same value."
            )
    step = settings.start.epoch * run.problem.data.steps_per_epoch
    checkpoints: Checkpoints[TrainState]
    with Checkpoints(paths[0] / FOLDER, read_only=True) as checkpoints:
        state = checkpoints.restore(run.state_shape, run.devices.replicated, step)[0]
    return state._replace(endpoints=checked(state.endpoints, paths[0]))


def _on_a_line(field: Any) -> str:
    """A field or a group of fields on one line. Where PyYAML is installed, a group is shown on many lines."""
    return ", ".join(str(field).split("\n")).strip(", ")
