"""Runs a program of the package and attacks an operation on the disk: ``python -m tests.attacked PLAN PROGRAM ...``.

The modules `os` and `shutil` of `jsubspace.storage.files` get a stand-in, which sees every operation before it happens. The
stand-in attacks the first operation that the plan does not list as seen, and adds its name to the plan. An operation is named
by the two functions that ask `files` for it, and by the functions of `files`.

kill: the process ends by SIGKILL after the operation, or when half of it has happened.
error: the operation fails, as on a full disk. The program must end by itself.
watch: no operation is attacked, and all are listed.
"""

import errno
import json
import os
import pathlib
import runpy
import shutil
import signal
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from jsubspace.storage import files

CHANGES = {"makedirs", "mkdir", "rmdir", "rename", "replace", "unlink", "rmtree", "create", "write", "truncate"}
"""The operations after which something else is on the disk. After the other ones a kill leaves what it left before them."""

OTHERS = {"open", "fdopen", "flush", "fsync", "close"}

ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENAMETOOLONG, errno.EACCES]

SURVIVED = ("_sync", "_remove_if_abandoned", "examples._save")
"""Functions in which an error is of no importance. The attack continues after it."""


class Plan:
    """What is attacked, and what has been attacked before.

    Args:
      path: a JSON file with ``attack``, ``seen``, and ``every``: whether each operation is attacked wherever it happens. If
        not, an error attacks every caller and every operation of `files` once, but not their product. A kill leaves out
        states of a partial file that differ in its size alone.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._content: dict[str, Any] = json.loads(path.read_text())
        self.attack, self._every = self._content["attack"], self._content["every"]
        self._lock = threading.RLock()
        self._over = False

    def operate(self, name: str, call: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """The result of an operation, unless it is attacked."""
        with self._lock:
            caller, inside = _where()
            whole = f"{caller} | {inside} {name}"
            if self.attack == "watch":
                self._is_new(whole)
            elif self.attack == "error" and not self._over:
                if self._is_new(*([whole] if self._every else parts(whole))):
                    self._over = not any(function in whole for function in SURVIVED)
                    if name == "close":
                        call()  # A file is closed even if closing fails.
                    number = ERRORS[len(self._content["seen"]) % len(ERRORS)]
                    raise OSError(number, os.strerror(number), "the attacked file")
            elif self.attack == "kill" and name in CHANGES:
                if half is not None and self._is_new(
                    f"half of {inside} {name}" if "_partial" in inside else f"half of {whole}"
                ):
                    half()
                    self._kill()
                result = call()
                equal = name == "write" or "_partial" in inside  # All partial files are alike.
                if self._is_new(f"after {inside} {name}" if equal and not self._every else f"after {whole}"):
                    self._kill()
                return result
        return call()

    def _is_new(self, *names: str) -> bool:
        new = [name for name in names if name not in self._content["seen"]]
        self._content["seen"] += new
        if new:
            self._path.write_text(json.dumps(self._content, indent=1))
        return bool(new)

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # The signal may take a moment.


class StandIn:
    """Stands in the place of a module. Its operations go through a plan."""

    def __init__(self, module: Any, plan: Plan) -> None:
        self._module, self._plan = module, plan

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name == "open":
            return self._open
        if name == "fdopen":
            return lambda *args, **settings: File(
                self._plan.operate(name, lambda: found(*args, **settings)), self._plan
            )
        if name == "rmtree":
            return lambda path: self._plan.operate(name, lambda: found(path), lambda: self._remove_half(path))
        if name not in CHANGES | OTHERS:
            return found
        return lambda *args, **settings: self._plan.operate(name, lambda: found(*args, **settings))

    def _open(self, path: Any, flags: int, *mode: int) -> int:
        creates = flags & os.O_CREAT and not os.path.exists(path)
        return self._plan.operate("create" if creates else "open", lambda: os.open(path, flags, *mode))

    @staticmethod
    def _remove_half(folder: Any) -> None:
        inside = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
        for path in inside[: len(inside) // 2 + 1]:
            path.unlink()


class File:
    """Stands in the place of an open file. Its operations go through a plan."""

    def __init__(self, file: Any, plan: Plan) -> None:
        self._file, self._plan = file, plan

    def write(self, content: Any) -> Any:
        def half() -> None:
            self._file.write(bytes(content)[: len(content) // 2])
            self._file.flush()

        def whole() -> Any:
            written = self._file.write(content)
            if self._plan.attack == "kill":  # else the buffer would be lost, and nothing would have changed
                self._file.flush()
            return written

        return self._plan.operate("write", whole, half)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        if name not in CHANGES | OTHERS:
            return found
        return lambda *args: self._plan.operate(name, lambda: found(*args))

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def parts(operation: str) -> list[str]:
    """Of the name of an operation: the callers of `files`, and the operation in the innermost function of `files`."""
    caller, _, inside = operation.partition(" | ")
    return [caller, inside.rpartition(" > ")[2]]


def _where() -> tuple[str, str]:
    """The last two functions before `files`, and the functions of `files`, from the outermost to the innermost."""
    frame: types.FrameType | None = sys._getframe(2)
    callers, inside = [], []
    while frame is not None and len(callers) < 2:
        module, name = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if module == files.__name__:
            inside += [name] if name not in ("write_text", "write_bytes") else []
        elif module.startswith(("jsubspace.", "__main__")) and frame.f_code.co_filename != __file__:
            callers.append(f"{module.rpartition('.')[2]}.{name}")
        frame = frame.f_back
    return " > ".join(callers[::-1]), " > ".join(inside[::-1])  # `write_bytes` is `new_file`, and adds no operation


def main() -> None:
    """The command."""
    plan = Plan(pathlib.Path(sys.argv[1]))
    files.os, files.shutil = StandIn(os, plan), StandIn(shutil, plan)  # type: ignore[attr-defined]
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
