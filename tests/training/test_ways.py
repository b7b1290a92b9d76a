"""Three ways from one device to all: the collectives are the same, pmap and shard_map agree to the bit, and jit to 1e-6."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from whole_runs import StopAt, final_state, newest_state

import jsubspace
from experiments.lib.collectives import collectives
from jsubspace import runs
from jsubspace.errors import Preempted, UsageError
from jsubspace.evaluation.devices import SAME, SPLIT
from jsubspace.models import adapters
from jsubspace.objectives import Objective
from jsubspace.runs import build, limits
from jsubspace.runs.run import train_endpoints
from jsubspace.shares import Shares
from jsubspace.training import device_choice, parallel
from jsubspace.training.parallel import AXIS, JIT, PMAP, SHARD_MAP, WAYS
from jsubspace.training.train_state import init_train_state
from jsubspace.training.train_step import make_train_step, task_loss


class Normalised(nn.Module):
    """A dense network with a BatchNorm that averages over the devices."""

    axis_name: str | None = AXIS

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.relu(x))


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def trained(way, count):
    """The endpoints after a batch that four devices divide and one that they do not, and the program's text."""
    devices = device_choice.data_parallel({}, count, way)
    network = adapters.from_linen(Normalised(), jnp.zeros((1, 5)), momentum=0.9)
    network = network if devices.axis_name else network.on_one_device
    optimizer = optax.sgd(0.1, momentum=0.9)
    step = make_train_step(
        *(task_loss(network, jsubspace.Classification()), lambda key, *batch: batch, jsubspace.Line(), optimizer),
        *(Objective(beta=0.5), Shares(devices.axis_name)),
    ).whole
    compiled = devices.compile(step, (SAME, SPLIT, SAME), returns=(SAME, SAME), donate=(0,))

    def init():
        endpoints = jsubspace.init_endpoints(jax.random.key(0), network.init, jsubspace.Line())
        return init_train_state(endpoints, optimizer)

    state, key, rng = devices.run_once(init), devices.put(jax.random.key(7)), np.random.default_rng(0)
    batches = [(rng.normal(size=(n, 5)).astype(np.float32), rng.integers(3, size=n)) for n in (16, 13)]
    program = compiled.lower(state, next(devices.put_batches(batches)), key).compile().as_text()
    for batch in devices.put_batches(batches):
        state, info = compiled(state, batch, key)
    return jax.device_get((state.endpoints, info.loss)), collectives(program)


@pytest.fixture(scope="module")
def by_way():
    return {way: trained(way, 4) for way in WAYS}


def test_the_gradient_is_the_mean_over_devices(by_way):
    """It is not their sum: the endpoints are those of a single device, with the statistics of the whole batch."""
    alone, _ = trained(PMAP, 1)
    for found, _ in by_way.values():
        close(found, alone)


def test_pmap_and_shard_map_have_the_same_bits(by_way):
    equal(by_way[SHARD_MAP][0], by_way[PMAP][0])


def test_every_way_sends_one_gradient(by_way):
    """One network of floats is added up once, and not one for every endpoint. BatchNorm adds its few statistics."""
    n = sum(leaf[0].size for leaf in jax.tree.leaves(by_way[PMAP][0][0]))
    for way, (_, sent) in by_way.items():
        assert {found.kind for found in sent} == {"all-reduce"}, way
        assert n <= sum(found.numbers for found in sent) < 2 * n, way


def short(settings, way, **fields):
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs, settings.model.width = 1, 0, 16
    settings.optimizer.accumulate_steps, settings.steps_per_dispatch, settings.parallel = 2, 2, way
    settings.data.batch_size = 480  # two steps in one program, and the smaller batch in another
    return settings.update(fields) or settings


@pytest.mark.usefixtures("no_figures")
def test_runs_agree_with_their_evaluation(tiny_mlp, tmp_path):
    """With several steps in a program, accumulated gradients, resident examples, sharpness, and a last batch that is smaller."""
    results = {}
    for way in WAYS:
        settings = short(tiny_mlp, way)
        settings.evaluation.sharpness_batches = 1
        runs.train(settings, tmp_path / way)
        found = json.loads((tmp_path / way / "results.json").read_text())
        results[way] = {name: found[name] for name in ("points", "ensembles", "sharpness", "endpoints")}
    run = build.build(tiny_mlp)
    states = {way: newest_state(run, tmp_path / way) for way in WAYS}
    equal(states[SHARD_MAP], states[PMAP])
    close(states[JIT], states[PMAP])
    assert results[SHARD_MAP] == results[PMAP]
    numbers = {way: [leaf for leaf in jax.tree.leaves(results[way]) if type(leaf) is float] for way in WAYS}
    np.testing.assert_allclose(numbers[JIT], numbers[PMAP], rtol=1e-3)


@pytest.mark.slow
def test_divided_endpoints_agree_and_a_run_resumes_another_way(tiny_mlp, tmp_path):
    states = {}
    for way in WAYS:
        (tmp_path / way).mkdir()
        settings = short(tiny_mlp, way, shard_endpoints=True)
        if way == JIT:
            settings.parallel = SHARD_MAP
            with pytest.raises(Preempted):
                train_endpoints(build.build(settings), tmp_path / way, StopAt(1))
            settings.parallel = JIT
        train_endpoints(build.build(settings), tmp_path / way, StopAt(0))
        states[way] = final_state(tiny_mlp, tmp_path / way)
    equal(states[SHARD_MAP], states[PMAP])
    close(states[JIT], states[PMAP])


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [("subspace.num_samples", 2, "1 with config.parallel=jit"), ("model.sync_batch_norm", False, "True with config.p")],
)
def test_what_needs_parts_of_devices_is_refused_for_jit(tiny_config, field, value, expected):
    group, _, name = field.partition(".")
    tiny_config[group][name] = value
    for way in (PMAP, SHARD_MAP):
        tiny_config.parallel = way
        limits.validate(tiny_config)
    tiny_config.parallel = JIT
    with pytest.raises(UsageError, match=rf"config\.{field} is {value}\. It must be {expected}"):
        limits.validate(tiny_config)


def test_a_batch_of_one_program_is_whole_and_lies_divided():
    devices = device_choice.data_parallel({}, 4, JIT)
    assert isinstance(devices, parallel.Partitioned)
    divides, other = devices.put_batches([np.arange(8), np.arange(6)])
    np.testing.assert_array_equal(divides, np.arange(8))
    np.testing.assert_array_equal(other, np.tile(np.arange(6), 4))
    rows = devices.put_rows([np.arange(16).reshape(8, 2)] * 3)
    assert rows.shape == (3, 8, 2)
    assert {shard.data.shape for shard in rows.addressable_shards} == {(3, 2, 2)}
