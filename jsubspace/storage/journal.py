"""What training reports: numbers that are read without ever making a device wait for the host."""

import collections
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jsubspace.errors import TrainingDiverged
from jsubspace.training.parallel import RUN_AHEAD
from jsubspace.training.train_step import StepInfo


class Row(NamedTuple):
    """One event: what kind, after which step, and its numbers."""

    kind: str
    step: int
    values: dict[str, float]


class Journal:
    """Collects the reports of steps and averages them over windows of equal length.

    Args:
      window_steps: length of a window. Windows end at multiples of it, wherever a run was interrupted.
      state: what `state` gave, to go on from a checkpoint as if nothing had happened.
    """

    def __init__(self, window_steps: int, state: dict[str, Any] | None = None) -> None:
        self._window_steps = window_steps
        self._under_way: collections.deque[tuple[str, int, Mapping[str, jax.Array | float]]] = collections.deque()
        self._rows: list[Row] = []
        self._sums: dict[str, float] = dict(state["sums"]) if state else dict.fromkeys(StepInfo._fields, 0.0)
        self._count: int = state["count"] if state else 0

    def add(self, step: int, info: StepInfo) -> None:
        """Takes the report of a step (the first is 1) that has been started; reads that of `RUN_AHEAD` reports ago.

        Raises:
          TrainingDiverged: if a number that has been read is not finite.
        """
        self.note("train", step, info._asdict())

    def note(self, kind: str, step: int, values: Mapping[str, jax.Array | float]) -> None:
        """Takes numbers that become a row of their own as soon as they are there. Raises as `add` does."""
        self._under_way.append((kind, step, values))
        while len(self._under_way) > RUN_AHEAD:
            self._read_one()

    def finish(self) -> None:
        """Waits for everything under way and reads it. Raises as `add` does."""
        while self._under_way:
            self._read_one()

    def take_rows(self) -> list[Row]:
        """Rows that are complete and were not taken yet: notes, and the mean over each window at its last step."""
        rows, self._rows = self._rows, []
        return rows

    def state(self) -> dict[str, Any]:
        """The window that is not complete yet, for a checkpoint after `finish`: numbers that JSON keeps exactly."""
        return {"sums": dict(self._sums), "count": self._count}

    def _read_one(self) -> None:
        kind, step, on_device = self._under_way.popleft()
        values = {name: float(value) for name, value in jax.device_get(on_device).items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"the {name} of step {step} is {value}. Nothing since the last checkpoint has been saved; lower "
                    "config.optimizer.learning_rate, lengthen config.optimizer.warmup_epochs, or look at the data."
                )
        if kind != "train":
            self._rows.append(Row(kind, step, values))
            return
        self._sums = {name: self._sums[name] + value for name, value in values.items()}
        self._count += 1
        if step % self._window_steps == 0:
            self._rows.append(Row("train", step, {name: total / self._count for name, total in self._sums.items()}))
            self._sums, self._count = dict.fromkeys(self._sums, 0.0), 0
