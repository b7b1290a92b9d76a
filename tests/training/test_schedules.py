"""Learning rates against their definitions, written out as a function of the epoch, and the epochs of the authors' checkpoints."""

import functools
import itertools
import math

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


def cyclic(t, ends):
    if t < ends[0]:
        return authors_schedule(t, total=ends[0])
    start, end = next((a, b) for a, b in itertools.pairwise(ends) if a <= t < b)
    return cosine(t, start, end, lr=0.05)


def constant(t):
    if t < 80:
        return authors_schedule(t) if t < 5 else 0.1
    return max(0.1 - 0.05 * (t - 80) / (144 - 80), 0.05)


def snapshots(t):
    bounds = [5, 30, 55, 80, 105, 130, 160]
    start, end = next(((a, b) for a, b in itertools.pairwise(bounds) if a <= t < b), (0, 0))
    return authors_schedule(t) if t < 5 else cosine(t, start, end)


def triangles(t, unit):
    """Down to 1/200 at every collected network, up to 1/2 halfway to the next."""
    if t < 120:
        return authors_schedule(t, total=120)
    minima = [123, 130, 138, 145, 152, 160]
    peaks = [(a * unit + b * unit) // 2 / unit for a, b in itertools.pairwise(minima)]
    knots = sorted([(120, 0.05), *((x, 0.0005) for x in minima), *((x, 0.05) for x in peaks)])
    return np.interp(t, *zip(*knots, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", authors_schedule),
        ("swa_cyclic", lambda t: cyclic(t, (120, 128, 136, 144, 152, 160))),
        ("swa_constant", constant),
        ("snapshot", snapshots),
        ("fast_geometric", None),
    ],
)
@pytest.mark.parametrize("unit", [1, 10])
def test_every_schedule_by_its_definition(name, expected, unit):
    schedule = schedules.make_schedule(name, 0.1, warmup_epochs=5, num_epochs=160, num_networks=6, unit=unit)
    if name == "fast_geometric":
        expected = functools.partial(triangles, unit=unit)
    epochs = [t for t in range(160) if unit == 1 or t >= 5]  # the warm-up counts from one, in whatever unit
    rates = [schedule(t * unit) for t in epochs]
    np.testing.assert_allclose(rates, [expected(t) for t in epochs], rtol=1e-4, atol=1e-7)


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
    rates = np.array([schedule(t) for t in range(3 * num_epochs)])
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
