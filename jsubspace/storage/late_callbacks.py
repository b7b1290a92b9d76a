"""Silences what Python says about writes that end after Orbax has given up a save."""

import sys
from typing import Any


def ignore() -> None:
    """Lets Python say nothing about writes that end too late. A program calls it before Orbax saves anything.

    Orbax waits for all writes of a save in one event loop of asyncio. The first write that fails, for example on a full
    disk, ends the waiting, and Orbax closes the loop and raises the error. The other writes end later in threads of
    TensorStore. They find the loop closed, and Python prints a traceback for each of them. The error has been raised by
    then, and Orbax has no call that waits for these writes.
    """
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


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
