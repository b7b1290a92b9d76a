"""The checkpoints in the folder of a run: one folder or file per step, whatever program wrote them."""

import pathlib
import re
from typing import NamedTuple

from jsubspace.errors import UsageError
from jsubspace.exchange import leaf_files

_NAME = re.compile(rf"(?:(.*)[-_.])?0*(\d+)(?:{re.escape(leaf_files.SUFFIX)})?", re.DOTALL)


class Step(NamedTuple):
    """A checkpoint.

    Attributes:
      number: the step.
      path: its folder or file, for `leaf_files.find`.
    """

    number: int
    path: pathlib.Path


def steps(folder: pathlib.Path) -> list[Step]:
    """The checkpoints in a folder, in the order of their steps.

    A checkpoint's name is its step, with or without a word before: ``300``, ``checkpoint-300``, ``step_000300.safetensors``.
    ``default`` of Orbax or one other tree may be inside. A folder ``checkpoints`` of a run is looked into.

    Raises:
      UsageError: if there is no checkpoint, or the names have several words before their steps.

    Example:
      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> for name in ("checkpoint-20", "checkpoint-100", "logs"):
      ...   (folder / name).mkdir()
      >>> [step.number for step in steps(folder)]
      [20, 100]
    """
    found: dict[str, list[Step]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        matched = _NAME.fullmatch(path.name)
        if matched and (path.is_dir() or path.name.endswith(leaf_files.SUFFIX)):
            found.setdefault(matched[1] or "", []).append(Step(int(matched[2]), path))
    if not found and (folder / "checkpoints").is_dir():
        return steps(folder / "checkpoints")
    if not found:
        raise UsageError(
            f"{folder} has no checkpoints. A checkpoint is a folder or a safetensors file with a step as its name, as 300."
        )
    if len(found) > 1:
        words = ", ".join(sorted(repr(word) for word in found))
        raise UsageError(
            f"{folder} has checkpoints of several kinds, with the words {words} before their steps. Name the checkpoints."
        )
    (of_run,) = found.values()
    numbers = [step.number for step in of_run]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in sorted(numbers) if numbers.count(number) > 1)
        raise UsageError(f"{folder} has two checkpoints of the step {twice}. Name the checkpoints.")
    return sorted(of_run)
