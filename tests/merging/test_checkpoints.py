"""Weights of checkpoints: each is compared with the run that it stands for, step by step."""

import itertools
import json

import numpy as np
import pytest
from places import REPOSITORY
from scipy import integrate

import jsubspace
from experiments.lib import decayed
from jsubspace.errors import UsageError
from jsubspace.merging import checkpoints

RNG = np.random.default_rng(0)
SHAPES = {
    "linear": lambda s: 1 - s,
    "cosine": lambda s: (1 + np.cos(np.pi * s)) / 2,
    "1-sqrt": lambda s: 1 - np.sqrt(s),
}
RATES = {
    **{decay: checkpoints.decay_rates(decay, 21) for decay in SHAPES},
    "random": RNG.uniform(size=20),
    "no decay": np.ones(20),
    "stopped": np.zeros(20),
}


@pytest.mark.parametrize("name", RATES)
def test_the_average_is_the_replay_of_the_gradients_for_any_loss(name):
    """sin and noise make a loss that is far from a quadratic."""
    theta, states, updates = RNG.normal(size=7), [], []
    for _ in range(20):
        states.append(theta)
        updates.append(-0.3 * (np.cos(3 * theta) + theta**3 + RNG.normal(size=7)))
        theta = theta + updates[-1]
    states.append(theta)
    replayed = states[0] + RATES[name] @ np.stack(updates)
    found = checkpoints.replay_weights(RATES[name]) @ np.stack(states)
    np.testing.assert_allclose(found, replayed, rtol=0, atol=1e-12 * np.abs(states).max())


@pytest.mark.parametrize("name", RATES)
def test_the_average_is_the_decayed_run_on_a_quadratic_without_noise(name):
    root = RNG.normal(size=(7, 7))
    curvature = root @ root.T / 30
    theta = decaying = np.ones(7)
    states = [theta]
    for rate in RATES[name]:
        theta = theta - 0.5 * curvature @ theta
        decaying = decaying - rate * 0.5 * curvature @ decaying
        states.append(theta)
    found = checkpoints.quadratic_weights(RATES[name]) @ np.stack(states)
    np.testing.assert_allclose(found, decaying, rtol=0, atol=1e-9)
    other = checkpoints.replay_weights(RATES[name]) @ np.stack(states)
    is_trivial = name in ("no decay", "stopped")
    assert np.allclose(other, decaying, rtol=0, atol=1e-9) == is_trivial  # What the literature's weights are not.


@pytest.mark.parametrize("name", RATES)
def test_both_weights_have_the_sum_one_and_the_same_mean_time(name):
    rates = RATES[name]
    for weights in (checkpoints.replay_weights(rates), checkpoints.quadratic_weights(rates)):
        assert weights.shape == (21,)
        np.testing.assert_allclose([weights.sum(), weights @ np.arange(21)], [1, rates.sum()], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", SHAPES)
def test_rates_are_means_of_the_decay_over_unequal_intervals(decay):
    steps = [100, 130, 135, 190, 200]
    expected = [
        integrate.quad(lambda step: SHAPES[decay]((step - 100) / 100), a, b)[0] / (b - a)
        for a, b in itertools.pairwise(steps)
    ]
    np.testing.assert_allclose(checkpoints.decay_rates(decay, steps), expected, rtol=1e-7)
    np.testing.assert_allclose(checkpoints.decay_rates(decay, np.array(steps) * 3), expected, rtol=1e-7)


def test_ema_and_windows_are_their_recursions():
    states, ema = RNG.normal(size=(6, 3)), None
    for state in states:
        ema = state if ema is None else 0.7 * ema + 0.3 * state
    np.testing.assert_allclose(jsubspace.checkpoint_weights("ema", 6, decay=0.7) @ states, ema, rtol=1e-12)
    np.testing.assert_allclose(jsubspace.checkpoint_weights("uniform", 6) @ states, states.mean(0), rtol=1e-12)
    np.testing.assert_allclose(jsubspace.checkpoint_weights("last", 6, last=2) @ states, states[4:].mean(0), rtol=1e-12)
    linear = jsubspace.checkpoint_weights("linear", 6)
    np.testing.assert_allclose(linear, checkpoints.replay_weights(checkpoints.decay_rates("linear", 6)))


def test_noise_is_what_tells_the_two_averages_apart():
    """The recorded gaps on noisy quadratics, again. Simulated runs have these expectations."""
    recorded = json.loads((REPOSITORY / "experiments/results/checkpoints/checkpoints.json").read_text())["quadratics"]
    for noise, of_noise in recorded.items():
        found = decayed.on_a_noisy_quadratic(float(noise))
        for decay, losses in of_noise.items():
            assert found[decay] == pytest.approx(losses, rel=1e-9)
    silent, noisy = recorded["0.0"]["linear"], recorded["0.5"]["linear"]
    assert silent[decayed.QUADRATIC] == pytest.approx(silent[decayed.DECAYED], rel=1e-6)
    assert silent[decayed.DECAYED] < silent[decayed.REPLAYED]
    assert noisy[decayed.REPLAYED] < noisy[decayed.DECAYED] < noisy[decayed.QUADRATIC] < noisy[decayed.CONSTANT]
    h, noises, x = 0.1, 0.5 * np.random.default_rng(0).normal(size=(200, 20_000)), np.ones(20_000)
    for rate, noise in zip(checkpoints.decay_rates("linear", 201), noises, strict=True):
        x = x - rate * (h * x + noise)
    expected = decayed.on_a_noisy_quadratic(0.5, curvatures=[h])["linear"][decayed.DECAYED]
    assert h * np.mean(x**2) / 2 == pytest.approx(expected, rel=0.03)


def test_what_is_wrong_is_one_message():
    for call, message in [
        (lambda: jsubspace.checkpoint_weights("cubic", 3), "schedule is 'cubic', but it must be one of \"linear\""),
        (lambda: jsubspace.checkpoint_weights("linear", 1), "there is one checkpoint, and a decay needs two"),
        (lambda: jsubspace.checkpoint_weights("linear", [3, 2]), "must be finite, increasing numbers"),
        (lambda: jsubspace.checkpoint_weights("linear", "ab"), "steps is 'ab'"),
        (lambda: jsubspace.checkpoint_weights("linear", [[0, 10]]), "must be finite, increasing numbers"),
        (lambda: jsubspace.checkpoint_weights("linear", [0, 10, np.inf]), "must be finite, increasing numbers"),
        (lambda: jsubspace.checkpoint_weights("uniform", [np.nan]), "must be finite, increasing numbers"),
        (lambda: jsubspace.checkpoint_weights("linear", 3, decay=0.5), 'decay is 0.5, and schedule is "linear"'),
        (lambda: jsubspace.checkpoint_weights("ema", 3), 'decay is None, and schedule is "ema"'),
        (lambda: jsubspace.checkpoint_weights("ema", 3, decay=2), "decay is 2, but it must be a number from 0 to 1"),
        (lambda: jsubspace.checkpoint_weights("last", 3, last=4), "last is 4, but there are 3 checkpoints"),
        (lambda: checkpoints.replay_weights([0.5, 1.5]), "rates holds 0.5 to 1.5"),
        (lambda: checkpoints.quadratic_weights([]), "rates is"),
        (lambda: checkpoints.replay_weights([0.5, float("nan")]), "relative rates are numbers from 0 to 1"),
        (lambda: checkpoints.decay_rates("ema", 3), "decay is 'ema', but it must be one of linear, cosine, 1-sqrt"),
    ]:
        with pytest.raises(UsageError, match=message):
            call()
