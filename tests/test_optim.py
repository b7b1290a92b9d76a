"""The optimizer against its formulas, written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsubspace import optim, schedules


def authors_schedule(epoch, lr=0.1, warmup=5, total=160):
    if epoch < warmup:
        return lr * (epoch + 1) / warmup
    return lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (total - warmup)))


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


def test_sgd_couples_decay_with_momentum():
    optimizer = optim.sgd(lambda step: 0.1 / (step + 1), momentum=0.9, weight_decay=0.01)
    weights, velocity = np.array([1.0, -2.0]), np.zeros(2)
    params = {"w": jnp.asarray(weights)}
    state = optimizer.init(params)
    for step in range(4):
        gradient = np.array([0.3, 0.1 * step])
        velocity = 0.9 * velocity + gradient + 0.01 * weights
        weights = weights - 0.1 / (step + 1) * velocity
        updates, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    np.testing.assert_allclose(params["w"], weights, rtol=1e-5)
