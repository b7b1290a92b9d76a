"""Checkpoints of a run: the only file that knows Orbax."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from jsubspace.errors import UsageError
from jsubspace.train_state import TrainState


class Checkpoints:
    """The checkpoints in a folder: train states, each with notes of the loop (numbers and strings).

    Saving copies the arrays and returns; writing goes on in the background. A checkpoint appears under its name only
    when it is complete, and an older one is deleted only after that: whenever the process dies, the newest complete
    one is there.

    Args:
      folder: of the checkpoints; made if need be.
      keep: how many of the newest to keep, at least 1.
      keep_steps: checkpoints of these steps are never deleted.
      read_only: to look at them without making the folder or tidying up in it.
    """

    def __init__(
        self, folder: pathlib.Path, keep: int = 2, keep_steps: Sequence[int] = (), read_only: bool = False
    ) -> None:
        policies = [ocp.checkpoint_managers.LatestN(keep), ocp.checkpoint_managers.CustomSteps(list(keep_steps))]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
            create=not read_only,
            read_only=read_only,
        )
        self._folder = folder.absolute()
        handlers: Any = {"state": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, state: TrainState, step: int, notes: dict[str, Any]) -> None:
        """Starts to save the state after ``step`` steps, and notes for JSON. The state may be donated at once."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
        self._manager.save(step, args=items)

    def latest_step(self) -> int | None:
        """Number of steps of the newest complete checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Numbers of steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, sharding: Any, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """A checkpoint: the state, placed by ``sharding``, and the notes.

        Args:
          like: a state of the same shapes and dtypes; `jax.ShapeDtypeStruct` will do.
          sharding: where the arrays go, wherever they came from: one `jax.sharding.Sharding`, or a tree of them like
            ``like``.
          step: of which step; None for the newest.

        Raises:
          UsageError: if there is no such checkpoint.
        """
        step = self._existing(step)
        places = jax.tree.map(lambda _: sharding, like) if isinstance(sharding, jax.sharding.Sharding) else sharding
        abstract = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), like, places
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["notes"]

    def restore_endpoints(self, sharding: jax.sharding.Sharding, step: int | None = None) -> Any:
        """The endpoints of a checkpoint, of whatever network: nested dictionaries with leaves ``[m, *s]``.

        Raises:
          UsageError: if there is no such checkpoint.
        """
        step = self._existing(step)
        saved = self._manager.item_metadata(step)["state"].tree
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), saved)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return self._manager.restore(step, args=items)["state"]["endpoints"]

    def _existing(self, step: int | None) -> int:
        found = self.latest_step() if step is None else step
        if found is None:
            raise UsageError(f"there is no checkpoint in {self._folder}; train first: python -m jsubspace.main.")
        if found not in self._manager.all_steps():
            raise UsageError(
                f"there is no checkpoint of step {found} in {self._folder}, only of {self.steps()}; config.keep_epochs says "
                "which a run keeps."
            )
        return found

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
