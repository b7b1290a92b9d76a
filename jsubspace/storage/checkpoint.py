"""Checkpoints of a run: the only file that knows Orbax."""

import contextlib
import logging
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jsubspace.errors import UsageError, one_line
from jsubspace.storage import checksums

log = logging.getLogger(__name__)

State = TypeVar("State")

FOLDER = "checkpoints"
"""The name of the folder of checkpoints in a run's folder."""

RANKED_BY = "accuracy"
"""The metric by which the best checkpoint is found; more is better."""


class Checkpoints(Generic[State]):
    """The checkpoints in a folder: train states, each with notes of the loop (numbers and strings).

    Saving copies the arrays and returns; writing goes on in the background. A checkpoint appears under its name only
    when it is complete, checksums included, and an older one is deleted only after that: whenever the process dies,
    the newest complete one is there. The newest are kept, and the best of those that were saved with metrics.

    Args:
      folder: of the checkpoints; made if need be.
      keep: how many of the newest to keep, at least 1.
      keep_steps: checkpoints of these steps are never deleted.
      read_only: to look at them without making the folder or tidying up in it.
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
        )
        self._folder, self._read_only = folder.absolute(), read_only
        self._saving = 0
        handlers: Any = {"state": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()}
        with self._told("open"):
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, state: State, step: int, notes: dict[str, Any], metrics: dict[str, float] | None = None) -> None:
        """Starts to save the state after ``step`` steps, and notes for JSON. The state may be donated at once.

        Args:
          state: what to save.
          step: its number of steps.
          notes: of the loop.
          metrics: of the state, with `RANKED_BY` among them; without, it is not in the running for the best.

        Raises:
          UsageError: if the folder has vanished, or this or the save before it could not be written.
        """
        if not self._folder.is_dir():
            raise UsageError(f"{self._folder} has vanished; the run cannot be saved, and stops at step {step}.")
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
        with self._told("save into"):
            self._manager.wait_until_finished()  # It would wait too, but `_saving` is the step of one save at a time.
            self._saving = step
            self._manager.save(step, args=items, metrics=metrics)

    def latest_step(self) -> int | None:
        """Number of steps of the newest complete checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Number of steps of the best of the checkpoints with metrics, or None if there is none."""
        return self._manager.best_step()

    def steps(self) -> list[int]:
        """Numbers of steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def restore(self, like: State, sharding: Any, step: int | None = None) -> tuple[State, dict[str, Any]]:
        """A checkpoint: the state, placed by ``sharding``, and the notes. By default the newest that is whole.

        Newer checkpoints whose files are not what was written are passed over; each is named in the log and, unless
        ``read_only``, set aside as ``<step>.damaged``.

        Args:
          like: a state of the same shapes and dtypes; `jax.ShapeDtypeStruct` will do.
          sharding: where the arrays go, wherever they came from: one `jax.sharding.Sharding`, or a tree of them like
            ``like``.
          step: of which step; None for the newest.

        Raises:
          UsageError: if there is no such checkpoint, it is damaged (all are), or it is of another run.
        """
        step = self._whole(step)
        places = jax.tree.map(lambda _: sharding, like) if isinstance(sharding, jax.sharding.Sharding) else sharding
        abstract = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), like, places
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
        there = self._manager.item_metadata(step)["state"]
        if _shapes(there) != _shapes(like):  # Orbax would say so in pages, after it has read everything.
            raise UsageError(
                f"the checkpoint {self._folder / str(step)} is whole but its arrays are not those of this run: they are "
                "of another network, number of endpoints, optimizer or version."
            )
        with self._told("restore from"):
            restored = self._manager.restore(step, args=items)
        return restored["state"], restored["notes"]

    def restore_part(self, name: str, sharding: jax.sharding.Sharding, step: int | None = None) -> Any:
        """One field of a checkpoint's state, of unknown structure: nested dictionaries of arrays.

        Raises:
          UsageError: if there is no such checkpoint, or it is damaged.
        """
        step = self._whole(step)
        saved = self._manager.item_metadata(step)["state"].tree
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), saved)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        with self._told("restore from"):
            return self._manager.restore(step, args=items)["state"][name]

    def reached_preemption(self, step: int) -> bool:
        """Whether a machine of those that train together is to be taken away; the same on all of them at a step."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns when everything is written. Raises as `save` does."""
        with self._told("save into"):
            self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self.wait()
        except UsageError as failure:
            if error is None:
                raise
            log.error("%s", failure)  # What ended the run is more important.
        else:
            self._manager.close()

    def _seal(self) -> None:
        """Writes the checksums while the checkpoint still has its temporary name; Orbax calls it before renaming."""
        if jax.process_index() == 0:
            for folder in self._folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
                checksums.write(folder)

    def _whole(self, step: int | None) -> int:
        """That step, or the newest whole one for None."""
        if self.latest_step() is None:
            raise UsageError(f"there is no checkpoint in {self._folder}; train first: python -m jsubspace.main.")
        if step is None:
            return self._newest_whole()
        if step not in self._manager.all_steps():
            raise UsageError(
                f"there is no checkpoint of step {step} in {self._folder}, only of {self.steps()}; config.keep_epochs says "
                "which a run keeps."
            )
        if damage := checksums.damage(self._folder / str(step)):
            raise UsageError(f"the checkpoint {self._folder / str(step)} is damaged ({damage}); put back a copy.")
        return step

    def _newest_whole(self) -> int:
        """The first host looks and tells the others."""
        found, damaged = -1, []
        if jax.process_index() == 0:
            for step in sorted(self._manager.all_steps(), reverse=True):
                damage = checksums.damage(self._folder / str(step))
                if damage is None:
                    found = step
                    break
                log.warning("the checkpoint of step %d is damaged (%s); going back to the one before.", step, damage)
                damaged.append(step)
            if found >= 0 and not self._read_only:  # Else it would look as if nothing had been trained yet.
                for step in damaged:
                    self._set_aside(step)
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        self._manager.reload()
        if found < 0:
            raise UsageError(
                f"every checkpoint in {self._folder} is damaged; put back a copy, or delete the run's folder to start anew."
            )
        return found

    def _set_aside(self, step: int) -> None:
        """Its name is needed again when the run gets there."""
        aside = self._folder / f"{step}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        (self._folder / str(step)).rename(aside)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Whatever Orbax and the file system raise, as one message."""
        try:
            yield
        except Exception as error:
            steps = [int(path.name) for path in self._folder.glob("*") if path.name.isdigit()]
            newest = f"the newest complete one is of step {max(steps)}" if steps else "there is none yet"
            raise UsageError(
                f"cannot {what} the folder of checkpoints {self._folder}: {one_line(error)}\n{newest}. Make room or mend the "
                "folder, and run the same command again."
            ) from error


def _rank(metrics: dict[str, float]) -> float:
    return metrics[RANKED_BY]


def _shapes(tree: Any) -> list[tuple[tuple[int, ...], str]]:
    return sorted((tuple(leaf.shape), str(leaf.dtype)) for leaf in jax.tree.leaves(tree))
