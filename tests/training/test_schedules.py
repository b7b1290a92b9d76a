"""Learning rates against their definitions, written out as a function of the epoch, and the epochs of the authors' checkpoints."""

import itertools
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jsubspace.training import schedules


def cosine(t, start, end, lr=0.1):
    return lr * 0.5 * (1 + math.cos(math.pi * (t - start) / (end - start)))


def authors_schedule(epoch, lr=0.1, warmup=5, total=160):
    return lr * (epoch + 1) / warmup if epoch < warmup else cosine(epoch, warmup, total, lr)


@pytest.mark.parametrize(("warmup", "total"), [(5, 160), (1, 10), (0, 7), (5, 6)])
def test_schedule_is_the_authors_formula(warmup, total):
    schedule = schedules.warmup_cosine(0.1, warmup, total)
    expected = [authors_schedule(t, 0.1, warmup, total) for t in range(total)]
    np.testing.assert_allclose([schedule(t) for t in range(total)], expected, rtol=1e-5, atol=1e-9)


def test_per_epoch_is_constant_within_an_epoch():
    schedule = schedules.per_epoch(schedules.warmup_cosine(0.1, 5, 160), steps_per_epoch=391)
    for step in (0, 390, 391, 5 * 391 - 1, 5 * 391, 62_559):
        assert float(schedule(jnp.int32(step))) == pytest.approx(authors_schedule(step // 391), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("warmup", "total"), [(5, 5), (-1, 5), (0, 0)])
def test_schedule_without_training_is_refused(warmup, total):
    with pytest.raises(ValueError, match="warm-up"):
        schedules.warmup_cosine(0.1, warmup, total)


@pytest.mark.parametrize(
    ("m", "epochs"),
    [
        (1, (160,)),
        (2, (120, 160)),
        (3, (120, 140, 160)),
        (4, (120, 133, 146, 160)),
        (5, (120, 130, 140, 150, 160)),
        (6, (120, 128, 136, 144, 152, 160)),
    ],
)
def test_cyclic_swa_keeps_the_authors_checkpoints(m, epochs):
    assert schedules.collection_epochs("swa_cyclic", 5, 160, m) == epochs


def test_snapshots_restart_when_the_authors_do():
    assert schedules.collection_epochs("snapshot", 5, 160, 6) == (30, 55, 80, 105, 130, 160)
    schedule = schedules.make_schedule("snapshot", 0.1, warmup_epochs=5, num_epochs=160, num_networks=6)
    assert [t for t in range(5, 160) if schedule(t) > 0.0999] == [5, 30, 55, 80, 105, 130]


def cyclic(t, unit):
    """Over epochs (unit 1), a cycle reaches zero in its last epoch and not after it."""
    ends, early = (120, 128, 136, 144, 152, 160), unit == 1
    if t < ends[0]:
        return authors_schedule(t, total=ends[0] - early)
    start, end = next((a, b) for a, b in itertools.pairwise(ends) if a <= t < b)
    return cosine(t, start, end - early, lr=0.05)


def constant(t, unit):
    if t < 80:
        return authors_schedule(t) if t < 5 else 0.1
    return max(0.1 - 0.05 * (t - 80) / (144 - 80), 0.05)


def snapshots(t, unit):
    bounds = [5, 30, 55, 80, 105, 130, 160]
    start, end = next(((a, b) for a, b in itertools.pairwise(bounds) if a <= t < b), (0, 0))
    return authors_schedule(t) if t < 5 else cosine(t, start, end - (unit == 1))


def triangles(t, unit):
    """Down to 1/200 at every collected network, up to 1/2 halfway to the next."""
    if t < 120:
        return authors_schedule(t, total=120)
    minima = [epoch - (unit == 1) for epoch in (123, 130, 138, 145, 152, 160)]
    peaks = [(a * unit + b * unit) // 2 / unit for a, b in itertools.pairwise(minima)]
    knots = sorted([(120, 0.05), *((x, 0.0005) for x in minima), *((x, 0.05) for x in peaks)])
    return np.interp(t, *zip(*knots, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", lambda t, unit: authors_schedule(t)),
        ("swa_cyclic", cyclic),
        ("swa_constant", constant),
        ("snapshot", snapshots),
        ("fast_geometric", triangles),
    ],
)
@pytest.mark.parametrize("unit", [1, 10])
def test_every_schedule_by_its_definition(name, expected, unit):
    schedule = schedules.make_schedule(name, 0.1, warmup_epochs=5, num_epochs=160, num_networks=6, unit=unit)
    epochs = [t for t in range(160) if unit == 1 or t >= 5]  # the warm-up counts from one, in whatever unit
    rates = [schedule(t * unit) for t in epochs]
    np.testing.assert_allclose(rates, [expected(t, unit) for t in epochs], rtol=1e-4, atol=1e-7)


def test_fast_geometric_networks_are_collected_at_the_lowest_rate():
    epochs = schedules.collection_epochs("fast_geometric", 5, 160, 6)
    schedule = schedules.make_schedule("fast_geometric", 0.1, warmup_epochs=5, num_epochs=160, num_networks=6, unit=7)
    for epoch in epochs[:-1]:
        assert float(schedule(7 * epoch)) == pytest.approx(0.0005, rel=1e-3)
    assert schedules.collection_epochs("swa_constant", 5, 160, 6) == (144, 147, 150, 153, 156, 160)


@pytest.mark.parametrize("name", schedules.COLLECTING)
@pytest.mark.parametrize("num_epochs", [33, 60, 100, 300])
@pytest.mark.parametrize("m", [1, 2, 4])
def test_any_number_of_epochs(name, num_epochs, m):
    epochs = schedules.collection_epochs(name, 5, num_epochs, m)
    assert len(set(epochs)) == m
    assert sorted(epochs) == list(epochs)
    assert epochs[-1] == num_epochs
    schedule = schedules.make_schedule(name, 0.1, warmup_epochs=5, num_epochs=num_epochs, num_networks=m, unit=3)
    rates = np.asarray(schedule(jnp.arange(3 * num_epochs)))
    assert (rates >= 0).all()
    assert rates.max() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "num_epochs", "m", "message"),
    [
        ("swa_cyclic", 8, 4, "too few for swa_cyclic to collect 4 networks"),
        ("snapshot", 8, 5, "too few for snapshot"),
        ("swa_cyclic", 160, 0, "collects at least 1 network, not 0"),
        ("cosine", 160, 2, "the schedule cosine collects no networks. These schedules do: swa_cyclic"),
    ],
)
def test_too_short_to_collect_is_refused(name, num_epochs, m, message):
    with pytest.raises(ValueError, match=message):
        schedules.collection_epochs(name, 5, num_epochs, m)


LR = 0.1
TOP = {"cosine": LR, "swa_cyclic": LR / 2, "snapshot": LR}


def defined(name, warmup, num_epochs, m, unit, collected):
    """The rates of all counts by knots: at each knot a rate, and between two knots a cosine or a straight line."""
    w, total, early = warmup * unit, num_epochs * unit, int(unit == 1)
    t = np.arange(total)
    ramp = LR * (t + 1) / max(w, 1)
    if name == "swa_constant":
        knots = [(max(w, total // 2), LR), (total * 9 // 10, LR / 2)]
        after = np.interp(t, *zip(*knots, strict=True)) if knots[1][0] > knots[0][0] else np.full(total, LR)
        return np.where(t < w, ramp, after)
    if name == "fast_geometric":
        first, low = num_epochs * 3 // 4 * unit, [epoch * unit - early for epoch in collected]
        peaks = [(a + b) // 2 for a, b in itertools.pairwise(low)]
        down = sorted([(first, LR / 2) if low[0] > first else (first, LR / 200)] + [(k, LR / 200) for k in low])
        knots = dict(sorted(down + [(peak, LR / 2) for peak in peaks]))
        after = np.interp(t, list(knots), list(knots.values()))
        cycles = [(w, first, first, LR)]
    else:
        after = np.zeros(total)
        ends = [epoch * unit for epoch in collected]
        if name == "snapshot":
            starts = [w, *ends[:-1]]
            cycles = [(a, b, b - early, LR) for a, b in zip(starts, ends, strict=True)]
        elif name == "swa_cyclic":
            first = num_epochs * 3 // 4 * unit
            bounds = ends if m > 1 else [first, *ends]
            cycles = [(w, first, first - early * (m > 1), LR)]
            cycles += [(a, b, b - early, LR / 2) for a, b in itertools.pairwise(bounds)]
        else:
            cycles = [(w, total, total, LR)]
    for start, end, zero, top in cycles:
        inside = (start <= t) & (t < end)
        after[inside] = top / 2 * (1 + np.cos(np.pi * (t[inside] - start) / max(zero - start, 1)))
    return np.where(t < w, ramp, after)


def refusal(call, *arguments, **options):
    """The message of the ValueError, or None if the call succeeds."""
    try:
        call(*arguments, **options)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "budgets",
    [
        pytest.param([*range(1, 31), 40, 59, 60, 61, 99, 160, 200], id="quick"),
        pytest.param(range(1, 201), id="all", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("unit", [1, 3])
@pytest.mark.parametrize("name", schedules.NAMES)
def test_every_budget_is_right_or_refused(name, unit, budgets):
    """Budgets from 1 to 200 epochs: the rates are those of the definition, and networks are collected at the lowest."""
    refused = 0
    for num_epochs in budgets:
        warmups = {0, 5, num_epochs // 2 + 1, num_epochs * 3 // 4, num_epochs - 1}
        for warmup, m in itertools.product(sorted(warmups), [1, 2, 5] if name != "cosine" else [0]):
            options = {"warmup_epochs": warmup, "num_epochs": num_epochs, "num_networks": m, "unit": unit}
            if message := refusal(schedules.make_schedule, name, LR, **options):
                assert re.search("too few|leave no room|must leave something", message)
                refused += 1
            if m:  # What says when to collect refuses the same.
                found = refusal(schedules.collection_epochs, name, warmup, num_epochs, m, unit)
                assert bool(found) == bool(message), (warmup, num_epochs, m, found, message)
            if message:
                continue
            schedule = schedules.make_schedule(name, LR, **options)
            collected = schedules.collection_epochs(name, warmup, num_epochs, m, unit) if m else ()
            padded = jnp.arange(200 * unit)  # One shape for all budgets, so that jax compiles once.
            rates = np.broadcast_to(schedule(padded), padded.shape)[: num_epochs * unit]
            expected = defined(name, warmup, num_epochs, m, unit, collected)
            np.testing.assert_allclose(rates, expected, rtol=2e-5, atol=1e-7, err_msg=f"{warmup} {num_epochs} {m}")
            assert rates.max() <= LR * 1.0001
            if unit > 1 or name == "swa_constant":
                continue
            lowest = {"fast_geometric": LR / 200}.get(name, 0.0)
            for epoch in collected if num_epochs - warmup > 1 else ():
                assert rates[epoch - 1] == pytest.approx(lowest, abs=1e-7)
    assert refused < 2000


@pytest.mark.parametrize(
    ("name", "warmup", "num_epochs", "m", "message"),
    [
        ("swa_constant", 18, 20, 1, "leave no room for swa_constant. Train longer, or warm up for 0 to 17 epochs"),
        ("swa_cyclic", 16, 20, 1, "warm up for 0 to 15 epochs"),
        ("fast_geometric", 16, 20, 1, "warm up for 0 to 15 epochs"),
        ("snapshot", 20, 20, 1, "warm up for 0 to 19 epochs"),
        ("snapshot", 5, 9, 4, "a cycle needs an epoch with a higher rate before the epoch with its lowest rate"),
        ("swa_cyclic", 5, 12, 4, "with one rate per epoch"),
    ],
)
def test_what_has_no_room_is_refused(name, warmup, num_epochs, m, message):
    with pytest.raises(ValueError, match=message):
        schedules.collection_epochs(name, warmup, num_epochs, m)


def test_the_longest_warmup_of_swa_ends_where_the_decay_begins():
    """The rate does not jump when the warm-up ends after half of the run."""
    schedule = schedules.make_schedule("swa_constant", 0.1, warmup_epochs=15, num_epochs=20, num_networks=2)
    rates = [float(schedule(t)) for t in range(20)]
    np.testing.assert_allclose(rates[:15], [0.1 * (t + 1) / 15 for t in range(15)], rtol=1e-6)
    np.testing.assert_allclose(rates[15:], [0.1, 0.05 + 0.05 * 2 / 3, 0.05 + 0.05 / 3, 0.05, 0.05], rtol=1e-5)
