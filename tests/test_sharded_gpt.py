"""A line of small GPTs, trained with plain jit on eight devices that each keep an eighth of all arrays."""

import collections
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_gpt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jsubspace
from experiments.lib.collectives import collectives

TEXT = (
    b"A line of networks is trained at the cost of one network. Every point of the line is accurate, and the midpoint is "
    b"the best. "
)
TOKENS = np.frombuffer(3 * TEXT, np.uint8).astype(np.int32)
STEPS, COMPARED, BATCH = 100, 4, 32
LINE = jsubspace.Line()


def windows(starts):
    return np.stack([TOKENS[start : start + small_gpt.LENGTH + 1] for start in starts])


def batch_of(step):
    return windows(np.random.default_rng(step).integers(len(TEXT), size=BATCH))


def entropy_of_a_table():
    """The loss in nats of a table of the bytes that follow each byte, counted in the same text: 1.19."""
    before, after = TOKENS[: len(TEXT)].tolist(), TOKENS[1 : len(TEXT) + 1].tolist()
    single, pairs = collections.Counter(before), collections.Counter(zip(before, after, strict=True))
    return -sum(count * math.log(count / single[first]) for (first, _), count in pairs.items()) / len(TEXT)


def init_fn(key):
    """In float64: Adam would divide the rounding of float32 by itself where a gradient is zero."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), small_gpt.init_fn(key))


def of_one_network():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-2, 5, STEPS)

    def decay_mask(network):
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, network)

    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1, mask=decay_mask))


def cut(mesh, tree):
    """Where the endpoints ``[m, *s]`` and the optimizer's state lie: the first axis of ``[*s]`` that fits is cut."""

    def sharding(leaf):
        axis = next((i for i in range(1, leaf.ndim) if leaf.shape[i] % mesh.size == 0), None)
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")
        return NamedSharding(mesh, spec)

    return jax.tree.map(sharding, tree)


GRADIENT = jsubspace.value_and_grad(small_gpt.loss_fn, LINE)


def on_eight_devices(endpoints):
    """A compiled step, its first state, and where this state and a batch lie."""
    optimizer = jsubspace.per_endpoint(of_one_network())
    mesh = Mesh(np.array(jax.devices()), ("data",))
    state = endpoints, jax.jit(optimizer.init)(endpoints)
    place, whole = cut(mesh, state), NamedSharding(mesh, PartitionSpec())
    examples = NamedSharding(mesh, PartitionSpec("data"))

    @functools.partial(jax.jit, out_shardings=(place, whole), donate_argnums=0)
    def step(state, key, tokens):
        endpoints, opt_state = state
        (_, info), grads = GRADIENT(key, endpoints, tokens)
        updates, opt_state = optimizer.update(grads, opt_state, endpoints)
        return (optax.apply_updates(endpoints, updates), opt_state), info.loss

    state = jax.device_put(state, place)
    compiled = step.lower(state, jax.random.key(0), jax.device_put(batch_of(0), examples)).compile()
    return compiled, state, place, examples


class Run(NamedTuple):
    """What the tests look at.

    Attributes:
      compiled: the step on eight devices.
      place: where its state lies.
      states: the state after some steps, by their number. All but the last are copies on the host.
      losses: the loss of every step.
      start: the endpoints before the first step.
    """

    compiled: Any
    place: Any
    states: dict[int, Any]
    losses: list[float]
    start: Any


@pytest.fixture(scope="module")
def run():
    """All steps with one compiled program, which refuses a state of another placement: nothing is compiled again."""
    with jax.enable_x64(True):
        start = jax.jit(lambda key: jsubspace.init_endpoints(key, init_fn, LINE))(jax.random.key(0))
        compiled, state, place, examples = on_eight_devices(start)
        states, losses = {}, []
        for i in range(STEPS):
            state, loss = compiled(state, jax.random.key(i), jax.device_put(batch_of(i), examples))
            losses.append(float(loss))  # This waits, because CPU devices of one process must not run two steps at once.
            if i + 1 == COMPARED:
                states[COMPARED] = jax.device_get(state)
        yield Run(compiled, place, {**states, STEPS: state}, losses, start)


def test_the_line_learns_more_than_a_table_of_pairs(run, x64):
    endpoints, _ = jax.device_get(run.states[STEPS])
    loss_at = jax.jit(
        lambda alpha: small_gpt.loss_fn(jsubspace.interpolate(endpoints, alpha), windows(range(len(TEXT))))
    )
    assert run.losses[0] > 4.5  # log 128 = 4.85
    assert max(float(loss_at(alpha)) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)) < entropy_of_a_table()
    assert float(jsubspace.cosine_squared(endpoints, 0, 1)) < 0.05


def test_every_network_is_updated_as_it_would_be_alone_on_one_device(run, x64):
    optimizer, gradient = of_one_network(), jax.jit(GRADIENT)

    @jax.jit
    def update(grads, state, network):
        updates, state = optimizer.update(grads, state, network)
        return optax.apply_updates(network, updates), state

    networks = jsubspace.unstack(run.start)
    states = [optimizer.init(network) for network in networks]
    for i in range(COMPARED):
        _, grads = gradient(jax.random.key(i), jsubspace.stack(networks), batch_of(i))
        for n, grad in enumerate(jsubspace.unstack(grads)):
            networks[n], states[n] = update(grad, states[n], networks[n])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    jax.tree.map(
        close,
        run.states[COMPARED],
        (jsubspace.stack(networks), jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)),
    )


def test_every_array_stays_where_it_was_put(run):
    state = run.states[STEPS]
    for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(run.place), strict=True):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert held < 1.01 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 8


def test_a_step_moves_one_network_and_one_gradient(run):
    """The optimizer sees shares and adds up norms. To gather its state would move four networks more."""
    network = sum(leaf[0].size for leaf in jax.tree.leaves(run.start))
    moved = collections.Counter()
    for collective in collectives(run.compiled.as_text()):
        moved["gathered" if collective.kind == "all-gather" else "reduced"] += collective.numbers
    assert moved["gathered"] < 1.2 * network
    assert moved["reduced"] < 1.2 * network
