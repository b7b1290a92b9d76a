"""The steps of checkpoints: which folders are checkpoints, and that a state belongs to its folder and its run."""

import pathlib
import re
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.errors import UsageError
from jsubspace.storage.places import in_bucket
from jsubspace.storage.schema import LARGEST_WHOLE

_NAME = re.compile("0|[1-9][0-9]*")


class HasStep(Protocol):
    """A tree of arrays with the number of steps that led to it. All of its integers count steps."""

    @property
    def step(self) -> Any:
        """A scalar int32."""
        ...


def steps_in(folder: pathlib.Path) -> list[int]:
    """The steps of the checkpoints in a folder, in order. The list is empty if the folder does not exist.

    The name of a checkpoint is its step in ASCII digits, as Orbax writes it.

    Raises:
      UsageError: if the folder is a file, or a checkpoint has another name, like ``04`` or ``³``. Passed over in silence, a
        trained run would look like a new one.
    """
    if not folder.is_dir():
        if folder.exists():
            raise UsageError(f"{folder} is a file, and must be the folder of checkpoints. Move the file away.")
        return []
    steps = []
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name) and path.is_dir() and int(path.name[:20]) <= LARGEST_WHOLE:
            if _is_complete(path):
                steps.append(int(path.name))
        elif path.name.isnumeric() and (path.exists() or path.is_symlink()):  # Another process may have removed it.
            raise UsageError(
                f"{path} looks like a checkpoint, but a checkpoint is a folder whose name is its step, as 4. Rename it or move "
                "it away."
            )
    return sorted(steps)


def check(path: pathlib.Path, step: int, state: Any, found: Any, last_step: int | None = None) -> None:
    """Checks that a state belongs to the step of its folder and to a run.

    Args:
      path: the folder of the checkpoint, for messages.
      step: the step that the name of the folder says.
      state: the state. All signed integers in it count steps, like those of the optimizer.
      found: the step that the state says.
      last_step: the last step of the run, or None for any run.

    Raises:
      UsageError: if the steps do not agree.
    """
    if int(found) != step:
        raise UsageError(f"the checkpoint {path} holds the state after step {found}. Restore it from a copy.")
    if last_step is not None and step > last_step:
        raise UsageError(f"the checkpoint {path} is of step {step}, but the run has {last_step} steps. Move it away.")
    for leaf in jax.tree.leaves(state):
        if not jnp.issubdtype(leaf.dtype, jnp.signedinteger):  # Unsigned integers are keys, of noise for example.
            continue
        counts = np.asarray(leaf)
        if counts.size and not 0 <= counts.min() <= counts.max() <= step:
            raise UsageError(f"the checkpoint {path} counts other steps in its optimizer. Restore it from a copy.")


def _is_complete(checkpoint: pathlib.Path) -> bool:
    """Whether Orbax has finished a folder that has the name of a checkpoint. On a disk, it gets its name when it is finished."""
    return not in_bucket(checkpoint) or (checkpoint / "commit_success.txt").exists()
