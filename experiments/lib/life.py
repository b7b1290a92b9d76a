"""Processes that a stress test starts, watches and attacks."""

import contextlib
import json
import os
import pathlib
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from jsubspace import preemption
from jsubspace.preemption import SIGNALS, Preemption


class Life:
    """A process that runs ``python -m`` with a command. It is forked from this process, which has done the imports.

    Args:
      command: the name of a module, and its arguments.
      log: the file for the output.
      fresh: whether the process starts a Python of its own, which does the imports again.
    """

    def __init__(self, command: Sequence[str], log: pathlib.Path, fresh: bool = False) -> None:
        self.fresh, self.start = fresh, time.time()
        self._code: int | None = None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # A signal waits until the process can take it.
        self._pid = os.fork()
        if self._pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        code = 70
        try:
            Preemption.current().leave()  # The listener of this process is not the listener of its child.
            with open(log, "w") as file:
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            if fresh:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                os.execv(sys.executable, [sys.executable, "-m", *command])
            preemption.end_at_once()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            sys.argv = list(command)
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is None

    def listens(self) -> bool:
        """Whether it handles SIGTERM by now. Python alone takes a few milliseconds before it reads a line of ours."""
        status = pathlib.Path(f"/proc/{self._pid}/status")
        with contextlib.suppress(OSError):
            for line in status.read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> signal.SIGTERM - 1 & 1)
        return False

    def sleep_until(self, happens: Callable[[], bool], seconds: float) -> None:
        """Returns when something happens, when the process has ended, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.is_running() and not happens():
            time.sleep(0.004)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self._pid, number)

    def wait(self) -> int:
        """Its exit code, minus the number of the signal that ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code


def in_a_process(function: Callable[[], Any]) -> Any:
    """The result of ``function`` as JSON. It runs in a process where jax may start, because this process must stay fit to fork."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            Preemption.current().leave()
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(function(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe, contextlib.suppress(ValueError):
        content = json.load(pipe)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "see above"
    return content
