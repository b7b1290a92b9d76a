"""Training from the first step, or from where it was interrupted, to the results."""

import contextlib
import logging
import pathlib
import time
from typing import Any

import jax
import ml_collections
import tqdm

from jsubspace import penalties, shares
from jsubspace.runs import build, figures, config_files, limits, report, results, settings, stacks
from jsubspace.storage import folders, lock
from jsubspace.training import hosts
from jsubspace.runs import config as config_lib
from jsubspace.runs.build import Run
from jsubspace.storage.checkpoint import RANKED_BY, Checkpoints
from jsubspace.errors import Preempted, TrainingDiverged
from jsubspace.storage.journal import Journal, Row
from jsubspace.training.preemption import Preemption
from jsubspace.training.train_state import TrainState, all_finite
from jsubspace.types import Endpoints
from jsubspace.storage.writer import Silent, Writer, read_rows

log = logging.getLogger(__name__)


def train(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, preemption: Preemption | None = None
) -> dict[str, Any]:
    """Trains and evaluates a run in ``workdir`` and returns its results.

    Called again with the same config and folder after any interruption, it goes on from the newest checkpoint to the
    same bits as if it had never stopped. Called after the end, it returns the results and does nothing.

    Interrupted in a notebook, it raises KeyboardInterrupt and has saved its last checkpoint; what came after is done again.

    Args:
      config: a config of this library, for example from ``configs/digits_cresnet8_line.py``.
      workdir: the run's folder: config.json, metrics.jsonl and TensorBoard events, checkpoints/, results.json, figures/.
      preemption: of a program, whose signals then end training after a step that is saved.

    Returns:
      The content of results.json: see `report.describe` and `results.measure`.

    Raises:
      UsageError: for a setting out of range, data that is not prepared, a folder that holds another run, or in which
        one is under way, a disk that is full.
      TrainingDiverged: if a loss is not finite.
      Preempted: if a signal ended it.
    """
    workdir = pathlib.Path(workdir)
    limits.validate(config)
    may_differ = settings.may_differ_between_hosts()
    hosts.check_same({field: value for field, value in config_lib.fields(config).items() if field not in may_differ})
    config_files.check_same_run(workdir, config)
    if (written := report.read(workdir)) and written.get("finished", True):
        log.info("%s holds the finished run; nothing to do.", workdir)
        return written
    folders.check_folder(workdir)
    starts = not (workdir / stacks.CHECKPOINTS).exists()
    if starts:
        stacks.start_runs(config)  # before data is read
    run = build.build(config)
    if starts:
        stacks.check_start(run)
    folders.make_folder(workdir)
    hosts.wait_for_all("folder")  # They have looked at the same one, before the first of them writes into it.
    with lock.alone(workdir) if hosts.is_first() else contextlib.nullcontext():
        if hosts.is_first():
            config_files.check_same_run(workdir, config)  # Somebody else may have been first.
            config_files.save(workdir, config)
        seconds = train_endpoints(run, workdir, preemption or Preemption())
        return evaluate(run, workdir, seconds)


def train_endpoints(run: Run, workdir: pathlib.Path, preemption: Preemption) -> float:
    """Trains to the last step, whose state is a checkpoint then; returns the seconds that it took, over interruptions."""
    config, epoch_steps, total_steps = run.config, run.pipeline.steps_per_epoch, run.total_steps
    checkpoint_steps = config.checkpoint_every_epochs * epoch_steps
    test_steps = config.evaluation.every_epochs * epoch_steps
    train_step = run.compiled_step()
    geometry = jax.jit(lambda endpoints: penalties.geometry(endpoints, run.mask))
    midpoint = results.Midpoint(run)
    key = run.devices.put(run.key)

    with Checkpoints(workdir / stacks.CHECKPOINTS, config.keep_checkpoints, run.kept_steps) as checkpoints:
        report_shares(run)
        state, notes = restore_or_init(run, checkpoints)
        start = int(state.step)
        journal = Journal(config.log_every_steps, notes.get("journal"))
        clock = Clock(notes.get("seconds", 0.0))
        batches = run.devices.put_batches(run.pipeline.train_batches(start), parts=config.subspace.num_samples)
        with (
            Writer(workdir, start) if hosts.is_first() else Silent() as writer,
            Progress(start, total_steps) as progress,
            preemption.held(),
        ):
            for step in range(start + 1, total_steps + 1):
                state, info = train_step(state, next(batches), key)
                journal.add(step, info)
                if is_due(step, epoch_steps, total_steps) and run.subspace.num_endpoints > 1:
                    journal.note("endpoints", step, geometry(state.endpoints))
                test = test_steps > 0 and is_due(step, test_steps, total_steps)
                if test:
                    journal.note("test", step, midpoint(run.devices.put(state.endpoints)))
                ends = preemption.received() or (checkpoints.reached_preemption(step) and "preemption")
                save = is_due(step, checkpoint_steps, total_steps) or step in run.kept_steps or test or bool(ends)
                if save:
                    journal.finish()  # A loss that is not finite ends the run here, before it is saved.
                    check_finite(state, step)
                tested = None
                for row in journal.take_rows():
                    row = described(row, run, clock)
                    writer.write(row.kind, row.step, row.values)
                    progress.show(row)
                    if (row.kind, row.step) == ("test", step):
                        tested = {RANKED_BY: row.values[RANKED_BY]}
                if save:  # After the rows: those up to a checkpoint are never written again.
                    writer.sync()
                    checkpoints.save(state, step, {"journal": journal.state(), "seconds": clock.seconds()}, tested)
                progress.step()
                if ends:
                    checkpoints.wait()
                    raise Preempted(
                        f"stopped by {ends} and saved after step {step}; the same command goes on from there."
                    )
            if total_steps == 0:  # networks of other runs, that are only stacked
                checkpoints.save(state, 0, {"journal": journal.state(), "seconds": 0.0})
    return clock.seconds()


