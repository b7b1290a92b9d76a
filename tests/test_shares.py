"""Endpoints divided among devices: the numbers of devices that hold all, less memory, one network on the wire."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import jsubspace
from experiments.lib.collectives import collectives
from jsubspace import Curve, Line, Point, Simplex, runs, shares
from jsubspace.algorithm import random_gradient
from jsubspace.network import Network
from jsubspace.objectives import Objective
from jsubspace.runs import build, stacks
from jsubspace.shares import WHOLE, Shares
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.training import averages, optim
from jsubspace.training.parallel import AXIS, DataParallel
from jsubspace.training.train_state import init_train_state
from jsubspace.training.train_step import make_train_step, task_loss

CLASSES = 3  # which no number of devices divides: the classifier's bias is kept whole


def apply_fn(point, images, key):
    hidden = jnp.tanh(images.reshape(len(images), -1) @ point["hidden"]["kernel"][0, 0] + point["hidden"]["bias"])
    return hidden @ point["head"]["kernel"] + point["head"]["bias"]


def init_fn(key):
    kernel, head = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(kernel, (1, 1, 16, 8)) / 4, "bias": jnp.zeros(8)},
        "head": {"kernel": jax.random.normal(head, (8, CLASSES)) / 3, "bias": jnp.zeros(CLASSES)},
    }


def batches(count, size=16):
    rng = np.random.default_rng(0)
    for _ in range(count):
        image, label = rng.normal(size=(size, 4, 4, 1)), rng.integers(CLASSES, size=size).astype(np.int32)
        yield image, label


def start(subspace, optimizer):
    return init_train_state(jsubspace.init_endpoints(jax.random.key(0), init_fn, subspace.num_endpoints), optimizer)


@functools.cache
def start_on_host(subspace, optimizer, x64):
    return jax.device_get(jax.jit(lambda: start(subspace, optimizer))())


SGD = optim.sgd(0.1, 0.9, 1e-3)


def train(subspace, count, divided, state=None, steps=3, optimizer=SGD, **settings):
    """State and report after some steps on so many devices."""
    x64 = jax.config.jax_enable_x64
    compiled, like, devices = shared_step(subspace, count, divided, optimizer, x64, tuple(settings.items()))
    state = start_on_host(subspace, optimizer, x64) if state is None else state
    shardings = devices.shardings_of(like) if divided else None
    state, key = devices.put(jax.tree.map(np.asarray, state), shardings), devices.put(jax.random.key(7))
    for batch in devices.put_batches(batches(steps), parts=settings.get("num_samples", 1)):
        state, info = compiled(state, batch, key)
    return state, info


def compiled_step(subspace, count, divided, optimizer=SGD, **settings):
    """A step that is ready to run, and its start."""
    devices = DataParallel(tuple(jax.devices()[:count]))
    state = jax.eval_shape(lambda: start(subspace, optimizer))
    axes = shares.axes_of(state.endpoints, count) if divided else None
    network = Network(init_fn, lambda point, images, key, train: apply_fn(point, images, key))
    loss_fn, objective = task_loss(network, jsubspace.Classification()), Objective(**settings)
    step = make_train_step(loss_fn, lambda key, *batch: batch, subspace, optimizer, objective, Shares(AXIS, axes))
    return step.compiled(devices, devices.shardings_of(state) if divided else None), state, devices


@functools.cache
def shared_step(subspace, count, divided, optimizer, x64, settings):
    """A step that several tests run."""
    return compiled_step(subspace, count, divided, optimizer, **dict(settings))


def close(a, b, rtol=1e-11, atol=1e-13):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


@pytest.mark.parametrize(
    ("subspace", "settings"),
    [
        (Point(), {}),
        (Line(), {}),
        pytest.param(Curve(), {"layerwise": True}, marks=pytest.mark.slow),
        (Simplex(4), {"mask": jsubspace.all_leaves}),
        (Simplex(3), {"all_pairs": True, "num_samples": 2}),
        (Line(), {"num_samples": 4, "layerwise": True}),
    ],
    ids=["standard", "line", "curve, layerwise", "simplex, all leaves", "simplex, all pairs", "line, four samples"],
)
def test_divided_endpoints_give_the_numbers_of_whole_ones(subspace, settings, x64):
    whole, info = train(subspace, 4, divided=False, **settings)
    divided, info_of_divided = train(subspace, 4, divided=True, **settings)
    close(divided, whole)
    close(info_of_divided, info)
    if subspace == Line():
        one, _ = train(subspace, 1, divided=True, **settings)
        close(one, whole)


def clip(grad):
    transform = optax.clip_by_global_norm(0.05)  # All gradients are longer.
    return transform.update(grad, transform.init(grad))[0]


OPTIMIZERS = {
    "AdamW, clipped at the point": (optim.adamw(0.01, 0.9, 0.1), {"at_point": clip}),
    "Muon": (optim.muon(0.01, 0.9, 0.1), {}),
    "norms of every leaf": (jsubspace.per_endpoint(optax.lamb(0.01)), {}),
    "an average of accumulated updates": (
        averages.averaged(optax.MultiSteps(SGD, 2).gradient_transformation(), 0.9),
        {},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_sees_whole_leaves_wherever_their_shares_are(name, x64):
    optimizer, settings = OPTIMIZERS[name]
    one, divided = (train(Line(), count, count == 8, optimizer=optimizer, **settings)[0] for count in (1, 8))
    before = start_on_host(Line(), optimizer, True)
    moved = jax.tree.map(lambda new, old: np.max(np.abs(np.asarray(new) - old)), one.endpoints, before.endpoints)
    assert min(jax.tree.leaves(moved)) > 1e-4
    close(divided, one, rtol=1e-7, atol=1e-10)
    lengths = jax.tree.map(lambda leaf: leaf.size // leaf.addressable_shards[0].data.size, divided)
    assert (
        lengths.endpoints
        == averages.trained(lengths)
        == {"hidden": {"kernel": 8, "bias": 8}, "head": {"kernel": 8, "bias": 1}}
    )


def test_a_device_holds_its_share_and_the_state_keeps_its_place():
    state, _ = train(Simplex(6), 8, divided=True)
    trace = state.opt_state[1][0].trace
    for tree in (state.endpoints, trace):
        sizes = jax.tree.map(lambda leaf: leaf.size / leaf.addressable_shards[0].data.size, tree)
        assert sizes == {"hidden": {"kernel": 8, "bias": 8}, "head": {"kernel": 8, "bias": 1}}
    assert shares.kept_whole(state.endpoints, 8) == {"['head']['bias']": 6 * CLASSES}


@pytest.mark.parametrize(
    ("subspace", "settings", "networks"),
    [
        (Point(), {}, 1),
        (Line(), {}, 1),
        (Simplex(6), {}, 1),
        pytest.param(Curve(), {"layerwise": True}, 1, marks=pytest.mark.slow),
        (Line(), {"num_samples": 4}, 2),
    ],
    ids=str,
)
def test_one_network_is_gathered_and_one_gradient_scattered(subspace, settings, networks):
    """And the scalars, the leaf that is kept whole and the Gram matrix are added up."""
    compiled, state, _ = compiled_step(subspace, 4, divided=True, **settings)
    batch = (jax.ShapeDtypeStruct((4, 4, 4, 4, 1), np.float32), jax.ShapeDtypeStruct((4, 4), np.int32))
    numbers = dict.fromkeys(("all-gather", "reduce-scatter", "all-reduce"), 0)
    for collective in collectives(
        compiled.lower(state, batch, jax.eval_shape(lambda: jax.random.key(7))).compile().as_text()
    ):
        numbers[collective.kind] += collective.numbers
    one_network = 16 * 8 + 8 + 8 * CLASSES
    # What is gathered for a map over samples is gathered in its loop, and counted once.
    assert numbers["all-gather"] == networks * one_network
    assert numbers["reduce-scatter"] == networks * one_network
    # The Gram matrix is added up a second time in a loop that does not turn for ordinary norms.
    loss_and_accuracy, gram = 2, 2 * 4 if subspace.num_endpoints > 1 else 0
    assert numbers["all-reduce"] <= networks * CLASSES + loss_and_accuracy + gram


def test_the_axis_that_is_divided():
    assert shares.divided_axis((3, 3, 16, 64), 8) == 2
    assert shares.divided_axis((7, 7, 3, 64), 8) == 3
    assert shares.divided_axis((8, 3, 3, 10), 8) == 0
    assert shares.divided_axis((64,), 8) == 0
    assert shares.divided_axis((64, 10), 8) == 0
    assert shares.divided_axis((7, 10), 8) == WHOLE
    assert shares.divided_axis((), 8) == WHOLE
    assert shares.divided_axis((0,), 8) == WHOLE
    assert shares.axes_of({"w": jnp.zeros((8, 5))}, 8) == {"w": WHOLE}  # never between the endpoints


@pytest.mark.parametrize(
    ("saved", "restored"),
    [
        ((4, True), (2, False)),
        ((2, False), (8, True)),
        pytest.param((8, True), (1, True), marks=pytest.mark.slow),
    ],
)
def test_checkpoints_move_between_modes_and_devices(saved, restored, tmp_path, x64):
    subspace, optimizer = Line(), SGD
    state, _ = train(subspace, *saved, steps=2)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 2, {})
    devices = DataParallel(tuple(jax.devices()[: restored[0]]))
    like = jax.eval_shape(lambda: start(subspace, optimizer))
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
        there, _ = checkpoints.restore(like, devices.shardings_of(like) if restored[1] else devices.replicated)
    jax.tree.map(np.testing.assert_array_equal, there, state)
    close(train(subspace, *restored, state=there)[0], train(subspace, *saved, state=state)[0])


def test_what_is_gathered_is_cast_first_and_norms_stay_as_they_are():
    """In bfloat16, the numbers are those of a network that casts its kernels itself."""

    def network(point, x):
        hidden = x @ point["kernel"].astype(jnp.bfloat16)
        return jnp.sum((hidden.astype(jnp.float32) * point["scale"]) ** 2)

    rng = np.random.default_rng(0)
    endpoints = {
        "kernel": jnp.asarray(rng.normal(size=(2, 8, 16)), jnp.float32),
        "scale": jnp.asarray(1 + np.arange(32.0).reshape(2, 16), jnp.float32),
    }
    x = jnp.asarray(rng.normal(size=(4, 8)).astype(jnp.bfloat16))
    key, axes = jax.random.key(2), shares.axes_of(endpoints, 4)
    mesh = Mesh(np.array(jax.devices()[:4]), (AXIS,))
    place = PartitionSpec(None, AXIS), PartitionSpec()
    specs = {"kernel": place[0], "scale": place[0]}

    def gradient(shares):
        grad_fn = random_gradient(network, Line(), Objective(), shares)
        return lambda key, endpoints, x: (lambda out: (out[0][0], out[1]))(grad_fn(key, endpoints, x))

    def run(shares, specs):
        step = jax.shard_map(
            gradient(shares), mesh=mesh, in_specs=(place[1], specs, PartitionSpec(AXIS)), out_specs=(place[1], specs),
            check_vma=False,
        )  # fmt: skip
        return jax.jit(step)(key, endpoints, x)

    whole = run(Shares(AXIS), place[1])
    cast = run(Shares(AXIS, axes, jnp.bfloat16), specs)
    close(cast, whole, rtol=2e-5, atol=1e-4)
    assert jax.tree.leaves(cast[1])[0].dtype == jnp.float32


def test_a_whole_run_in_either_mode(tiny_mlp, tmp_path, monkeypatch):
    """The same results; begun in one mode it goes on in the other. Evaluation sees whole endpoints."""
    tiny_mlp.optimizer.num_epochs = 2
    tiny_mlp.evaluation.every_epochs = 1
    expected = runs.train(tiny_mlp, tmp_path / "whole")
    tiny_mlp.shard_endpoints = True
    save = Checkpoints.save

    def save_and_stop(checkpoints, state, step, *rest):
        save(checkpoints, state, step, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        runs.train(tiny_mlp, tmp_path / "run")
    monkeypatch.setattr(Checkpoints, "save", save)
    tiny_mlp.shard_endpoints = False
    results = runs.train(tiny_mlp, tmp_path / "run")
    for row, expected_row in zip(results["points"], expected["points"], strict=True):
        assert row["nll"] == pytest.approx(expected_row["nll"], rel=1e-3)


def test_a_divided_start_is_never_whole_and_has_the_same_bits(tiny_mlp):
    tiny_mlp.num_devices = 8
    whole = stacks.init_state(build.build(tiny_mlp))
    tiny_mlp.shard_endpoints = True
    run = build.build(tiny_mlp)
    state = stacks.init_state(run)
    lies = jax.tree.map(
        lambda leaf, sharding: leaf.sharding.is_equivalent_to(sharding, leaf.ndim), state, run.shardings
    )
    assert all(jax.tree.leaves(lies))
    assert any(leaf.addressable_shards[0].data.size < leaf.size for leaf in jax.tree.leaves(state))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(state))


def test_collectives_are_read_from_a_program():
    """One in steps, as a TPU overlaps it with computation, counts once; an asynchronous one has its operand before it; groups may be axes."""
    program = """
  %g.1 = bf16[8,4]{1,0} all-gather(%p), replica_groups={{0,1}}, dimensions={0}, frontend_attributes={chain_id="0"}
  %g.2 = bf16[8,4]{1,0} all-gather(%q), replica_groups={{0,1}}, dimensions={0}, frontend_attributes={chain_id="0"}
  %g.3 = (f32[4]{0}, f32[8]{0}) all-gather-start(%r), replica_groups={{0,1}}, dimensions={0}
  %s = f32[4]{0} reduce-scatter(%t), replica_groups=[1,2]<=[2], dimensions={0}, to_apply=%add
  %s.2 = f32[4]{0} reduce-scatter(%t), replica_groups=mesh['host'=3, 'chip'=2] {'chip'}, dimensions={0}, to_apply=%add
  ROOT %a = (f32[3]{0}, f32[]) all-reduce(%u, %v), replica_groups={{0,1}}, to_apply=%add
"""
    found = collectives(program)
    assert [(c.kind, c.numbers, c.bytes) for c in found] == [
        ("all-gather", 32, 64), ("all-gather", 8, 32), ("reduce-scatter", 8, 32), ("reduce-scatter", 8, 32), ("all-reduce", 4, 16)
    ]  # fmt: skip
    assert sum(c.wire for c in found) == 64 + 32 + 32 + 32 + 2 * 16
