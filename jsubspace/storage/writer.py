"""What a run writes for people and plots: ``metrics.jsonl`` and TensorBoard events."""

import contextlib
import json
import logging
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from jsubspace.errors import UsageError

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class Silent(contextlib.nullcontext["Silent"]):
    """Takes the rows of a `Writer` and keeps none: on all hosts but one."""

    def __init__(self) -> None:
        super().__init__(self)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Does nothing."""

    def sync(self) -> None:
        """Does nothing."""


class Writer:
    """Appends rows to ``metrics.jsonl``, one an event, and the same numbers to TensorBoard events.

    The events are a copy of the rows: a run that goes on writes all of them anew, and no point is missing or twice
    whenever the run was killed, whatever was in buffers, and wherever the clock, which names the files, has jumped to.

    Args:
      workdir: the run's folder.
      step: the step at which the run starts or goes on. Rows of later steps, written by a run that was killed
        before its next checkpoint, are dropped: they will be written again.

    Raises:
      UsageError: if the disk is full or the folder cannot be written; so do all methods.
    """

    def __init__(self, workdir: pathlib.Path, step: int = 0) -> None:
        self._path = workdir / METRICS
        with self._told():
            rows = [row for row in read_rows(workdir) if row["step"] <= step]
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
            self._file = self._path.open("a", encoding="utf-8")
            self._events = _Events(workdir)
            for row in rows:
                self._events.add(**row)
            self._events.flush()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Adds the row ``{"kind": kind, "step": step, **values}``; a kill after it returns does not take it away."""
        with self._told():
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
            self._events.add(kind, step, **values)
            self._events.flush()

    def sync(self) -> None:
        """Returns when the rows are on the disk: before a checkpoint after them is, lest a power failure take rows only."""
        with self._told():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write {self._path}: {error}. Make room or mend the folder, and run the same command again: it "
                "goes on from the last checkpoint."
            ) from error

    def close(self) -> None:
        """Writes what is still buffered."""
        with self._told():
            self._file.close()
            self._events.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_rows(workdir: pathlib.Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, of one kind or all; a last line that was cut off by a kill is left out.

    A line that is no row, which only a damaged disk or an editor can have made, is left out too, and the log says so.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], start=1):  # What stands behind the last newline is empty or cut off.
        try:
            row = json.loads(line)
            row["kind"] + "", row["step"] + 0
        except (ValueError, TypeError, KeyError):
            log.warning("line %d of %s is damaged and left out.", number, path)
        else:
            rows.append(row)
    return [row for row in rows if kind is None or row["kind"] == kind]


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a file that is there in full or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that is there in full or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class _Events:
    """TensorBoard events in a new file, in the place of those that were there; nothing if the extra is not installed.

    They are written here and now. tensorboardX's own `SummaryWriter` leaves that to a thread, and waits for it for ever
    once a full disk has ended it.
    """

    def __init__(self, workdir: pathlib.Path) -> None:
        self._file: Any = None
        with contextlib.suppress(ModuleNotFoundError):
            from tensorboardX.event_file_writer import EventsWriter

            for path in workdir.glob("events.out.tfevents.*"):
                path.unlink()
            self._file = EventsWriter(str(workdir / "events"))

    def add(self, kind: str, step: int, **values: Any) -> None:
        """Adds a point to the curve of every number."""
        if self._file is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        points = [
            Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in values.items()
            if isinstance(value, int | float)
        ]
        self._file.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
