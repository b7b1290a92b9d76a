"""The learning rate of a step, for the rows of the log."""

import contextlib
import threading

import jax
import optax


class Rates:
    """The learning rates of a schedule, computed on the host's CPU.

    On an accelerator, such a number would wait for the steps that are under way, and the next step would wait for it.

    Args:
      schedule: the learning rate as a function of the step.
    """

    def __init__(self, schedule: optax.Schedule) -> None:
        self._schedule = schedule

    def warm_up(self) -> None:
        """Compiles the small programs of a schedule in a thread. They are ready when the first row needs them."""
        threading.Thread(target=self.of_step, args=(1,), name="learning rate").start()

    def of_step(self, step: int) -> float:
        """The rate of a step. The first step is 1."""
        with _on_cpu():
            return float(self._schedule(step - 1))


def _on_cpu() -> contextlib.AbstractContextManager[object]:
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names the accelerator alone.
        return contextlib.nullcontext()
