"""A run from its config to its results: training, evaluation, and the files in its folder."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections

import jsubspace
from jsubspace import penalties, shares
from jsubspace.errors import UsageError
from jsubspace.evaluation.tasks import Classification
from jsubspace.preemption import Preemption
from jsubspace.runs import (
    build,
    config_files,
    feeding,
    figures,
    limits,
    memory,
    optimizers,
    pretrained,
    problem_checks,
    rates,
    results,
    settings,
    stacks,
    without_effect,
)
from jsubspace.runs import config as config_lib
from jsubspace.runs.build import Run
from jsubspace.runs.problem import Problem
from jsubspace.storage import checkpoint, folders, lock, places, steps
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.journal import Row
from jsubspace.storage.sinks import Sink, checked_sinks
from jsubspace.storage.writer import read_rows
from jsubspace.training import hosts, loop
from jsubspace.training.loop import Training
from jsubspace.training.progress import Clock
from jsubspace.training.train_state import TrainState
from jsubspace.types import Endpoints

log = logging.getLogger(__name__)

MakeProblem = Callable[[ml_collections.ConfigDict], Problem]
"""``get_problem`` of a config file: from the settings to the problem."""


def train(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, preemption: Preemption | None = None
) -> dict[str, Any]:
    """Trains and evaluates a run in ``workdir`` and returns its results.

    Called again with the same config and folder after any interruption, it resumes from the newest checkpoint and ends
    with the same bits as a run that never stopped. Called after the end, it returns the results and does nothing.

    If it is interrupted in a notebook, it raises KeyboardInterrupt. Its last checkpoint is saved, and the steps after
    that checkpoint are done again by the next call.

    Args:
      config: a config of this library, for example from ``configs/digits_cresnet8_line.py``.
      workdir: the run's folder, on the disk or in a bucket (``gs://bucket/run``). It will hold config.json, metrics.jsonl, TensorBoard events, checkpoints/, results.json
        and figures/.
      preemption: the listener for signals, or None for the one that the program has entered. A signal ends training after
        a step, and its state is saved.

    Returns:
      The content of results.json: see `results.describe` and `results.measure`.

    Raises:
      UsageError: for a setting out of range, data that is not prepared, arrays that are larger than the memory, a folder
        that holds another run or in which a run is under way, or a full disk.
      TrainingDiverged: if a loss is not finite.
      Preempted: if a signal ended training or evaluation.
    """
    return _train(config, None, workdir, preemption)


def train_problem(
    problem: Problem | MakeProblem,
    settings: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    preemption: Preemption | None = None,
    sinks: Sequence[Sink] = (),
) -> dict[str, Any]:
    """Trains and evaluates a problem of your own in ``workdir`` and returns its results: ``jsubspace.training.train``.

    It does everything that `train` does for the problems of the library. It resumes to the same bits, if the functions of
    the problem return the same for the same arguments.

    Args:
      problem: the problem, or a function ``settings -> problem``, which is not called for a finished run.
      settings: as `config.default_settings` makes them. They identify the run, together with their group ``problem``. The
        code of the problem does not, so put into this group what changes the network, the task or the data.
      workdir, preemption: as for `train`.
      sinks: objects that get every number of the log, in addition to the problem's own (docs/sinks.md). Training closes them.

    Returns:
      The content of results.json.

    Raises:
      UsageError: as `train`, and if the parts of the problem do not fit each other.
      TrainingDiverged: if a loss is not finite.
      Preempted: if a signal ended training or evaluation.
    """
    if not config_lib.is_of_a_problem(settings):
        raise UsageError(
            "the settings lack the group problem. Make them by jsubspace.training.default_settings(), which has the settings of a "
            "problem of your own."
        )
    return _train(settings, problem, workdir, preemption, checked_sinks(sinks))


def _train(
    config: ml_collections.ConfigDict,
    problem: Problem | MakeProblem | None,
    workdir: str | pathlib.Path,
    preemption: Preemption | None,
    sinks: Sequence[Sink] = (),
) -> dict[str, Any]:
    workdir = places.located(workdir, "the run's folder")
    limits.validate(config)
    if not (workdir / config_files.CONFIG).exists():
        without_effect.check(config)
    config = pretrained.with_digest(config, workdir)
    may_differ = settings.may_differ_between_hosts()
    hosts.check_same({field: value for field, value in config_lib.fields(config).items() if field not in may_differ})
    config_files.check_same_run(workdir, config)
    written = results.read(workdir)
    if written is not None and results.is_finished(written):
        log.info("%s holds the finished run. Nothing to do.", workdir)
        return written
    folders.check_folder(workdir)
    starts = not steps.steps_in(workdir / checkpoint.FOLDER)
    if starts or pretrained.has_origin(config):
        pretrained.check_file(config)
    if starts:
        stacks.start_runs(config)  # Checked before any data is read.
    run = build.build(config, checked_problem(config, problem))
    memory.check(run)
    if problem is not None:
        problem_checks.warn_of_parts(run.problem.network, run.devices)
    if starts:
        check_batch(run)
        stacks.check_start(run)
    folders.make_folder(workdir)
    hosts.wait_for_all("folder")  # All hosts have looked at the same folder before the first one writes into it.
    with lock.alone(workdir) if hosts.is_first() else contextlib.nullcontext():
        if hosts.is_first():
            config_files.check_same_run(workdir, config)  # Another process may have started a run here in the meantime.
            config_files.save(workdir, config)
        seconds = train_endpoints(run, workdir, preemption or Preemption.current(), sinks)
        return evaluate(run, workdir, seconds)


def checked_problem(config: ml_collections.ConfigDict, problem: Problem | MakeProblem | None) -> Problem | None:
    """The problem that a config needs, made and checked. None for the images and networks of the library.

    Raises:
      UsageError: if the problem is missing, or its parts do not fit each other.
    """
    if not config_lib.is_of_a_problem(config):
        return None
    if problem is None:
        raise UsageError(
            "this is a run of a problem of your own, which config.json does not hold. Say --config=FILE, the file that defines "
            "get_config() and get_problem(config), or pass problem= in Python."
        )
    made = problem if isinstance(problem, Problem) or not callable(problem) else problem(config)
    problem_checks.check(made)
    checked_sinks(made.sinks)
    optimizers.check_own(config, made.optimizer, problem_checks.point_of(made))
    for name, default in {"early_stopping": "auto", "patience": 0}.items():
        given = config.evaluation[name]
        if (name == "patience" or given == "validation") and given != default and not made.data.num_validation:
            raise UsageError(
                f"config.evaluation.{name} is {given!r}, but the data of the problem has no validation examples. Set it to {default}."
            )
    return made


def check_batch(run: Run) -> None:
    """Checks that a batch is not larger than the training data, of which it would be less than its setting says.

    Raises:
      UsageError: if it is.
    """
    data = run.problem.data
    if data.batch_size > data.num_train:
        raise UsageError(
            f"config.data.batch_size is {data.batch_size}, but there are {data.num_train} training {run.problem.unit}. Set it to at "
            "most this number."
        )


def facts(run: Run) -> dict[str, Any]:
    """What a network of the run needs when it leaves the run: its settings, and what the problem says."""
    return run.problem.facts() | {"config": run.settings.to_dict(), "jsubspace": jsubspace.__version__}


def train_endpoints(run: Run, workdir: pathlib.Path, preemption: Preemption, sinks: Sequence[Sink] = ()) -> float:
    """Trains the endpoints of a run, and returns the seconds that it took. See `loop.train_endpoints`."""
    _report_shares(run)
    all_sinks = (*checked_sinks(run.problem.sinks), *sinks)
    return loop.train_endpoints(dataclasses.replace(training(run), sinks=all_sinks), workdir, preemption)


def training(run: Run) -> Training:
    """What the loop needs to train the run."""
    midpoint, data, task = results.Midpoint(run), run.problem.data, run.problem.task
    speed = f"{run.problem.unit}_per_second"
    has_rate = not optimizers.has_a_rate_of_its_own(run.problem.optimizer)
    origin = pretrained.origin(run)
    fed, learning_rates = feeding.feed(run, origin), rates.Rates(run.schedule)

    def describe(row: Row, steps_per_second: float | None) -> dict[str, float]:
        values = {"epoch": row.step / run.cadence.epoch_steps, **row.values}
        if steps_per_second is not None:
            if has_rate:
                values["learning_rate"] = learning_rates.of_step(row.step)
            values[speed] = steps_per_second * data.batch_size
        return values

    geometry = jax.jit(lambda endpoints, origin: penalties.geometry(endpoints, run.mask, origin=origin))
    return Training(
        cadence=run.cadence,
        init=lambda: run.devices.put(stacks.init_state(run), run.shardings),
        like=run.state_shape,
        places=run.shardings or run.devices.replicated,
        program=fed.program,
        key=run.devices.put(run.key),
        batches=fed.batches,
        position=fed.position,
        geometry=(lambda endpoints: geometry(endpoints, origin)) if run.subspace.num_endpoints > 1 else None,
        test=lambda endpoints: midpoint(run.devices.put(endpoints)),
        rank=lambda scores: scores[task.main] if task.higher_is_better[task.main] else -scores[task.main],
        tested_on=run.tested_on,
        warm_up=learning_rates.warm_up if has_rate else lambda: None,
        describe=describe,
        shown=("loss", "accuracy") if isinstance(task, Classification) else ("loss",),
        speed=speed,
        patience=run.evaluation.patience,
    )


def evaluate(run: Run, workdir: pathlib.Path, training_seconds: float, finished: bool = True) -> dict[str, Any]:
    """Evaluates the newest checkpoint, writes results.json and figures/, and returns the results.

    The results of a run that is not ``finished`` say so. `train` then still resumes the run.
    """
    clock = Clock()
    metrics = read_rows(workdir)
    measured = results.measure(run, trained_endpoints(run, workdir), workdir if hosts.is_first() else None) | {
        "early_stopping": results.early_stopping(metrics, run.tested_on, run.problem.task)
    }
    seconds = {"training": round(training_seconds, 1), "evaluation": round(clock.seconds(), 1)}
    described = results.describe(run.settings, measured, seconds) | {"finished": finished}
    if not hosts.is_first():
        return described
    figures.draw(described, metrics, workdir / "figures")
    return results.write(workdir, described)


def trained_endpoints(run: Run, workdir: pathlib.Path) -> Endpoints:
    """The endpoints that are evaluated: from the newest checkpoint, or the networks collected during training.

    Raises:
      UsageError: if there is no such checkpoint, it is damaged, or its endpoints are not finite.
    """
    checkpoints: Checkpoints[TrainState]
    with Checkpoints(workdir / checkpoint.FOLDER, read_only=True) as checkpoints:
        if run.collects:
            return stacks.checked(stacks.collected(run, checkpoints), workdir)
        like = run.state_shape
        state, _ = checkpoints.restore(like, run.devices.replicated, last_step=run.total_steps)
    return stacks.checked(state.endpoints, workdir)


def _report_shares(run: Run) -> None:
    """Logs which leaves the devices cannot divide, if the endpoints are to be divided."""
    if run.shardings is None:
        return
    endpoints, count = run.state_shape.endpoints, len(run.devices.devices)
    whole, leaves = shares.kept_whole(endpoints, count), jax.tree.leaves(endpoints)
    fraction = sum(whole.values()) / sum(leaf.size for leaf in leaves)
    names = f": {', '.join(list(whole)[:3])}{', ...' if len(whole) > 3 else ''}" if whole else ""
    log.info(
        "each of %d devices keeps its share of the endpoints. %d of %d leaves, %.2g %% of the numbers, have no axis that "
        "%d divides and are kept whole%s", count, len(whole), len(leaves), 100 * fraction, count, names
    )  # fmt: skip
