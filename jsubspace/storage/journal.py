"""The numbers that training reports, read without ever making a device wait for the host."""

import collections
import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.errors import TrainingDiverged

log = logging.getLogger(__name__)

TRAIN = "train"
"""The kind of the rows that are means over windows of steps."""

TESTS = ("validation", "test")
"""The kinds of the rows that are scores of tests. Such a score may be infinite although training is well."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
    """What one step or several steps report: one array, so that the host fetches it at once.

    Attributes:
      names: the names of the numbers.
      values: the numbers of one step, ``[n]``, or of several steps, ``[steps, n]``. float32, or wider if a number is.
    """

    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    values: jax.Array

    @classmethod
    def of(cls, numbers: Mapping[str, jax.Array]) -> "Report":
        """The report of a step from its scalars by name.

        Example:
          >>> Report.of({"loss": jnp.float32(2), "accuracy": jnp.float32(0.5)}).by_step()
          [{'loss': 2.0, 'accuracy': 0.5}]
        """
        # XLA computes the numbers as if each of them were a result of its own.
        scalars = jax.lax.optimization_barrier([jnp.asarray(number) for number in numbers.values()])
        dtype = jnp.result_type(jnp.float32, *(scalar.dtype for scalar in scalars))
        return cls(tuple(numbers), jnp.stack([scalar.astype(dtype) for scalar in scalars]))

    def by_step(self) -> list[dict[str, float]]:
        """The numbers of every step by name, on the host."""
        rows = np.asarray(self.values).reshape(-1, len(self.names))
        return [dict(zip(self.names, row.tolist(), strict=True)) for row in rows]


class Row(NamedTuple):
    """One event: its kind, the step after which it happened, and its numbers."""

    kind: str
    step: int
    values: dict[str, float]


class Journal:
    """Collects the reports of steps and averages them over windows.

    Args:
      window_steps: the length of a window. Windows end at multiples of it, wherever a run was interrupted. The last window of a run
        may be shorter (`end_window`).
      under_way: how many reports may be under way. A report is read when ``under_way`` later reports have been added.
      state: the value that `state` returned before a checkpoint. The journal then continues the same window.
    """

    def __init__(self, window_steps: int, under_way: int, state: dict[str, Any] | None = None) -> None:
        self._window_steps, self._most = window_steps, under_way
        self._under_way: collections.deque[tuple[str, int, Report | Mapping[str, jax.Array | float]]] = (
            collections.deque()
        )
        self._rows: list[Row] = []
        self._sums: dict[str, float] = dict(state["sums"]) if state else {}
        self._count: int = state["count"] if state else 0
        self._warned = False

    def add(self, step: int, report: Report) -> None:
        """Takes the report of a step, or of several steps from this one on, that have been started. The first step is 1.

        All reports have the same names.

        Raises:
          TrainingDiverged: if a number that is read is not finite.
        """
        self._take(TRAIN, step, report)

    def note(self, kind: str, step: int, values: Mapping[str, jax.Array | float]) -> None:
        """Takes numbers that become a row of their own as soon as they are computed.

        Raises:
          TrainingDiverged: as `add`, but not for the scores of `TESTS`. The log warns of them once.
        """
        self._take(kind, step, values)

    def finish(self) -> None:
        """Waits for every report under way and reads it. Raises as `add` does."""
        while self._under_way:
            self._read_one()

    def end_window(self, step: int) -> None:
        """Ends the window after this step, with a row if the window has a step. For the last step of a run, after `finish`."""
        if self._count:
            self._rows.append(Row(TRAIN, step, {name: total / self._count for name, total in self._sums.items()}))
            self._sums, self._count = {}, 0

    def take_rows(self) -> list[Row]:
        """The complete rows that were not taken before: notes, and the mean over each window at its last step."""
        rows, self._rows = self._rows, []
        return rows

    def state(self) -> dict[str, Any]:
        """The incomplete window, for a checkpoint after `finish`. It holds numbers that JSON stores exactly."""
        return {"sums": dict(self._sums), "count": self._count}

    def _take(self, kind: str, step: int, values: Report | Mapping[str, jax.Array | float]) -> None:
        self._under_way.append((kind, step, values))
        while len(self._under_way) > self._most:
            self._read_one()

    def _read_one(self) -> None:
        kind, step, on_device = self._under_way.popleft()
        if isinstance(on_device, Report):
            for later, values in enumerate(on_device.by_step()):
                self._count_in(step + later, values)
        else:
            values = {name: float(value) for name, value in jax.device_get(on_device).items()}
            if kind in TESTS:
                self._warn(kind, step, values)
            else:
                _check_finite(step, values)
            self._rows.append(Row(kind, step, values))

    def _warn(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Says once in the log that scores of a test are not finite: one example may have the probability 0."""
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong and not self._warned:
            self._warned = True
            log.warning(
                "the %s on the %s data after step %d is %s. Training continues, metrics.jsonl has null in its place, and such a test is "
                "never the best. Later tests of this kind are not mentioned again.", wrong[0], kind, step, values[wrong[0]]
            )  # fmt: skip

    def _count_in(self, step: int, values: dict[str, float]) -> None:
        _check_finite(step, values)
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in values.items()}
        self._count += 1
        if step % self._window_steps == 0:
            self.end_window(step)


def _check_finite(step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingDiverged(f"the {name} of step {step} is {value}. {TrainingDiverged.ADVICE}")
