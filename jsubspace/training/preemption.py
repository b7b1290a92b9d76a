"""Signals that ask a program to end. The step under way is finished and saved first."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax

from jsubspace.errors import Preempted

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preemption:
    """Listens to SIGTERM and SIGINT while it is entered. Programs enter it in the main thread.

    While a loop runs under `held`, the first signal is kept for `received`. Elsewhere nothing would be lost, and the first
    signal raises `Preempted`. A second signal ends the process at once with 128 + its number, even while the main thread
    compiles or waits for a disk, because a separate thread listens for it.

    It listens to nothing if it is not entered, as in a notebook: there Ctrl-C raises KeyboardInterrupt as always. It also
    listens to nothing if several hosts train together. They must end at the same step, and
    `storage.checkpoint.Checkpoints.reached_preemption` says which step this is.

    Example:
      >>> with Preemption() as preemption, preemption.held():
      ...   os.kill(os.getpid(), signal.SIGTERM)
      ...   preemption.received()
      'SIGTERM'
    """

    def __init__(self) -> None:
        self._received: str | None = None
        self._held = False
        self._undo = contextlib.ExitStack()

    def received(self) -> str | None:
        """The name of the signal that was received, or None."""
        return self._received

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps signals that arrive inside this context. The caller asks `received` after each step."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is not threading.main_thread() or jax.distributed.is_initialized():
            return self
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._undo.callback(os.close, writing)  # The thread then reads the end of the pipe.
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._undo.callback(signal.set_wakeup_fd, before)
        for number in SIGNALS:
            self._undo.callback(signal.signal, number, signal.signal(number, self._receive))
        threading.Thread(target=_listen, args=(reading,), name="preemption", daemon=True).start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._undo.close()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Python calls this in the main thread, between two instructions. A second signal does not reach it."""
        if self._received is None:
            self._received = signal.Signals(number).name
            if not self._held:
                raise Preempted(f"stopped by {self._received}. The same command resumes from the last checkpoint.")


def _listen(pipe: int) -> None:
    """Reads the number of each signal from a pipe. Python writes it there whatever the main thread does."""
    with open(pipe, "rb", buffering=0) as numbers:
        count = 0
        while number := numbers.read(1):
            if number[0] not in SIGNALS:
                continue
            count += 1
            if count == 1:
                log.warning("%s: finishing the step. Send it once more to end at once.", signal.Signals(number[0]).name)
            else:
                os._exit(128 + number[0])
