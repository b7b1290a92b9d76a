"""The checkpoints of a run, written and read by Orbax."""

import contextlib
import logging
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jsubspace.errors import BucketError, UsageError, one_line
from jsubspace.preemption import Preemption
from jsubspace.storage import checkpoint_files, checksums, files, late_writes, steps
from jsubspace.storage.checkpoint_files import RANKED_BY
from jsubspace.storage.documents import without_nan
from jsubspace.storage.places import in_bucket
from jsubspace.storage.steps import HasStep

log = logging.getLogger(__name__)

State = TypeVar("State", bound=HasStep)

FOLDER = "checkpoints"
"""The name of the folder of checkpoints in a run's folder."""


class Checkpoints(Generic[State]):
    """The checkpoints in a folder. Each holds a state, a tree of arrays with its ``step``, and notes (numbers and strings).

    `save` copies the arrays and returns, and the files are written in the background. A checkpoint appears under its name
    only when it is complete, checksums included. An older one is deleted only after that, so a complete checkpoint exists
    whenever the process dies. The newest are kept, and the best of those that were saved with metrics.

    Args:
      folder: the folder of the checkpoints. It is made if it does not exist.
      keep: how many of the newest checkpoints to keep, at least 1.
      keep_steps: checkpoints of these steps are never deleted.
      read_only: whether to look at checkpoints without making the folder or tidying up in it.

    Raises:
      UsageError: if the folder cannot be opened, or its name or the name of a checkpoint in it belongs to something else.
    """

    def __init__(
        self, folder: pathlib.Path, keep: int = 2, keep_steps: Sequence[int] = (), read_only: bool = False
    ) -> None:
        policies = [
            ocp.checkpoint_managers.LatestN(keep),
            ocp.checkpoint_managers.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False),
            ocp.checkpoint_managers.CustomSteps(list(keep_steps)),
        ]
        options = ocp.CheckpointManagerOptions(
            best_fn=_rank,
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            create=not read_only,
            read_only=read_only,
            lightweight_initialize=read_only,  # One damaged file of metrics would hide all checkpoints.
        )
        self._folder, self._read_only = folder.absolute(), read_only
        self._saving = 0
        late_writes.ignore()
        self._set_aside_unreadable()
        handlers: Any = {"state": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()}
        with self._told("open"):
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, state: State, step: int, notes: dict[str, Any], metrics: dict[str, float] | None = None) -> None:
        """Starts to save the state after ``step`` steps, and notes for JSON. The state may be donated at once.

        Args:
          state: the state to save.
          step: the number of steps that led to it.
          notes: numbers and strings that `restore` returns.
          metrics: scores of the state, with `RANKED_BY` among them. A state without metrics, or for which `RANKED_BY` is
            not finite, is never the best.

        Raises:
          UsageError: if the folder has vanished, or this or the save before it could not be written.
        """
        if not (
            in_bucket(self._folder) or self._folder.is_dir()
        ):  # In a bucket, the first checkpoint makes the folder.
            raise UsageError(f"{self._folder} has vanished. The run cannot be saved and stops at step {step}.")
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(without_nan(notes)))
        if metrics is not None and not math.isfinite(metrics[RANKED_BY]):
            metrics = None
        with self._told("save into"):
            self._manager.wait_until_finished()  # `_saving` must be the step of one save at a time.
            self._saving = step
            self._manager.save(step, args=items, metrics=metrics)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None if there is no checkpoint."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the best checkpoint with metrics, or None if there is no such checkpoint."""
        if not self._read_only:
            return self._manager.best_step()
        return checkpoint_files.best_step(self._folder, self.steps())

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def restore(
        self, like: State, sharding: Any, step: int | None = None, last_step: int | None = None
    ) -> tuple[State, dict[str, Any]]:
        """The state of a checkpoint, placed by ``sharding``, and its notes. By default the newest undamaged checkpoint.

        Newer checkpoints whose files have changed since they were written are passed over. The log names each of them.
        Unless ``read_only``, each is renamed to ``<step>.damaged``.

        Args:
          like: a state of the same shapes and dtypes, of arrays or of `jax.ShapeDtypeStruct`.
          sharding: the placement of the arrays, whatever it was before: one `jax.sharding.Sharding`, or a tree of them
            like ``like``.
          step: the step of the checkpoint, or None for the newest.
          last_step: the last step of the run to which the checkpoint must belong, or None for any run.

        Raises:
          UsageError: if there is no such checkpoint, it is damaged, all are damaged, or it belongs to another run or step.
        """
        step = self._whole(step)
        places = jax.tree.map(lambda _: sharding, like) if isinstance(sharding, jax.sharding.Sharding) else sharding
        abstract = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), like, places
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
        with self._told("restore from"):
            there = _shapes(self._manager.item_metadata(step)["state"])
        if there != _shapes(like):  # Orbax would print pages about it, after it has read everything.
            raise UsageError(
                f"the checkpoint {self._folder / str(step)} is complete but its arrays are not those of this run: they belong to "
                "another network, number of endpoints, optimizer or version."
            )
        with self._told("restore from"):
            restored = self._manager.restore(step, args=items)
        state = restored["state"]
        steps.check(self._folder / str(step), step, state, state.step, last_step)
        return state, restored["notes"]

    def restore_part(self, name: str, sharding: jax.sharding.Sharding, step: int | None = None) -> Any:
        """One field of a checkpoint's state, of unknown structure: nested dictionaries of arrays.

        Raises:
          UsageError: if there is no such checkpoint, or it is damaged.
        """
        step = self._whole(step)
        with self._told("restore from"):
            saved = self._manager.item_metadata(step)["state"].tree
            abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), saved)
            items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            state = self._manager.restore(step, args=items)["state"]
        steps.check(self._folder / str(step), step, state, state["step"])
        return state[name]

    def reached_preemption(self, step: int) -> bool:
        """Whether one of the hosts that train together will be preempted. All hosts get the same answer at a step."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns when everything is written. It raises as `save` does."""
        with self._told("save into"):
            self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            with self._told("save into"):
                self._manager.wait_until_finished()
                self._manager.close()  # It raises the error of a save that failed at once.
        except UsageError as failure:
            if error is None:
                raise
            if not isinstance(error, UsageError):  # This is the same error, told a second time.
                log.error("%s", failure)  # The error that ended the run is more important.
        finally:
            if jax.process_index() == 0 and not self._read_only and not in_bucket(self._folder):
                late_writes.clear(self._folder)

    def _seal(self) -> None:
        """Writes the checksums while the checkpoint has its temporary name. Orbax calls it before it renames the folder.

        In a bucket, the folder has its name from the start. Orbax then writes the file that says that it is complete.
        """
        if jax.process_index() == 0:
            name = str(self._saving) if in_bucket(self._folder) else f"{self._saving}.orbax-checkpoint-tmp*"
            for folder in self._folder.glob(name):
                checksums.write(folder)

    def _whole(self, step: int | None) -> int:
        """The step if its checkpoint is undamaged, or the newest undamaged step for None."""
        if self.latest_step() is None:
            raise UsageError(f"there is no checkpoint in {self._folder}. Train first: python -m jsubspace.main.")
        if step is None:
            return self._newest_whole()
        if step not in self._manager.all_steps():
            raise UsageError(
                f"there is no checkpoint of step {step} in {self._folder}, only of {self.steps()}. The setting keep_epochs says "
                "which checkpoints a run keeps."
            )
        if damage := checkpoint_files.damage(self._folder / str(step)):
            raise UsageError(
                f"the checkpoint {self._folder / str(step)} is damaged ({damage}). Restore it from a copy."
            )
        return step

    def _newest_whole(self) -> int:
        """The newest undamaged step. The first host looks for it and sends it to the others."""
        found, damaged = -1, []
        if jax.process_index() == 0:
            for step in sorted(self._manager.all_steps(), reverse=True):
                damage = checkpoint_files.damage(self._folder / str(step))
                if damage is None:
                    found = step
                    break
                log.warning("the checkpoint of step %d is damaged (%s). Falling back to the one before.", step, damage)
                damaged.append(step)
            if found >= 0 and not self._read_only:  # Otherwise the folder would look as if nothing had been trained.
                for step in damaged:
                    self._set_aside(step)
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        if not self._read_only:
            self._manager.reload()
        if found < 0:
            raise self._all_damaged()
        return found

    def _set_aside(self, step: int) -> None:
        """Renames a damaged checkpoint. The run will need the name again when it reaches this step."""
        aside = self._folder / f"{step}.damaged"
        files.remove(aside)
        files.rename(self._folder / str(step), aside)

    def _set_aside_unreadable(self) -> None:
        """Orbax reads the metrics of all checkpoints when it opens the folder, and would refuse the folder for one of them."""
        there = steps.steps_in(self._folder)
        if self._read_only:
            return
        if jax.process_index() == 0:
            found = {step: checkpoint_files.wrong_metrics(self._folder / str(step)) for step in there}
            damaged = {step: damage for step, damage in found.items() if damage}
            if damaged and all(checkpoint_files.damage(self._folder / str(step)) for step in there):
                raise self._all_damaged()
            for step, damage in damaged.items():
                log.warning("the checkpoint of step %d is damaged (%s). It is set aside.", step, damage)
                self._set_aside(step)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints")

    def _all_damaged(self) -> UsageError:
        return UsageError(
            f"every checkpoint in {self._folder} is damaged. Restore one from a copy, or delete the run's folder to start again."
        )

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns every error of Orbax and the file system into one message. A signal waits: Orbax would be left half way."""
        try:
            with Preemption.current().held():
                yield
        except Exception as error:
            raise UsageError(
                f"cannot {what} the folder of checkpoints {self._folder}: {one_line(error)}\n{self._newest()}. Make room or fix "
                "the folder, and run the same command again."
            ) from error

    def _newest(self) -> str:
        """The newest complete checkpoint, in words. The folder may have vanished, and a bucket may not answer."""
        try:
            there = steps.steps_in(self._folder)
        except (OSError, BucketError, UsageError):
            return "the folder cannot be read"
        return f"the newest complete checkpoint is of step {max(there)}" if there else "there is no checkpoint yet"


def _rank(metrics: dict[str, float | None]) -> float:
    """The metric, or less than every number if it is not finite: a comparison with NaN has no meaning."""
    value = metrics.get(RANKED_BY)
    return value if value is not None and math.isfinite(value) else -math.inf


def _shapes(tree: Any) -> list[tuple[tuple[int, ...], str]]:
    return sorted((tuple(leaf.shape), str(leaf.dtype)) for leaf in jax.tree.leaves(tree))
