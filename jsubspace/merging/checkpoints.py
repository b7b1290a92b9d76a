"""Averaged checkpoints of a run as a learning-rate schedule: the weights that replay a decay which never happened.

A run keeps its rate constant and keeps its checkpoints theta_0, ..., theta_K. A run that decays its rate from theta_0 on has the
relative rates r_1, ..., r_K in the K intervals between them. Two weighted averages of the checkpoints stand for its end.

**Replayed.** Suppose that the decayed run saw the same gradients. Its end is then theta_0 + sum_k r_k (theta_k - theta_{k-1}).
This is the average with the weights 1 - r_1, r_1 - r_2, ..., r_{K-1} - r_K, r_K. It is exact for any loss, but the
gradients of a decayed run are taken at other networks.

**On a quadratic.** Without noise, gradient descent on a quadratic multiplies each eigenvector's distance from the minimum by z in
an interval at the constant rate, and by (1 - r) + r z at the relative rate r. The end of the decayed run is the average with
the coefficients of prod_k ((1 - r_k) + r_k z) as weights. It is exact if an interval is one step. For intervals of several steps it is an
approximation.

Both averages have their mass at the same mean time, sum_k r_k. The second one is narrow: it is little more than the
checkpoint at this time. Only the first one averages noise away, as a decay does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jsubspace import arguments
from jsubspace.errors import UsageError

LINEAR, COSINE, ROOT = "linear", "cosine", "1-sqrt"
UNIFORM, EMA, LAST = "uniform", "ema", "last"

_INTEGRALS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    LINEAR: lambda s: s - s**2 / 2,
    COSINE: lambda s: s / 2 + np.sin(np.pi * s) / (2 * np.pi),
    ROOT: lambda s: s - s**1.5 / 1.5,
}
"""The integral of every decay from 0 to s: 1 - s, (1 + cos(pi s)) / 2 and 1 - sqrt(s)."""

DECAYS = tuple(_INTEGRALS)
SCHEDULES = (*DECAYS, UNIFORM, EMA, LAST)


def checkpoint_weights(
    schedule: str, steps: int | Sequence[float], *, decay: float | None = None, last: int | None = None
) -> np.ndarray:
    """The weights ``[n]`` of the n checkpoints of a constant-rate run, for `jsubspace.average_checkpoints`. Their sum is 1.

    Args:
      schedule: "linear", "cosine" or "1-sqrt" to replay the decay of this name from the first to the last checkpoint
        (`replay_weights`). "uniform" for Polyak's average, "last" for its window, and "ema" for an exponential average.
      steps: the steps of the checkpoints in order, or n for n checkpoints at equal distances.
      decay: for "ema", the factor by which a weight falls from one checkpoint to the checkpoint before, from 0 to 1.
      last: for "last", the number of checkpoints at the end that count.

    Raises:
      UsageError: if an argument is not as it must be, or an option does not belong to the schedule.

    Example:
      >>> checkpoint_weights("linear", 5).tolist()
      [0.125, 0.25, 0.25, 0.25, 0.125]
      >>> checkpoint_weights("last", [100, 200, 300], last=2).tolist()
      [0.0, 0.5, 0.5]
    """
    if schedule not in SCHEDULES:
        words = ", ".join(f'"{word}"' for word in SCHEDULES)
        raise UsageError(f"schedule is {arguments.described(schedule)}, but it must be one of {words}.")
    for name, value, owner in (("decay", decay, EMA), ("last", last, LAST)):
        if (value is not None) != (schedule == owner):
            raise UsageError(
                f'{name} is {value}, and schedule is "{schedule}": {name} belongs to "{owner}", and must be given there.'
            )
    places = _places(steps)
    if schedule in DECAYS:
        return replay_weights(decay_rates(schedule, places))
    if schedule == EMA:
        return ema_weights(len(places), decay)
    return window_weights(len(places), len(places) if last is None else last)


def decay_rates(decay: str, steps: int | Sequence[float]) -> np.ndarray:
    """The mean relative rates ``[n - 1]`` of a decay in the intervals between n checkpoints, from 1 at the first to 0 at the last.

    Args:
      decay: "linear" (1 - s), "cosine" ((1 + cos(pi s)) / 2) or "1-sqrt" (1 - sqrt(s)) for the part s of the way.
      steps: as in `checkpoint_weights`.

    Raises:
      UsageError: if there are fewer than two checkpoints, or their steps do not increase.

    Example:
      >>> decay_rates("linear", 3).tolist(), decay_rates("linear", [0, 10, 40]).tolist()
      ([0.75, 0.25], [0.875, 0.375])
    """
    if decay not in DECAYS:
        raise UsageError(f"decay is {arguments.described(decay)}, but it must be one of {', '.join(DECAYS)}.")
    places = np.asarray(_places(steps), np.float64)
    if len(places) < 2:
        raise UsageError(
            "there is one checkpoint, and a decay needs two at least: it begins at the first and ends at the last."
        )
    along = (places - places[0]) / (places[-1] - places[0])
    return np.diff(_INTEGRALS[decay](along)) / np.diff(along)


def replay_weights(rates: Any) -> np.ndarray:
    """The weights ``[K + 1]`` that replay the gradients of a constant-rate run with the relative rates ``[K]``.

    They are 1 - r_1, r_1 - r_2, ..., r_K. For any loss, and any optimizer with updates in proportion to the rate, the average is
    theta_0 + sum_k r_k (theta_k - theta_{k-1}), exactly.

    Raises:
      UsageError: if the rates are no numbers from 0 to 1.

    Example:
      >>> replay_weights([0.75, 0.25]).tolist()
      [0.25, 0.5, 0.25]

    References:
      Tian et al., WSM: Decay-free learning rate schedule via checkpoint merging, 2025.
    """
    return -np.diff(_rates(rates), prepend=1, append=0)


def quadratic_weights(rates: Any) -> np.ndarray:
    """The weights ``[K + 1]`` by which one checkpoint per step gives the decayed run on a quadratic without noise, exactly.

    They are the coefficients of prod_k ((1 - r_k) + r_k z), the distribution of a sum of independent coins with these
    probabilities. Momentum and noise are not in the formula.

    Raises:
      UsageError: if the rates are no numbers from 0 to 1.

    Example:
      >>> quadratic_weights([0.75, 0.25]).tolist()
      [0.1875, 0.625, 0.1875]
    """
    weights = np.ones(1)
    for rate in _rates(rates):
        weights = np.convolve(weights, [1 - rate, rate])
    return weights


def ema_weights(num_checkpoints: int, decay: Any) -> np.ndarray:
    """The weights ``[n]`` of ema_k = decay ema_{k-1} + (1 - decay) theta_k, which starts at the first checkpoint.

    Raises:
      UsageError: if there is no checkpoint, or decay is no number from 0 to 1.

    Example:
      >>> ema_weights(3, 0.5).tolist()
      [0.25, 0.25, 0.5]
    """
    n = _count("num_checkpoints", num_checkpoints)
    if not arguments.are_real_numbers(decay) or np.shape(decay) or not 0 <= float(decay) <= 1:
        raise UsageError(f"decay is {arguments.described(decay)}, but it must be a number from 0 to 1.")
    kept = float(decay)  # 1 - decay in 16 bits would be rounded.
    weights = (1 - kept) * kept ** np.arange(n - 1, -1, -1)
    weights[0] = kept ** (n - 1)
    return weights


def window_weights(num_checkpoints: int, last: int) -> np.ndarray:
    """Equal weights ``[n]`` for the last checkpoints, and 0 for the others. With all of them it is Polyak's average.

    Raises:
      UsageError: if there are not as many checkpoints.

    Example:
      >>> window_weights(4, 2).tolist()
      [0.0, 0.0, 0.5, 0.5]
    """
    n, length = _count("num_checkpoints", num_checkpoints), _count("last", last)
    if length > n:
        raise UsageError(f"last is {length}, but there are {n} checkpoints.")
    return np.where(np.arange(n) < n - length, 0.0, 1 / length)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UsageError(f"{name} is {arguments.described(value)}, but it must be a whole number of at least 1.")
    return int(value)


def _places(steps: Any) -> Sequence[float]:
    """The steps in order. For a number of checkpoints they are 0, 1, 2, ..."""
    is_list = isinstance(steps, list | tuple | range) or getattr(steps, "ndim", 0) == 1
    if not is_list:
        return list(range(_count("steps", steps)))
    places = steps if hasattr(steps, "dtype") else list(steps)
    if not (arguments.are_real_numbers(places) and np.ndim(places) == 1 and len(places) and _are_increasing(places)):
        raise UsageError(
            f"steps is {arguments.described(steps)}, but the steps of the checkpoints must be finite, increasing numbers, as in "
            "[100, 200, 300], or the number of checkpoints."
        )
    return [float(place) for place in places]


def _are_increasing(places: Any) -> bool:
    numbers = np.asarray(places)
    return bool(np.isfinite(numbers).all() and (np.diff(numbers) > 0).all())


def _rates(rates: Any) -> np.ndarray:
    if not arguments.are_real_numbers(rates) or np.ndim(rates) != 1 or not np.size(rates):
        raise UsageError(f"rates is {arguments.described(rates)}, but it must be a list of relative rates.")
    found = np.asarray(rates, np.float64)
    if not all(math.isfinite(rate) and 0 <= rate <= 1 for rate in found):
        raise UsageError(f"rates holds {found.min():g} to {found.max():g}, but relative rates are numbers from 0 to 1.")
    return found