def evaluate(run: Run, workdir: pathlib.Path, training_seconds: float, finished: bool = True) -> dict[str, Any]:
    """Evaluates what the checkpoints hold; writes results.json and figures/, and returns the results.

    Those of a run that is not ``finished`` say so, and do not keep it from going on.
    """
    clock = Clock()
    rows = read_rows(workdir)
    measured = results.measure(run, trained_endpoints(run, workdir)) | {"early_stopping": results.early_stopping(rows)}
    seconds = {"training": round(training_seconds, 1), "evaluation": round(clock.seconds(), 1)}
    described = report.describe(run.config, measured, seconds) | {"finished": finished}
    if not hosts.is_first():
        return described
    figures.draw(described, rows, workdir / "figures")
    return report.write(workdir, described)


def trained_endpoints(run: Run, workdir: pathlib.Path) -> Endpoints:
    """The endpoints of ``run.evaluated``: those of the newest checkpoint, or the networks collected along the way."""
    with Checkpoints(workdir / stacks.CHECKPOINTS, read_only=True) as checkpoints:
        if run.collected_steps:
            return stacks.collected(run, checkpoints)
        return checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated)[0].endpoints


def restore_or_init(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint, on the run's devices, with its notes; the state to start from and no notes if there is none."""
    if checkpoints.latest_step() is None:
        return run.devices.put(stacks.init_state(run), run.shardings), {}
    like = jax.eval_shape(run.init_state)
    state, notes = checkpoints.restore(like, run.shardings or run.devices.replicated)
    log.info("going on from step %d", state.step)
    return state, notes


def check_finite(state: TrainState, step: int) -> None:
    """Raises TrainingDiverged if an endpoint is not finite: the last step's update, whose loss the next would tell of."""
    if not all_finite(state.endpoints):
        raise TrainingDiverged(
            f"the endpoints after step {step} are not finite. Nothing since the last checkpoint has been saved; lower "
            "config.optimizer.learning_rate, lengthen config.optimizer.warmup_epochs, or look at the data."
        )


def report_shares(run: Run) -> None:
    """Says which leaves ``config.shard_endpoints`` cannot divide."""
    if not run.config.shard_endpoints:
        return
    endpoints, count = jax.eval_shape(run.init_state).endpoints, len(run.devices.devices)
    whole, leaves = shares.kept_whole(endpoints, count), jax.tree.leaves(endpoints)
    fraction = sum(whole.values()) / sum(leaf.size for leaf in leaves)
    names = f": {', '.join(list(whole)[:3])}{', ...' if len(whole) > 3 else ''}" if whole else ""
    log.info(
        "each of %d devices keeps its share of the endpoints; %d of %d leaves, %.2g %% of the numbers, have no axis that "
        "%d divides and are kept whole%s", count, len(whole), len(leaves), 100 * fraction, count, names
    )  # fmt: skip


def is_due(step: int, every: int, last: int) -> bool:
    """Whether what happens every so many steps, and after the last, happens after this one."""
    return step % every == 0 or step == last


def described(row: Row, run: Run, clock: "Clock") -> Row:
    """The row with what the host knows: the epoch, and for training the learning rate and the speed."""
    values = {"epoch": row.step / run.pipeline.steps_per_epoch, **row.values}
    if row.kind == "train":
        values["learning_rate"] = float(run.schedule(row.step - 1))
        values["images_per_second"] = clock.rate(row.step) * run.config.data.batch_size
    return row._replace(values=values)


class Progress:
    """A bar on a terminal; elsewhere a line a row, as a log file wants it."""

    def __init__(self, start: int, total: int) -> None:
        self._total = total
        self._bar = tqdm.tqdm(initial=start, total=total, unit="step", disable=None, dynamic_ncols=True)

    def step(self) -> None:
        """One more step has been started."""
        self._bar.update()

    def show(self, row: Row) -> None:
        """Shows the numbers of training."""
        if row.kind != "train":
            return
        numbers = f"loss {row.values['loss']:.4f}, accuracy {row.values['accuracy']:.4f}"
        if self._bar.disable:
            speed = f"{row.values['images_per_second']:.0f} images/s"
            log.info("step %d of %d (epoch %.1f): %s, %s", row.step, self._total, row.values["epoch"], numbers, speed)
        self._bar.set_postfix_str(numbers)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


class Clock:
    """Seconds of work, over interruptions; it does not mind a system clock that jumps."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._start = time.monotonic() - seconds
        self._last: tuple[int, float] | None = None

    def seconds(self) -> float:
        """Since the start, with what earlier parts of the run took."""
        return time.monotonic() - self._start

    def rate(self, step: int) -> float:
        """Steps a second since the last call; 0 at the first, which would measure the compilation."""
        now, last = time.monotonic(), self._last
        self._last = step, now
        return (step - last[0]) / (now - last[1]) if last else 0.0
