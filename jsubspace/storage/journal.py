"""The numbers that training reports, read without ever making a device wait for the host."""

import collections
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jsubspace.errors import TrainingDiverged

TRAIN = "train"
"""The kind of the rows that are means over windows of steps."""


class Row(NamedTuple):
    """One event: its kind, the step after which it happened, and its numbers."""

    kind: str
    step: int
    values: dict[str, float]


class Journal:
    """Collects the reports of steps and averages them over windows of equal length.

    Args:
      window_steps: the length of a window. Windows end at multiples of it, wherever a run was interrupted.
      under_way: how many reports may be under way. A report is read when ``under_way`` later reports have been added.
      state: the value that `state` returned before a checkpoint. The journal then continues the same window.
    """

    def __init__(self, window_steps: int, under_way: int, state: dict[str, Any] | None = None) -> None:
        self._window_steps, self._most = window_steps, under_way
        self._under_way: collections.deque[tuple[str, int, Mapping[str, jax.Array | float]]] = collections.deque()
        self._rows: list[Row] = []
        self._sums: dict[str, float] = dict(state["sums"]) if state else {}
        self._count: int = state["count"] if state else 0

    def add(self, step: int, report: Mapping[str, jax.Array | float]) -> None:
        """Takes the report of a step that has been started. The first step is 1. All reports have the same names.

        Raises:
          TrainingDiverged: if a number that is read is not finite.
        """
        self.note(TRAIN, step, report)

    def note(self, kind: str, step: int, values: Mapping[str, jax.Array | float]) -> None:
        """Takes numbers that become a row of their own as soon as they are computed. Raises as `add` does."""
        self._under_way.append((kind, step, values))
        while len(self._under_way) > self._most:
            self._read_one()

    def finish(self) -> None:
        """Waits for every report under way and reads it. Raises as `add` does."""
        while self._under_way:
            self._read_one()

    def take_rows(self) -> list[Row]:
        """The complete rows that were not taken before: notes, and the mean over each window at its last step."""
        rows, self._rows = self._rows, []
        return rows

    def state(self) -> dict[str, Any]:
        """The incomplete window, for a checkpoint after `finish`. It holds numbers that JSON stores exactly."""
        return {"sums": dict(self._sums), "count": self._count}

    def _read_one(self) -> None:
        kind, step, on_device = self._under_way.popleft()
        values = {name: float(value) for name, value in jax.device_get(on_device).items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"the {name} of step {step} is {value}. Nothing since the last checkpoint has been saved. Lower "
                    "optimizer.learning_rate, lengthen optimizer.warmup_epochs, or look at the data."
                )
        if kind != TRAIN:
            self._rows.append(Row(kind, step, values))
            return
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in values.items()}
        self._count += 1
        if step % self._window_steps == 0:
            self._rows.append(Row(TRAIN, step, {name: total / self._count for name, total in self._sums.items()}))
            self._sums, self._count = {}, 0
