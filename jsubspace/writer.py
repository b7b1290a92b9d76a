"""What a run writes for people and plots: ``metrics.jsonl`` and TensorBoard events."""

import json
import os
import pathlib
from typing import Any

METRICS = "metrics.jsonl"


class Writer:
    """Appends rows to ``metrics.jsonl``, one an event, and the same numbers to TensorBoard events.

    Args:
      workdir: the run's folder.
      step: the step at which the run starts or goes on. Rows of later steps, written by a run that was killed
        before its next checkpoint, are dropped: they will be written again.
    """

    def __init__(self, workdir: pathlib.Path, step: int = 0) -> None:
        path = workdir / METRICS
        write_text(path, "".join(json.dumps(row) + "\n" for row in read_rows(workdir) if row["step"] <= step))
        self._file = path.open("a", encoding="utf-8")
        self._events = _event_writer(workdir, step)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Adds the row ``{"kind": kind, "step": step, **values}``; it is on the disk when this returns."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Writes what is still buffered."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_rows(workdir: pathlib.Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, of one kind or all; a last line that was cut off by a kill is left out."""
    path = workdir / METRICS
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines[:-1]:  # What stands behind the last newline is empty or cut off.
        rows.append(json.loads(line))
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


def _event_writer(workdir: pathlib.Path, step: int) -> Any:
    """A tensorboardX writer that takes back points after ``step``; None if the extra is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        return None
    return SummaryWriter(str(workdir), purge_step=step + 1)
