"""The training loop: from the first step, or from the newest checkpoint, to the last step.

The loop knows neither the network nor the data. It is given a `Training`: the state to start from, a compiled step, the
batches from any step on, when to log, test and save, and how to describe a row of numbers.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from jsubspace.errors import Preempted, TrainingDiverged
from jsubspace.evaluation.devices import RUN_AHEAD
from jsubspace.preemption import Preemption
from jsubspace.storage.checkpoint import FOLDER, Checkpoints
from jsubspace.storage.checkpoint_files import POSITION, RANKED_BY, seconds_of
from jsubspace.storage.journal import TRAIN, Journal, Row
from jsubspace.storage.sinks import Sink, Sinks
from jsubspace.storage.writer import Silent, Writer
from jsubspace.training import hosts, peers
from jsubspace.training.patience import Patience
from jsubspace.training.profiles import Profile
from jsubspace.training.progress import Clock, Progress
from jsubspace.training.train_state import TrainState, all_finite
from jsubspace.training.train_step import TrainStep
from jsubspace.types import Endpoints

log = logging.getLogger(__name__)

Numbers = Mapping[str, jax.Array | float]


@dataclasses.dataclass(frozen=True)
class Cadence:
    """When the loop does something, in steps.

    Attributes:
      total_steps: the number of steps of the run. With 0, the first state is saved and nothing is trained.
      epoch_steps: the number of steps of an epoch. The geometry of the endpoints is noted after every epoch.
      log_steps: the length of the windows over which the reports of training are averaged. The last window may be shorter.
      save_steps: the number of steps from one checkpoint to the next.
      test_steps: the number of steps from one test to the next, or 0 for no test.
      kept_steps: the steps whose checkpoints are saved and never deleted.
      keep_newest: how many of the newest checkpoints are kept.
      profile_steps: a trace is written from the first to the last of these steps, or no trace if it is empty.
    """

    total_steps: int
    epoch_steps: int
    log_steps: int
    save_steps: int
    test_steps: int = 0
    kept_steps: tuple[int, ...] = ()
    keep_newest: int = 2
    profile_steps: tuple[int, ...] = ()

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, or training, ends with this step."""
        return is_due(step, self.epoch_steps, self.total_steps)

    def tests(self, step: int) -> bool:
        """Whether a test is made after this step."""
        return self.test_steps > 0 and is_due(step, self.test_steps, self.total_steps)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is saved after this step. The state of every test is saved: it may be the best one."""
        return is_due(step, self.save_steps, self.total_steps) or step in self.kept_steps or self.tests(step)

    def next_steps(self, step: int, most: int) -> range:
        """The steps after ``step`` that one program takes: ``most`` steps, or one if the loop needs the state in between."""
        steps = range(step + 1, step + most + 1)
        return steps[:1] if any(map(self._needs_state, steps[:-1])) else steps

    def _needs_state(self, step: int) -> bool:
        traced = self.profile_steps and step in (self.profile_steps[0] - 1, self.profile_steps[1])
        return bool(traced) or self.ends_epoch(step) or self.saves(step)


@dataclasses.dataclass(frozen=True)
class Training:
    """Everything that the loop is given.

    Attributes:
      cadence: the number of steps, and when to log, test, save and keep.
      init: returns the state before the first step, on its devices.
      like: a state of the same shapes and dtypes, as `jax.eval_shape` returns it.
      places: the sharding of every leaf of a restored state, or one sharding for all leaves.
      program: from a number of steps to ``(state, batch, key) -> (state, report)``, the compiled program that takes so many steps. It
        may take the state's memory.
      key: the key of all steps, on the devices.
      batches: ``(start, position) -> (steps, batch)``: from the step after ``start`` on, the steps that one program takes and what
        it takes on the devices, until the last step of the run. The position comes from the checkpoint, or is None.
      position: ``step -> position``: where the data is after a step, as JSON holds it, or None if the step alone says it.
      geometry: returns the numbers of the endpoints that are noted after every epoch, or None.
      test: returns the scores that are noted after a test.
      rank: from these scores to the number by which the best checkpoint is found. A larger number is better.
      tested_on: the kind of the rows of tests: the name of the data on which they are made.
      patience: training ends after so many tests without improvement. With 0 it does not.
      sinks: objects that get every number of every row, beside the files.
      warm_up: prepares `describe`, which is called later, while the devices are busy with the first step.
      describe: ``(row, steps_per_second) -> values``: the row's numbers with what the host knows about its step.
        The rate is None for a row that is not of training.
      shown: the numbers of a row of training that a person sees.
      speed: the number of such a row that is the speed, like ``images_per_second``.
    """

    cadence: Cadence
    init: Callable[[], TrainState]
    like: TrainState
    places: Any
    program: Callable[[int], TrainStep]
    key: jax.Array
    batches: Callable[[int, Any], Iterator[tuple[range, Any]]]
    position: Callable[[int], Any]
    geometry: Callable[[Endpoints], Numbers] | None
    test: Callable[[Endpoints], Numbers]
    rank: Callable[[Mapping[str, float]], float]
    tested_on: str
    warm_up: Callable[[], None]
    describe: Callable[[Row, float | None], dict[str, float]]
    shown: tuple[str, ...]
    speed: str
    patience: int = 0
    sinks: tuple[Sink, ...] = ()


def train_endpoints(training: Training, workdir: pathlib.Path, preemption: Preemption) -> float:
    """Trains to the last step, or until patience ends, and saves the state as a checkpoint.

    Returns:
      The seconds that training took, summed over interruptions.

    Raises:
      TrainingDiverged: if a loss or an endpoint is not finite.
      Preempted: if a signal ended training. The state is saved. A signal during the last step is raised after the save.
    """
    cadence = training.cadence
    with Checkpoints(workdir / FOLDER, cadence.keep_newest, cadence.kept_steps) as checkpoints, peers.noticing():
        state, notes = restore_or_init(training, checkpoints)
        start = int(state.step)
        journal = Journal(cadence.log_steps, RUN_AHEAD, notes.get("journal"))
        clock, patience = Clock(seconds_of(notes)), Patience(training.patience, notes)
        with (
            Writer(workdir, start) if hosts.is_first() else Silent() as writer,
            Progress(start, cadence.total_steps, training.shown, training.speed) as progress,
            Sinks(training.sinks if hosts.is_first() else ()) as sinks,
            Profile(cadence.profile_steps if hosts.is_first() else (), workdir, cadence.total_steps) as profile,
            preemption.held(),
        ):
            for steps, batch in training.batches(start, notes.get(POSITION)):
                first, step = steps[0], steps[-1]
                if patience.is_over():
                    log.info("ends after step %d: no test was better than an earlier one for a while", first - 1)
                    break
                profile.before(first)
                state, report = training.program(len(steps))(state, batch, training.key)
                profile.after(step, state)
                journal.add(first, report)
                if first == start + 1:
                    training.warm_up()
                if training.geometry is not None and cadence.ends_epoch(step):
                    journal.note("endpoints", step, training.geometry(state.endpoints))
                if cadence.tests(step):
                    journal.note(training.tested_on, step, training.test(state.endpoints))
                reached = [checkpoints.reached_preemption(each) for each in steps]  # jax counts the calls.
                ends = preemption.received() or (any(reached) and "preemption")
                save = cadence.saves(step) or bool(ends)
                if save:
                    journal.finish()  # A loss that is not finite ends the run here, before the state is saved.
                    check_finite(state, step)
                tested = None
                for row in rows_after(step, journal, patience, cadence.total_steps):
                    values = training.describe(row, clock.rate(row.step) if row.kind == TRAIN else None)
                    writer.write(row.kind, row.step, values)
                    sinks.write(row.kind, row.step, values)
                    progress.show(row._replace(values=values))
                    if (row.kind, row.step) == (training.tested_on, step):
                        tested = {RANKED_BY: training.rank(values)}
                        patience.see(tested[RANKED_BY])
                if save:  # The rows come first: rows up to a checkpoint are never written again.
                    writer.sync()
                    position = training.position(step)
                    notes = {"journal": journal.state(), "seconds": clock.seconds(), **patience.notes()}
                    checkpoints.save(state, step, notes if position is None else notes | {POSITION: position}, tested)
                progress.step(len(steps))
                if ends:
                    checkpoints.wait()
                    raise Preempted(
                        f"stopped by {ends} and saved after step {step}. The same command resumes from there."
                    )
            if cadence.total_steps == 0:  # Networks of other runs are only stacked.
                checkpoints.save(state, 0, {"journal": journal.state(), "seconds": 0.0})
    return clock.seconds()


def rows_after(step: int, journal: Journal, patience: Patience, last: int) -> Iterator[Row]:
    """The rows that are complete after a step. After the last step of the run, they include the incomplete window.

    Patience is asked after its reader has seen the other rows: a test may have ended the run. The journal has read everything by
    then, because the state of a test and of the last step is saved. An interruption does not end a window.
    """
    yield from journal.take_rows()
    if step == last or patience.is_over():
        journal.end_window(step)
        yield from journal.take_rows()


def restore_or_init(training: Training, checkpoints: Checkpoints[TrainState]) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint and its notes. If there is no checkpoint: the state to start from, and no notes."""
    if checkpoints.latest_step() is None:
        return training.init(), {}
    state, notes = checkpoints.restore(training.like, training.places, last_step=training.cadence.total_steps)
    log.info("resuming from step %d", state.step)
    return state, notes


def check_finite(state: TrainState, step: int) -> None:
    """Checks the update of the last step. The loss of a step is computed before its update and does not show it.

    Raises:
      TrainingDiverged: if an endpoint is not finite.
    """
    if not all_finite(state.endpoints):
        raise TrainingDiverged(f"the endpoints after step {step} are not finite. {TrainingDiverged.ADVICE}")


def is_due(step: int, every: int, last: int) -> bool:
    """Whether something that happens every ``every`` steps, and after the last step, happens after this step."""
    return step % every == 0 or step == last
