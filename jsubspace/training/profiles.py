"""A trace of some steps, for TensorBoard or Perfetto, from jax's profiler."""

import logging
import pathlib
from typing import Any

import jax

from jsubspace.errors import one_line
from jsubspace.storage.places import in_bucket

log = logging.getLogger(__name__)

FOLDER = "profile"
"""The folder of the trace in the run's folder."""


class Profile:
    """Traces the steps from the first to the last one. A trace that fails is a warning and does not end the run.

    Args:
      steps: the numbers of the first and the last step, or empty for no trace.
      workdir: the run's folder, on a disk.
      total_steps: the number of steps of the run.
    """

    def __init__(self, steps: tuple[int, ...], workdir: pathlib.Path, total_steps: int) -> None:
        self._first, self._last = steps or (0, 0)
        self._folder, self._runs = workdir / FOLDER, False
        if steps and in_bucket(workdir):
            log.warning("profile_steps is set, but the profiler writes no trace into a bucket. Use a folder on a disk.")
            self._last = 0
        elif self._last > total_steps:
            log.warning(
                "profile_steps is (%d, %d), but the run has %d steps. %s", self._first, self._last, total_steps,
                "No step is traced." if self._first > total_steps else "The later steps are missing in the trace.",
            )  # fmt: skip

    def before(self, step: int) -> None:
        """Starts the trace if the step is traced. A run that resumes among these steps traces the rest of them."""
        if self._first <= step <= self._last and not self._runs:
            try:
                jax.profiler.start_trace(str(self._folder))
                self._runs = True
            except Exception as error:  # Another trace may be under way, or the profiler may be missing.
                self._failed(error)

    def after(self, step: int, state: Any) -> None:
        """Waits for the last traced step and writes the trace."""
        if self._runs and step >= self._last:
            jax.block_until_ready(state)
            self._stop()

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._runs:
            self._stop()

    def _stop(self) -> None:
        self._runs = False
        try:
            jax.profiler.stop_trace()
            log.info("the trace is in %s. Look at it with TensorBoard or https://ui.perfetto.dev.", self._folder)
        except Exception as error:  # The disk may be full.
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._last = 0
        log.warning("no trace of the steps was written: %s", one_line(error))
