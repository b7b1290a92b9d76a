"""A constant-rate run of the small GPT, its averaged checkpoints, and the runs with a rate that really decays."""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jsubspace
from jsubspace.examples import fitting, source_text
from jsubspace.examples.gpt import GPT
from jsubspace.merging import checkpoints
from jsubspace.merging.checkpoints import DECAYS
from jsubspace.types import Params

CONSTANT = "constant rate, last checkpoint"
DECAYED, REPLAYED, QUADRATIC = "decayed run", "replayed average", "average of the quadratic"

RATE = 4e-3
BATCH_SIZE = 16
CHUNK = 25
"""Steps between two checkpoints."""


def scales(num_steps: int, start: int, decay: str | None) -> np.ndarray:
    """The relative rate of every step, ``[num_steps]``: a warm-up, then 1, and the decay from the step ``start`` on.

    Step t of the decay has the mean relative rate of its interval of one step.
    """
    found = np.minimum(1.0, (np.arange(num_steps) + 1) / (num_steps // 20))
    if decay is not None:
        found[start:] = checkpoints.decay_rates(decay, num_steps - start + 1)
    return found


def runner(model: GPT) -> Callable[..., fitting.State]:
    """``(key, state, text, scales) -> state`` after `CHUNK` steps of AdamW with clipping, at `RATE` times the scale of each step."""

    def run(key: jax.Array, state: fitting.State, text: jax.Array, scales: jax.Array) -> fitting.State:
        transform = optimizer(lambda count: RATE * scales[count])
        draw = source_text.windows(BATCH_SIZE, model.shape.length)
        steps = fitting.steps(model.loss_fn, jsubspace.Point(), transform, draw, CHUNK)
        return steps(key, state, text)[0]

    return jax.jit(run)


def optimizer(rate: Callable[[Any], Any]) -> optax.GradientTransformation:
    """Clipping by the global norm and AdamW. Every part of an update is proportional to the rate."""

    def is_kernel(network: Params) -> Params:
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, network)

    adamw = optax.adamw(rate, weight_decay=0.1, mask=is_kernel)
    return jsubspace.per_endpoint(optax.chain(optax.clip_by_global_norm(1.0), adamw))


def networks(model: GPT, seed: int, num_steps: int, start: int, text: np.ndarray) -> dict[str, Params]:
    """The last network of the constant-rate run, its averages, and the ends of the decayed runs, by name.

    All runs share their first ``start`` steps, and the batch of every step.
    """
    run, text = runner(model), jnp.asarray(text)
    init_key, key = jax.random.split(jax.random.key(seed))
    begin = jsubspace.init_endpoints(init_key, model.init_fn, jsubspace.Point())
    state = fitting.start(begin, optimizer(lambda count: 0.0))
    constant = jnp.asarray(scales(num_steps, start, None), jnp.float32)
    for _ in range(start // CHUNK):
        state = run(key, state, text, constant)
    found: dict[str, Params] = {}
    like = jsubspace.midpoint(state.endpoints)
    with tempfile.TemporaryDirectory() as name:
        folder, later = pathlib.Path(name), state
        for step in range(start, num_steps + 1, CHUNK):
            found[CONSTANT] = jsubspace.midpoint(later.endpoints)
            jsubspace.save(folder / f"step-{step}.safetensors", found[CONSTANT])
            later = run(key, later, text, constant) if step < num_steps else later
        steps = range(start, num_steps + 1, CHUNK)
        for label, weights in averages(list(steps)).items():
            found[label] = jsubspace.average_checkpoints(folder, weights, like)
    for decay in DECAYS:
        later, decayed = state, jnp.asarray(scales(num_steps, start, decay), jnp.float32)
        for _ in range((num_steps - start) // CHUNK):
            later = run(key, later, text, decayed)
        found[f"{DECAYED}, {decay}"] = jsubspace.midpoint(later.endpoints)
    return found


def averages(steps: Sequence[int]) -> dict[str, np.ndarray]:
    """The weights of every average of the checkpoints of these steps, by its label."""
    found = {}
    for decay in DECAYS:
        rates = checkpoints.decay_rates(decay, steps)
        found[f"{REPLAYED}, {decay}"] = checkpoints.replay_weights(rates)
        found[f"{QUADRATIC}, {decay}"] = checkpoints.quadratic_weights(rates)
    found["uniform"] = checkpoints.checkpoint_weights("uniform", steps)
    found["ema, decay 0.8"] = checkpoints.checkpoint_weights("ema", steps, decay=0.8)
    return found


def on_a_noisy_quadratic(
    noise: float, num_steps: int = 200, curvatures: Sequence[float] = (0.02, 0.1, 0.5)
) -> dict[str, dict[str, float]]:
    """The expected losses sum_i h_i x_i^2 / 2 of gradient descent with noise at rate 1, of its averages and of decayed runs.

    Every coordinate starts at 1. Each step adds independent noise of this standard deviation to each coordinate of the gradient.
    Everything is linear in the start and in the noises, so the expectations are sums of squares of the answers to one start and to one
    noise each.
    """
    h = np.asarray(curvatures)[:, None]
    one_each = np.eye(num_steps + 1)

    def answers(scales: np.ndarray) -> np.ndarray:
        """The coordinates after every step, ``[num_steps + 1, coordinates, 1 + num_steps]``: of the start, and of every noise."""
        x = np.tile(one_each[0], (len(h), 1))
        states = [x]
        for scale, of_step in zip(scales, one_each[1:], strict=True):
            x = x - scale * (h * x + of_step)
            states.append(x)
        return np.stack(states)

    def loss(x: np.ndarray) -> float:
        return float((h[:, 0] * (x[:, 0] ** 2 + noise**2 * (x[:, 1:] ** 2).sum(-1))).sum() / 2)

    constant = answers(np.ones(num_steps))
    found = {}
    for decay in DECAYS:
        rates = checkpoints.decay_rates(decay, num_steps + 1)
        found[decay] = {
            CONSTANT: loss(constant[-1]),
            DECAYED: loss(answers(rates)[-1]),
            REPLAYED: loss(np.tensordot(checkpoints.replay_weights(rates), constant, 1)),
            QUADRATIC: loss(np.tensordot(checkpoints.quadratic_weights(rates), constant, 1)),
        }
    return found
