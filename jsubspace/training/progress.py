"""What a person sees while a run trains: a bar or lines of the log, and the time that training took."""

import logging
import time

import tqdm

from jsubspace.storage.journal import TRAIN, Row

log = logging.getLogger(__name__)

SHORTEST_SECONDS = 0.01
"""A rate is measured over at least this time."""


class Progress:
    """A bar on a terminal. Elsewhere one line of the log per row, which suits a log file.

    Args:
      start: the number of steps that were taken before.
      total: the number of steps of the run.
      shown: the numbers of a row of training that are shown.
      speed: the number of such a row that is the speed, like ``images_per_second``.
    """

    def __init__(self, start: int, total: int, shown: tuple[str, ...], speed: str) -> None:
        self._total, self._shown, self._speed = total, shown, speed
        self._bar = tqdm.tqdm(initial=start, total=total, unit="step", disable=None, dynamic_ncols=True)

    def step(self, count: int = 1) -> None:
        """Counts more steps that have been started."""
        self._bar.update(count)

    def show(self, row: Row) -> None:
        """Shows the numbers of a row of training."""
        if row.kind != TRAIN:
            return
        numbers = ", ".join(f"{name} {row.values[name]:.4f}" for name in self._shown)
        if self._bar.disable:
            speed = f"{row.values[self._speed]:.0f} {self._speed.removesuffix('_per_second')}/s"
            log.info("step %d of %d (epoch %.1f): %s, %s", row.step, self._total, row.values["epoch"], numbers, speed)
        self._bar.set_postfix_str(numbers)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


class Clock:
    """Seconds of work, counted over interruptions. A jump of the system clock does not change them."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._start = time.monotonic() - seconds
        self._last: tuple[int, float] | None = None
        self._rate = 0.0

    def seconds(self) -> float:
        """Seconds since the start, plus the seconds that earlier parts of the run took."""
        return time.monotonic() - self._start

    def rate(self, step: int) -> float:
        """Steps per second since the last measurement. The first call returns 0, because it would measure the compilation.

        Rows that were read together come at once, which says nothing about the speed of their steps. A call within
        `SHORTEST_SECONDS` therefore returns the rate before, and the next call measures more steps.
        """
        now, last = time.monotonic(), self._last
        if last is None or now - last[1] >= SHORTEST_SECONDS:
            self._rate = (step - last[0]) / (now - last[1]) if last else 0.0
            self._last = step, now
        return self._rate
