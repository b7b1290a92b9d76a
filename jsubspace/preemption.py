"""Signals that ask a program to end, at any moment of its life.

A program listens from the import of this module to its last line (`endings.run`). The first signal ends it with exit code
75, and the second SIGTERM or SIGINT ends it at once. The library asks `check` between two units of work. Outside of programs nothing
listens and `check` does nothing: in a notebook Ctrl-C raises KeyboardInterrupt as always.

This file imports the standard library alone, because it must work before anything else is imported.
"""

import contextlib
import os
import select
import signal
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from jsubspace.errors import PREEMPTED, Preempted

DECISIONS = ("SIGTERM", "SIGINT")
"""The signals by which a person or a scheduler decides that a program ends: ``kill`` and Ctrl-C."""

WARNINGS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""A terminal was closed, a scheduler's limit is near (as Slurm's ``--signal=USR1@60`` asks for), or CPU time is used up."""

SIGNALS = tuple(signal.Signals[name] for name in (*DECISIONS, *WARNINGS) if hasattr(signal, name))

_DROPPED = b"\0"
"""What the thread reads when Python has dropped an exception of ours. It is the number of no signal."""


class Preemption:
    """Listens to `SIGNALS` while it is entered. Programs enter it in the main thread.

    The first signal raises `Preempted` wherever the main thread is, so that long work ends at the next line of Python.
    While a loop runs under `held`, the signal is kept for `received` instead. Python drops an exception that is raised in a
    weakref callback, a ``__del__`` or the garbage collector. It is then raised once more, and `check` raises it too.

    After a SIGTERM or SIGINT, another one ends the process at once with 128 + its number, even while the main thread compiles or
    waits for a disk, because a separate thread listens for it. All other signals after the first are ignored: a service
    manager sends SIGTERM and SIGHUP together, and a scheduler warns before it sends SIGTERM.

    `WARNINGS` stay ignored where they are ignored already, as SIGHUP under nohup. It listens to nothing if it is not entered.

    If several hosts train together, they must end at the same step, and it listens to nothing unless it is given
    ``announce``. A signal that would be kept is announced then, and `received` stays None.
    `storage.checkpoint.Checkpoints.reached_preemption` says which step it is.

    Args:
      announce: tells all hosts that this one will be preempted.

    Example:
      >>> with Preemption() as preemption:
      ...   with preemption.held():
      ...     os.kill(os.getpid(), signal.SIGTERM)
      ...     preemption.received()
      Traceback (most recent call last):
      jsubspace.errors.Preempted: stopped by SIGTERM. Run the same command again. What was saved is kept.
    """

    def __init__(self, announce: Callable[[], None] | None = None) -> None:
        self._announce = announce
        self._received: signal.Signals | None = None
        self._held = False
        self._dropped = False
        self._first: signal.Signals | None = None  # as the thread knows it
        self._leaving = threading.Lock()
        self._handled: list[signal.Signals] = []
        self._undo = contextlib.ExitStack()

    @staticmethod
    def current() -> "Preemption":
        """The listener that this process has entered, or one that listens to nothing."""
        return _LISTENING[-1] if _LISTENING else Preemption()

    def received(self) -> str | None:
        """The name of the signal that was received, or None."""
        together = self._held and self._announce is not None
        return None if self._received is None or together else self._received.name

    def check(self) -> None:
        """Raises `Preempted` in the main thread if a signal was received. Under `held` it does nothing."""
        if self._received is not None and not self._held and threading.current_thread() is threading.main_thread():
            self._dropped = False
            warnings.simplefilter("ignore")  # Coroutines that will never be finished warn.
            raise Preempted(f"stopped by {self._received.name}. Run the same command again. What was saved is kept.")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps a signal that arrives inside this context. The caller asks `received` after each step.

        Raises:
          Preempted: at the end of the context, if a signal was kept and the caller did not act on it.
        """
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        if sys.exception() is None:  # An exception that is under way says more, and `check` will be asked again.
            self.check()

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """The opposite of `held`, inside of it: a signal raises `Preempted`, also one that was kept before."""
        before, self._held = self._held, False
        try:
            self.check()
            yield
        finally:
            self._held = before

    def hold(self) -> None:
        """Keeps signals from now on, where the work is as good as done: the program ends as if none had arrived."""
        self._held = True

    def leave(self) -> None:
        """Stops to listen, and leaves signals to Python and to others."""
        with self._leaving:
            self._handled = []
            self._undo.close()

    def end(self) -> None:
        """Ignores all further signals, because the process ends. Python would end its handlers before its last line."""
        for number in self._handled or [signal.SIGINT]:
            signal.signal(number, signal.SIG_IGN)
        self._undo.pop_all()

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is not threading.main_thread():
            return self
        if _several_hosts() and self._announce is None:
            return self
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._undo.callback(os.close, writing)  # The thread then reads the end of the pipe.
        threading.Thread(target=self._listen, args=(reading,), name="preemption", daemon=True).start()
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._undo.callback(signal.set_wakeup_fd, before)
        self._quieten(writing)
        _LISTENING.append(self)
        self._undo.callback(_LISTENING.remove, self)
        self._handled = _wanted()
        for number in self._handled:
            # The handler before is None if jax has set it in C. It cannot be set again from Python.
            self._undo.callback(signal.signal, number, signal.signal(number, self._receive) or signal.SIG_DFL)
        return self

    def __exit__(self, *exception: Any) -> None:
        self.leave()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Python calls this in the main thread, between two instructions. The thread acts on later signals."""
        if signal.Signals(number).name == "SIGHUP":
            _leave_terminal()
        if self._received is not None and not self._dropped:
            return
        if self._received is None:
            self._received = signal.Signals(number)
            if self._held and self._announce is not None:
                self._announce()
        self.check()

    def _quieten(self, pipe: int) -> None:
        """Lets Python be silent about a `Preempted` that it drops, and has the thread raise it again."""
        before = sys.unraisablehook

        def hook(dropped: Any) -> None:
            if not isinstance(dropped.exc_value, Preempted):
                if self._received is None or self._held:
                    before(dropped)  # After a signal, what is left half made by its exception fails to be tidied up.
            elif not self._dropped:
                self._dropped = True
                os.write(pipe, _DROPPED)

        def restore() -> None:
            sys.unraisablehook = before

        sys.unraisablehook = hook
        self._undo.callback(restore)

    def _listen(self, pipe: int) -> None:
        """Reads the number of each signal from a pipe. Python writes it there whatever the main thread does."""
        echoes = 0
        pause: float | None = None
        is_decided = False
        while True:
            if not select.select([pipe], [], [], pause)[0]:
                woken = self._wake()
                echoes += woken
                pause = min(10, 2 * pause) if woken and pause else None
                continue
            number = os.read(pipe, 1)
            if not number:
                os.close(pipe)
                return
            if number == _DROPPED:
                pause = 0.01  # Python is still inside of what dropped the exception.
            elif number[0] in SIGNALS and echoes:
                echoes -= 1
            elif number[0] in SIGNALS:
                received = signal.Signals(number[0])
                decides = received.name in DECISIONS
                if decides and is_decided:
                    os._exit(128 + received)
                how = " Send it once more to end at once." if decides else ""
                if self._first is None or decides:
                    _say(f"{received.name}: ending as soon as possible.{how}")
                is_decided |= decides
                if self._first is None:
                    self._first, pause = received, 0.1

    def _wake(self) -> bool:
        """Sends the first signal to the main thread again if the handler has not run there, or its exception was dropped.

        The handler does not run where a signal arrives just before the thread waits for a lock: nothing ends this wait.

        Returns:
          Whether it was sent. Its number is then read from the pipe once more.
        """
        with self._leaving:  # With its handler removed, the signal would end the process.
            waits = self._handled and (self._received is None or self._dropped)
            if waits and self._first is not None:
                signal.pthread_kill(threading.main_thread().ident or 0, self._first)
                return True
        return False


_LISTENING: list[Preemption] = []
"""The listeners that are entered. The last of them receives the signals of this process."""


def check() -> None:
    """Raises `Preempted` if this process has received a signal, unless a loop holds it. Ask it between units of work."""
    Preemption.current().check()


def end_at_once() -> None:
    """Lets the first signal end this process with 75, until a `Preemption` is entered. Programs import meanwhile."""
    for number in _wanted():
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    _say(f"stopped by {signal.Signals(number).name}. Run the same command again. Nothing had begun.")
    os._exit(PREEMPTED)


def is_our_program() -> bool:
    """Whether Python was started by ``-m`` with a module of this library, and is about to look for it.

    Python then has "-m" in the place of the program's name, and the arguments after the module behind it.
    """
    if sys.argv[:1] != ["-m"]:
        return False
    return sys.orig_argv[-len(sys.argv)].removeprefix("-m").startswith("jsubspace.")


def _wanted() -> list[signal.Signals]:
    """The signals to listen to: not the warnings that are ignored already."""
    return [number for number in SIGNALS if number.name in DECISIONS or signal.getsignal(number) != signal.SIG_IGN]


def _several_hosts() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized())


def _leave_terminal() -> None:
    """Writes into nothing from now on where a terminal was. Writing to a closed terminal fails."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nothing, stream)
    os.close(nothing)


def _say(text: str) -> None:
    """Writes a line to standard error, unless this would wait: nobody may read a pipe that is full."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{text}\n".encode())


if is_our_program() and threading.current_thread() is threading.main_thread():
    end_at_once()
