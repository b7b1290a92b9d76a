"""Checks of the options that the measuring functions share. They cost nothing, and come before any work."""

from typing import Any

from jsubspace import arguments
from jsubspace.evaluation.devices import OneProgram

LEAST_RESAMPLES = 20
"""The least number of bootstrap resamples for a 95 % interval, which leaves one of twenty out."""

REASON = f"An interval of 95 % needs {LEAST_RESAMPLES} resamples"


def num_resamples(name: str, value: Any) -> int:
    """A number of bootstrap resamples, or 0 for no intervals. ``name`` is that of the argument, for a message.

    Raises:
      ValueError: if it is no integer, negative, or too small for percentiles. One resample would give an interval of zero width.
    """
    number = arguments.count(name, value, 0)
    if 0 < number < LEAST_RESAMPLES:
        raise ValueError(
            f"{name} is {number}, but it must be 0 for no intervals, or at least {LEAST_RESAMPLES}. {REASON}, and 1000 are usual."
        )
    return number


def check_devices(name: str, value: Any) -> None:
    """Raises a ValueError if ``value`` is neither None nor has the members of `devices.Devices`."""
    members = [member for member in dir(OneProgram) if not member.startswith("_")]
    if value is not None and (isinstance(value, type) or not all(hasattr(value, member) for member in members)):
        raise ValueError(
            f"{name} is {arguments.described(value)}, but it must be None for one jax.jit, or say how the programs run on several "
            "devices, as jsubspace.training.parallel.DataParallel(tuple(jax.devices())) does."
        )
