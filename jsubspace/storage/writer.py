"""The numbers that a run writes for people and plots: ``metrics.jsonl`` and TensorBoard events."""

import contextlib
import logging
import pathlib
import socket
import time
import types
from collections.abc import Iterator
from typing import Any

from jsubspace.errors import UsageError
from jsubspace.storage import files
from jsubspace.storage.documents import from_json, read_bytes, to_json, without_nan
from jsubspace.storage.places import in_bucket
from jsubspace.storage.schema import Nullable, Number, Record, Text, Whole

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

METRICS_BYTES = 2**30
"""The largest size of `METRICS`: some millions of rows."""

ROW_BYTES = 2**16
"""The largest size of a row."""

ROW = Record({"kind": Text("[a-z][a-z_]{0,30}"), "step": Whole(0, 2**31 - 1)}, others=Nullable(Number()))
"""A row of `METRICS`. Its other fields are numbers. A number that is not finite is null."""

_TOLD = 10  # A file may have thousands of damaged lines.


class Silent(contextlib.nullcontext["Silent"]):
    """Takes rows as a `Writer` does, and does not write them. All hosts except the first use it."""

    def __init__(self) -> None:
        super().__init__(self)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Does nothing."""

    def sync(self) -> None:
        """Does nothing."""


class Writer:
    """Appends rows to ``metrics.jsonl``, one row per event, and the same numbers to TensorBoard events.

    The events are a copy of the rows, and a resumed run writes all of them again. So no point is missing or doubled,
    whenever the run was killed, whatever was in buffers, and wherever the clock, which names the files, has jumped to.

    In a bucket, `sync` and `close` upload both files as a whole. A kill loses rows after the last checkpoint, and the
    resumed run writes them again.

    Args:
      workdir: the run's folder.
      step: the step from which the run starts or resumes. Rows of later steps come from a run that was killed before its
        next checkpoint. They are dropped, because they will be written again.

    Raises:
      UsageError: if the disk is full or the folder cannot be written. All methods raise it, too.
    """

    def __init__(self, workdir: pathlib.Path, step: int = 0) -> None:
        self._path = workdir / METRICS
        with self._told():
            rows = [row for row in read_rows(workdir) if row["step"] <= step]
            files.write_text(self._path, "".join(to_json(row) + "\n" for row in rows))
            self._file = files.Appended(self._path)
            self._events = _Events(workdir)
            for row in rows:
                self._events.add(row)
            self._events.flush()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Adds the row ``{"kind": kind, "step": step, **values}``. After the call, a kill cannot remove it from a disk.

        A number that is not finite is written as null, and not drawn in TensorBoard.
        """
        row = {"kind": kind, "step": step, **without_nan(values)}
        with self._told():
            self._file.write((to_json(row) + "\n").encode("utf-8"))
            self._events.add(row)
            self._events.flush()

    def sync(self) -> None:
        """Returns when the rows are on the disk, or in the bucket. A checkpoint is written later, so no failure takes rows alone."""
        with self._told():
            self._events.sync()
            self._file.sync()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write {self._path}: {error}. Make room or fix the folder, and run the same command again: it resumes "
                "from the last checkpoint."
            ) from error

    def close(self) -> None:
        """Writes the rest of the buffers."""
        with self._told():
            self._file.close()
            self._events.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_rows(workdir: pathlib.Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, of one kind or all. If a kill cut off the last line, this line is left out.

    A line that is not a `ROW` is left out, too, and the log names it. Only a damaged disk or an editor makes such a line.

    Raises:
      UsageError: if the file cannot be read.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    try:
        lines = read_bytes(path, METRICS_BYTES).split(b"\n")
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {error}. Move it away, and run the same command again.") from error
    rows, damaged = [], 0
    for number, line in enumerate(lines[:-1], start=1):  # The text after the last newline is empty or cut off.
        try:
            rows.append(_row(line))
        except ValueError as error:
            damaged += 1
            if damaged <= _TOLD:
                log.warning("line %d of %s is damaged and left out: %s", number, path, error)
    if damaged > _TOLD:
        log.warning("%d more lines of %s are damaged and left out.", damaged - _TOLD, path)
    return [row for row in rows if kind is None or row["kind"] == kind]


def _row(line: bytes) -> dict[str, Any]:
    if len(line) > ROW_BYTES:
        raise ValueError(f"it has more than {ROW_BYTES} bytes")
    row: dict[str, Any] = from_json(line, nan_is_none=True)
    ROW.check(row, "the row")
    return row


class _Events:
    """TensorBoard events in a new file that replaces the old ones. It does nothing if tensorboardX is not installed.

    Events are written at once. tensorboardX's own ``SummaryWriter`` leaves the writing to a thread. When a full disk ends
    the thread, it waits for the thread for ever. In a bucket, tensorboardX would use another login than this library does.
    There it writes into memory, and `sync` uploads the file.
    """

    def __init__(self, workdir: pathlib.Path) -> None:
        self._file: Any = None
        self._kept: files.Appended | None = None
        with contextlib.suppress(ModuleNotFoundError):
            from tensorboardX import record_writer
            from tensorboardX.event_file_writer import EventsWriter

            for path in workdir.glob("events.out.tfevents.*"):
                files.remove(path)
            if in_bucket(workdir):
                self._kept = files.Appended(workdir / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}")
                factory = types.SimpleNamespace(open=lambda name: self._kept)
                record_writer.register_writer_factory(
                    "memory", factory
                )  # EventsWriter opens it by the beginning of its name.
                self._file = EventsWriter("memory:events")
            else:
                self._file = EventsWriter(str(workdir / "events"))

    def add(self, row: dict[str, Any]) -> None:
        """Adds a point to the curve of every number of a row."""
        if self._file is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        points = [
            Summary.Value(tag=f"{row['kind']}/{name}", simple_value=value)
            for name, value in row.items()
            if isinstance(value, int | float) and name not in ("kind", "step")
        ]
        self._file.write_event(Event(wall_time=time.time(), step=row["step"], summary=Summary(value=points)))

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def sync(self) -> None:
        """Uploads the file if it is in memory."""
        if self._kept is not None:
            self._kept.sync()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()  # and with it the file in memory, which is uploaded
