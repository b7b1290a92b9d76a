"""Learning rates over a run, and the epochs after which its networks are collected.

All durations are whole epochs. ``unit`` is the number of counts per epoch: steps_per_epoch for a rate that changes every
step, and 1 for a schedule over epochs (see `per_epoch`). All schedules begin with the same warm-up,

    lr (t + 1) / warmup    for t = 0, ..., warmup - 1,

which is the authors' formula. The first count already has the rate lr / warmup, not 0.

A cycle reaches its lowest rate at the count where its network is collected. In a schedule over epochs, the network is
collected after the whole epoch before this count. There the cycle reaches its lowest rate one count earlier, in the last
epoch that trains the network.
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

    The part before a method's cycles, or before its decay, begins after the warm-up. It is left out if the warm-up is as
    long.

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
    epochs = collection_epochs(name, warmup_epochs, num_epochs, num_networks, unit)
    half = learning_rate / 2
    if name == SWA_CONSTANT:
        start, end = max(total // 2, warmup), total * 9 // 10
        full = optax.constant_schedule(learning_rate)
        # One or two counts all lie before the decay.
        decay = optax.linear_schedule(learning_rate, half, end - start) if end > start else full
        return _after_warmup(learning_rate, warmup, [full, decay], [start])
    early = 1 if unit == 1 else 0
    first = _first(name, warmup_epochs, num_epochs) * unit
    minima = [epoch * unit - early for epoch in epochs]
    if name == FAST_GEOMETRIC:
        # The rate falls to each network, and rises until halfway to the next one.
        low, rates, bounds = learning_rate / 200, [_cosine(learning_rate, first - warmup)], [first]
        for i, minimum in enumerate(minima):
            rates.append(_linear(half, low, minimum - bounds[-1]))
            if i + 1 < len(minima):
                peak = (minimum + minima[i + 1]) // 2
                rates.append(_linear(low, half, peak - minimum))
                bounds += [minimum, peak]
        return _after_warmup(learning_rate, warmup, rates, bounds)
    bounds = sorted({first, *(epoch * unit for epoch in epochs)})
    top = learning_rate if name == SNAPSHOT else half
    rates = [_cosine(top, max(end - early - start, 0)) for start, end in itertools.pairwise(bounds)]
    if name == SNAPSHOT:
        return _after_warmup(learning_rate, warmup, rates, bounds[1:-1])
    # With several networks the part before the cycles ends with the first network.
    budget = _cosine(learning_rate, first - warmup - (early if num_networks > 1 else 0))
    return _after_warmup(learning_rate, warmup, [budget, *rates], bounds[:-1])


def collection_epochs(
    name: str, warmup_epochs: int, num_epochs: int, num_networks: int, unit: int = 1
) -> tuple[int, ...]:
    """The epochs after which the m networks of a run are collected, the last after the last epoch.

    Let E be the number of epochs. SWA with cycles collects at 3E/4 and at the end of every cycle. SWA with the constant
    rate collects evenly from 9E/10 to E. Snapshots are collected at the end of every cycle, and fast geometric ensembles
    at the lowest rates. Epochs are rounded down. A single network is collected at the end.

    Args:
      name, warmup_epochs, num_epochs, num_networks, unit: as in `make_schedule`.

    Raises:
      ValueError: if the run is too short to collect m different networks, if its warm-up is longer than the part of the
        schedule that begins with the warm-up, or if a cycle is too short to have a highest and a lowest rate.

    Example:
      >>> collection_epochs("swa_cyclic", 5, 160, 4)
      (120, 133, 146, 160)
    """
    if name not in COLLECTING:
        raise ValueError(f"the schedule {name} collects no networks. These schedules do: {', '.join(COLLECTING)}.")
    m, last = num_networks, num_epochs
    if m < 1:
        raise ValueError(f"the schedule {name} collects at least 1 network, not {m}.")
    first = _first(name, warmup_epochs, num_epochs)
    match name:
        case "snapshot":
            epochs = [first + k * ((last - first) // m) for k in range(1, m)]
        case "fast_geometric":
            epochs = [first + (last - first) * (2 * k + 1) // (2 * m - 1) for k in range(m - 1)]
        case _:
            epochs = [first + (last - first) * k // max(m - 1, 1) for k in range(m - 1)]
    collected = (*epochs, last)
    budget = f"{num_epochs} epochs with {warmup_epochs} of warm-up"
    longest = _longest_warmup(name, num_epochs)
    if not 0 <= warmup_epochs <= longest:
        raise ValueError(f"{budget} leave no room for {name}. Train longer, or warm up for 0 to {longest} epochs.")
    earliest = (first if name == FAST_GEOMETRIC else warmup_epochs) + 1
    if len(set(collected)) < m or collected[0] < earliest:
        raise ValueError(
            f"{budget} are too few for {name} to collect {m} networks: they would be collected after epochs {collected}. "
            "Train longer or collect fewer."
        )
    if unit == 1 and _has_short_cycle(name, warmup_epochs, first, collected):
        raise ValueError(
            f"{budget} are too few for {name} to collect {m} networks after epochs {collected} with one rate per epoch: a "
            "cycle needs an epoch with a higher rate before the epoch with its lowest rate. Train longer or collect fewer."
        )
    return collected


def _first(name: str, warmup_epochs: int, num_epochs: int) -> int:
    """The number of epochs before the cycles, or (for the constant rate of SWA) before the first network."""
    match name:
        case "snapshot":
            return warmup_epochs
        case "swa_constant":
            return num_epochs * 9 // 10
        case _:
            return num_epochs * 3 // 4


def _longest_warmup(name: str, num_epochs: int) -> int:
    """The longest warm-up in epochs that ends before the schedule's cycles or the end of its decay."""
    match name:
        case "snapshot":
            return num_epochs - 1
        case "swa_constant":
            return max(num_epochs // 2, num_epochs * 9 // 10 - 1)
        case _:
            return num_epochs * 3 // 4


def _has_short_cycle(name: str, warmup: int, first: int, collected: tuple[int, ...]) -> bool:
    """Whether a cycle of a schedule over epochs has a single epoch, which cannot have two rates.

    It is no fault if this is the only epoch after the warm-up. The epoch then has the rate with which the cycle begins.
    """
    if name in (SWA_CONSTANT, FAST_GEOMETRIC) or collected[-1] - warmup == 1:
        return False  # Networks of a fast geometric ensemble always have two epochs between them.
    starts = (warmup, first) if len(collected) > 1 else (first,)
    return any(end - start < 2 for start, end in itertools.pairwise(sorted({*starts, *collected})))


def warmup_cosine(learning_rate: float, warmup: int, total: int) -> optax.Schedule:
    """Warm-up, then lr (1 + cos(pi (t - warmup) / (total - warmup))) / 2. Durations are in counts.

    Raises:
      ValueError: unless 0 <= warmup < total.
    """
    if not 0 <= warmup < total:
        raise ValueError(f"warmup is {warmup} and total is {total}. The warm-up must leave something to train.")
    return _after_warmup(learning_rate, warmup, [_cosine(learning_rate, total - warmup)], [])


def per_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """A schedule over steps from a schedule over epochs. It is constant within an epoch, as in the authors' program."""
    return lambda step: schedule(step // steps_per_epoch)


def _cosine(learning_rate: float, counts: int) -> optax.Schedule:
    """Cosine from the rate to zero after ``counts``. A part that takes no time stays at the rate."""
    return optax.cosine_decay_schedule(learning_rate, counts) if counts else optax.constant_schedule(learning_rate)


def _linear(start: float, end: float, counts: int) -> optax.Schedule:
    """Linear from one rate to another after ``counts``. A part that takes no time is at its end."""
    return optax.linear_schedule(start, end, counts) if counts else optax.constant_schedule(end)


def _after_warmup(
    learning_rate: float, warmup: int, schedules: list[optax.Schedule], bounds: list[int]
) -> optax.Schedule:
    """The warm-up, then the schedules in order. The first begins after the warm-up, the others begin at their bounds."""
    if warmup == 0:
        return optax.join_schedules(schedules, bounds)
    ramp = optax.linear_schedule(learning_rate / warmup, learning_rate, max(warmup - 1, 1))
    return optax.join_schedules([ramp, *schedules], [warmup, *bounds])
