"""Learning rates over a run, and the epochs after which its networks are collected.

All durations are whole epochs. ``unit`` is the number of counts per epoch: steps_per_epoch for a rate that changes every
step, and 1 for a schedule over epochs (see `per_epoch`). All schedules begin with the same warm-up,

    lr (t + 1) / warmup    for t = 0, ..., warmup - 1,

which is the authors' formula. The first count already has the rate lr / warmup, not 0.
"""

import itertools

import optax

COSINE = "cosine"
"""Cosine to zero at the end: the paper's schedule for everything except the methods below."""

SWA_CYCLIC = "swa_cyclic"
"""Cosine to zero at 75 %, then cycles of cosine from half the rate to zero (Izmailov et al., 2018)."""

SWA_CONSTANT = "swa_constant"
"""The full rate until 50 %, linear to half of it at 90 %, constant (Izmailov et al., 2018)."""

SNAPSHOT = "snapshot"
"""Cycles of cosine from the full rate to zero (Huang et al., 2017)."""

FAST_GEOMETRIC = "fast_geometric"
"""Cosine to zero at 75 %, then triangles between 1/2 and 1/200 of the rate (Garipov et al., 2018)."""

COLLECTING = (SWA_CYCLIC, SWA_CONSTANT, SNAPSHOT, FAST_GEOMETRIC)
NAMES = (COSINE, *COLLECTING)


def make_schedule(
    name: str, learning_rate: float, *, warmup_epochs: int, num_epochs: int, num_networks: int = 0, unit: int = 1
) -> optax.Schedule:
    """``count -> learning rate`` for counts 0, ..., num_epochs * unit - 1.

    Args:
      name: one of `NAMES`.
      learning_rate: lr, the largest rate.
      warmup_epochs, num_epochs: the epochs of warm-up, and all epochs of the run.
      num_networks: m, the number of networks that a schedule in `COLLECTING` collects.
      unit: counts per epoch.

    Raises:
      ValueError: if `warmup_cosine` or `collection_epochs` raises it.
    """
    warmup, total = warmup_epochs * unit, num_epochs * unit
    if name == COSINE:
        return warmup_cosine(learning_rate, warmup, total)
    collected = [epoch * unit for epoch in collection_epochs(name, warmup_epochs, num_epochs, num_networks)]
    half = learning_rate / 2
    if name == SWA_CONSTANT:
        start, end = total // 2, total * 9 // 10
        decay = optax.linear_schedule(learning_rate, half, end - start)
        return _after_warmup(learning_rate, warmup, [optax.constant_schedule(learning_rate), decay], [start])
    if name == SNAPSHOT:
        bounds = [warmup, *collected]
        cycles = [_cosine(learning_rate, *between) for between in itertools.pairwise(bounds)]
        return _after_warmup(learning_rate, warmup, cycles, bounds[1:-1])
    first = num_epochs * 3 // 4 * unit
    budget = _cosine(learning_rate, warmup, first)
    if name == SWA_CYCLIC:
        cycles = [_cosine(half, *between) for between in itertools.pairwise(collected)]
        return _after_warmup(learning_rate, warmup, [budget, *cycles], collected[:-1])
    # Fast geometric: the rate falls to each network, and rises until halfway to the next one.
    low, schedules, bounds = learning_rate / 200, [budget], [first]
    for i, minimum in enumerate(collected):
        schedules.append(optax.linear_schedule(half, low, minimum - bounds[-1]))
        if i + 1 < len(collected):
            peak = (minimum + collected[i + 1]) // 2
            schedules.append(optax.linear_schedule(low, half, peak - minimum))
            bounds += [minimum, peak]
    return _after_warmup(learning_rate, warmup, schedules, bounds)


def collection_epochs(name: str, warmup_epochs: int, num_epochs: int, num_networks: int) -> tuple[int, ...]:
    """The epochs after which the m networks of a run are collected, the last after the last epoch.

    Let E be the number of epochs. SWA with cycles collects at 3E/4 and at the end of every cycle. SWA with the constant
    rate collects evenly from 9E/10 to E. Snapshots are collected at the end of every cycle, and fast geometric ensembles
    at the lowest rates. Epochs are rounded down.

    Raises:
      ValueError: if the run is too short to collect m different networks.

    Example:
      >>> collection_epochs("swa_cyclic", 5, 160, 4)
      (120, 133, 146, 160)
    """
    m, last = num_networks, num_epochs
    if m < 1:
        raise ValueError(f"the schedule {name} collects at least 1 network, not {m}.")
    match name:
        case "swa_cyclic" | "swa_constant":
            first = last * 3 // 4 if name == SWA_CYCLIC else last * 9 // 10
            epochs = [first + (last - first) * k // max(m - 1, 1) for k in range(m - 1)]
        case "snapshot":
            epochs = [warmup_epochs + k * ((last - warmup_epochs) // m) for k in range(1, m)]
        case "fast_geometric":
            first = last * 3 // 4
            epochs = [first + (last - first) * (2 * k + 1) // (2 * m - 1) for k in range(m - 1)]
        case _:
            raise ValueError(f"the schedule {name} collects no networks. These schedules do: {', '.join(COLLECTING)}.")
    collected = (*epochs, last)
    earliest = (last * 3 // 4 if name == FAST_GEOMETRIC else warmup_epochs) + 1
    if len(set(collected)) < m or collected[0] < earliest:
        raise ValueError(
            f"{num_epochs} epochs with {warmup_epochs} of warm-up are too few for {name} to collect {m} networks: they "
            f"would be collected after epochs {collected}. Train longer or collect fewer."
        )
    return collected


def warmup_cosine(learning_rate: float, warmup: int, total: int) -> optax.Schedule:
    """Warm-up, then lr (1 + cos(pi (t - warmup) / (total - warmup))) / 2. Durations are in counts.

    Raises:
      ValueError: unless 0 <= warmup < total.
    """
    if not 0 <= warmup < total:
        raise ValueError(f"warmup is {warmup} and total is {total}. The warm-up must leave something to train.")
    return _after_warmup(learning_rate, warmup, [_cosine(learning_rate, warmup, total)], [])


def per_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """A schedule over steps from a schedule over epochs. It is constant within an epoch, as in the authors' program."""
    return lambda step: schedule(step // steps_per_epoch)


def _cosine(learning_rate: float, start: int, end: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(learning_rate, end - start)


def _after_warmup(
    learning_rate: float, warmup: int, schedules: list[optax.Schedule], bounds: list[int]
) -> optax.Schedule:
    """The warm-up, then the schedules in order. The first begins after the warm-up, the others begin at their bounds."""
    if warmup == 0:
        return optax.join_schedules(schedules, bounds)
    ramp = optax.linear_schedule(learning_rate / warmup, learning_rate, max(warmup - 1, 1))
    return optax.join_schedules([ramp, *schedules], [warmup, *bounds])
