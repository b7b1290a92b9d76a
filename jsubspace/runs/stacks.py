"""Networks that were trained before, stacked into endpoints: of other runs, or of this run's own checkpoints.

An ensemble of independent runs is a simplex of their networks on which nothing is trained. A connector of two runs is a
curve between their networks, of which the bends alone are trained. The average of a run's checkpoints is the center of
their simplex. A branch of a run goes on from its checkpoint after some epochs, with another seed.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jsubspace import points, tree
from jsubspace.runs import build, config, config_files, report
from jsubspace.runs.build import Run
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.errors import UsageError
from jsubspace.training.train_state import TrainState, init_train_state
from jsubspace.types import Endpoints, Params

CHECKPOINTS = "checkpoints"


def init_state(run: Run) -> TrainState:
    """The state before the run's first step, on its devices: fresh, or from the runs that ``config.start`` names.

    A fresh one lies as it will in training: with ``config.shard_endpoints`` no device ever holds all of it.

    Raises:
      UsageError: if one of those runs is not there, has no checkpoint after that epoch, or trained another network.
    """
    paths = start_runs(run.config)
    if not paths:
        return run.devices.run_once(run.init_state, shardings=run.shardings)
    if run.config.start.epoch:
        return _branch(run, paths)
    endpoints = run.devices.put(_arranged([_network(run, folder) for folder in paths], run, paths))
    return run.devices.run_once(lambda endpoints: init_train_state(endpoints, run.optimizer), endpoints)


def start_runs(settings: ml_collections.ConfigDict) -> list[pathlib.Path]:
    """The folders of the runs that ``config.start`` names.

    Raises:
      UsageError: if one holds no run, or one that is not finished and whose last network would be taken.
    """
    paths = [pathlib.Path(folder) for folder in config.split(settings.start.runs)]
    for path in paths:
        config_files.load(path)
        if settings.start.epoch == 0 and not (report.read(path) or {"finished": False}).get("finished", True):
            raise UsageError(
                f"{path} (of config.start.runs) holds a run that is not finished; finish it first: python -m jsubspace.main."
            )
    return paths


def check_start(run: Run) -> None:
    """Refuses runs to start from that `init_state` would refuse, before anything is written."""
    if run.config.start.runs:
        init_state(run)


def collected(run: Run, checkpoints: Checkpoints) -> Endpoints:
    """The networks that the run collected along the way: the corners of ``run.evaluated``, leaves ``[m, *s]``.

    Raises:
      UsageError: if a checkpoint of theirs is missing.
    """
    like = jax.eval_shape(run.init_state)
    states = [checkpoints.restore(like, run.devices.replicated, step)[0] for step in run.collected_steps]
    stack = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(state.endpoints for state in states))
    return run.devices.put(stack)


def _network(run: Run, folder: pathlib.Path) -> Params:
    """The midpoint that the run in ``folder`` ended with, leaves ``[*s]``."""
    settings = config_files.load(folder)
    with Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        endpoints = checkpoints.restore_endpoints(run.devices.replicated)
    return points.midpoint(endpoints, build.make_subspace(settings))


def _arranged(networks: list[Params], run: Run, paths: list[pathlib.Path]) -> Endpoints:
    """The networks as endpoints: one for each, one for all, or two ends with the bends evenly between them."""
    m, n = run.subspace.num_endpoints, len(networks)
    expected = jax.eval_shape(run.init_state).endpoints
    for network, folder in zip(networks, paths, strict=True):
        _check_shapes(network, expected, folder)
    if n == m:
        return tree.stack(networks)
    if n == 1:
        return tree.stack(networks * m)
    if n == 2 and run.config.subspace.name in ("curve", "chain"):
        ends = tree.stack(networks)
        bends = [points.interpolate(ends, (j + 1) / (m - 1)) for j in range(m - 2)]
        return tree.stack([*networks, *bends])
    raise UsageError(
        f"config.start.runs names {n} runs for {m} endpoints; name one for each, one for all of them, or (for a curve or "
        "chain) two for the ends."
    )


def _check_shapes(network: Params, expected: Endpoints, folder: pathlib.Path) -> None:
    if not tree.same_structure(network, expected):
        raise UsageError(
            f"{folder} trained a network of another architecture than config.model says; stack runs of one architecture."
        )
    leaves = jax.tree_util.tree_leaves_with_path(network)
    for (path, leaf), like in zip(leaves, jax.tree.leaves(expected), strict=True):
        if leaf.shape != like.shape[1:] or leaf.dtype != like.dtype:
            raise UsageError(
                f"{jax.tree_util.keystr(path)} is {leaf.dtype}{list(leaf.shape)} in {folder} but config.model makes it "
                f"{like.dtype}{list(like.shape[1:])}; stack runs of one architecture and width."
            )


def _branch(run: Run, paths: list[pathlib.Path]) -> TrainState:
    """The whole state of the one run after ``config.start.epoch`` epochs."""
    if len(paths) != 1:
        raise UsageError(f"config.start.epoch goes on from one run, and config.start.runs names {len(paths)}.")
    theirs, ours = config_files.load(paths[0]), run.config
    for field in ("data.name", "data.batch_size", "data.num_train", "data.pooling", "model", "subspace"):
        a, b = (config.value(settings, field) for settings in (theirs, ours))
        if a != b:
            raise UsageError(
                f"config.{field} is {_on_a_line(b)} here but {_on_a_line(a)} in {paths[0]}, the run to go on from; set it "
                "the same."
            )
    step = ours.start.epoch * run.pipeline.steps_per_epoch
    with Checkpoints(paths[0] / CHECKPOINTS, read_only=True) as checkpoints:
        return checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated, step)[0]


def _on_a_line(field: Any) -> str:
    """A group of fields is shown on many lines where PyYAML is installed."""
    return ", ".join(str(field).split("\n")).strip(", ")
