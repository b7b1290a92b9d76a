"""Writes that end after Orbax has given up a save: what Python says about them, and what they leave on the disk."""

import contextlib
import pathlib
import sys
import time
from typing import Any

from jsubspace.storage import files

_HALF_SAVED = "*.orbax-checkpoint-tmp*"
_SECONDS_AWAY, _REMOVALS = 0.5, 10
"""How long the half of a failed save must stay away, and how often it is removed at most."""


def ignore() -> None:
    """Lets Python say nothing about writes that end too late. A program calls it before Orbax saves anything.

    Orbax waits for all writes of a save in one event loop of asyncio. The first write that fails, for example on a full
    disk, ends the waiting, and Orbax closes the loop and raises the error. The other writes end later in threads of
    TensorStore. They find the loop closed, and Python prints a traceback for each of them. The error has been raised by
    then, and Orbax has no call that waits for these writes.
    """
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


def clear(folder: pathlib.Path) -> None:
    """Removes what failed saves have written into a folder of checkpoints. It may be what fills the disk.

    Late writes make the folder of their checkpoint again, so it is removed until it stays away. Without failed saves there is
    no wait. The next start of the run removes what an error of the disk keeps here.
    """
    for _ in range(_REMOVALS):
        half_saved = [*folder.glob(_HALF_SAVED)]
        if not half_saved:
            return
        for path in half_saved:
            with contextlib.suppress(OSError):
                files.remove(path)
        time.sleep(_SECONDS_AWAY)


class _Hook:
    """Passes everything to another hook, except an exception of a callback that came after the end of its loop."""

    def __init__(self, other: Any) -> None:
        self._other = other

    def __call__(self, unraisable: Any) -> None:
        if not _is_late(unraisable.exc_value, unraisable.exc_traceback):
            self._other(unraisable)


def _is_late(error: BaseException | None, traceback: Any) -> bool:
    """Whether a thread without Python code of its own has called asyncio after the end of its loop."""
    return (
        isinstance(error, RuntimeError)
        and str(error) == "Event loop is closed"
        and traceback is not None
        and traceback.tb_frame.f_code.co_name == "call_soon_threadsafe"
    )
