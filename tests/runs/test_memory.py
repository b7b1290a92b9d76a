"""The estimate of a run's memory: against arrays that exist, against the compiler's own count, and what it refuses."""

import logging

import jax
import numpy as np
import pytest

from jsubspace import machine, runs
from jsubspace.errors import UsageError
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, build, feeding, memory, results
from jsubspace.storage import folders

KINDS = {
    "line": {},
    "curve": {"subspace.name": "curve"},
    "fixed ends": {"subspace.name": "curve", "subspace.fixed_ends": True},
    "simplex": {"subspace.name": "simplex", "subspace.num_endpoints": 4, "optimizer.momentum": 0.0},
    "point": {"subspace.name": "point"},
    "sharpness-aware": {"subspace.name": "point", "optimizer.sam_rho": 0.1},
}


def with_fields(settings, fields):
    for name, value in fields.items():
        group, _, field = name.rpartition(".")
        (settings[group] if group else settings)[field] = value
    return settings


def parts_of(stage):
    return {part.name: part.size for part in stage.parts}


def bytes_on(device, tree):
    """The bytes of arrays that lie on one device."""
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == device)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_takes_what_was_estimated(kind, sharded, tiny_mlp):
    settings = with_fields(tiny_mlp, KINDS[kind] | {"num_devices": 4, "shard_endpoints": sharded})
    run = build.build(settings)
    state = run.devices.put(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(run.init_state)), run.shardings
    )
    train, read, *_ = memory.estimate(run).device
    for device in run.devices.devices:
        assert parts_of(train)["endpoints"] == bytes_on(device, state.endpoints)
        assert parts_of(train)["optimizer"] == bytes_on(device, state.opt_state)
    whole = run.devices.put(state)
    assert read.size == bytes_on(run.devices.devices[0], whole)
    assert parts_of(train)["one network at the point"] * run.subspace.num_endpoints == bytes_on(
        run.devices.devices[0], whole.endpoints
    )


@pytest.mark.parametrize("sharded", [False, True])
def test_the_compiler_counts_the_same_arguments(sharded, tiny_mlp):
    run = build.build(with_fields(tiny_mlp, {"num_devices": 4, "shard_endpoints": sharded}))
    (batch,) = run.devices.put_batches([next(run.problem.data.train_batches(0, run.shard))])
    state = jax.eval_shape(run.init_state)
    compiled = run.compiled_step().lower(state, batch, jax.eval_shape(lambda: run.key)).compile()
    parts = parts_of(memory.estimate(run).device[0])
    step, key = state.step.dtype.itemsize, 2 * 4
    expected = parts["endpoints"] + parts["optimizer"] + parts["a batch"] + step + key
    assert compiled.memory_analysis().argument_size_in_bytes == expected

    examples = run.devices.put(run.problem.data.resident.arrays)
    assert parts["training examples"] == bytes_on(run.devices.devices[0], examples)


@pytest.mark.parametrize("network", ["mlp", "cresnet"])
def test_evaluation_takes_what_was_estimated(network, tiny_config):
    fields = {"evaluation.num_stats_batches": 1, "evaluation.random_points": "random, layerwise", "num_devices": 1}
    fields |= {"model.name": "mlp", "model.depth": 1} if network == "mlp" else {"model.width": 1}
    run = build.build(with_fields(tiny_config, fields | {"evaluation.num_random_points": 2}))
    plan = results.plan_of(run)
    evaluator = adapters.evaluator(run, Classification(), plan)
    rows = evaluator.rows(run.devices.run_once(run.init_state).endpoints, run.evaluated, run.evaluation_key)
    stats = adapters.batch_stats(run, evaluator, rows)
    estimate = memory.estimate(run)
    parts = parts_of(estimate.device[-1])
    nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(rows))
    assert parts["endpoints and networks that are drawn"] == nbytes
    nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(stats)) + plan.weights.nbytes
    assert parts["weights and statistics of the points"] == nbytes
    outcomes = adapters.on_test_data(run, evaluator, rows, stats)
    assert parts_of(estimate.host[0])["scores per example"] == sum(leaf.nbytes for leaf in jax.tree.leaves(outcomes))
    images = [
        run.problem.pipeline.train.images,
        run.problem.pipeline.train.labels,
        run.problem.pipeline.test.images,
        run.problem.pipeline.test.labels,
    ]
    assert parts_of(estimate.host[0])["images"] == sum(array.nbytes for array in images)


TOO_MUCH = [
    ({"model.width": 2**16, "model.depth": 100}, "to train", ["model.width", "shard_endpoints"]),
    (
        {"subspace.name": "simplex", "subspace.num_endpoints": 100, "model.width": 2**14},
        "to evaluate",
        ["num_endpoints"],
    ),
    ({"data.num_train": 1000, "data.batch_size": 1000, "evaluation.batch_size": 2**20}, "to evaluate", ["batch_size"]),
    ({"evaluation.num_points": 2001, "evaluation.batch_size": 2**14}, "to evaluate", ["evaluation.num_points"]),
    ({"evaluation.num_resamples": 10**6}, "to score", ["evaluation.num_resamples"]),
    ({"evaluation.num_bins": 10_000, "evaluation.num_points": 2001}, "to score", ["evaluation.num_bins"]),
    ({"evaluation.sharpness_batches": 10**7}, "to measure the sharpness", ["evaluation.sharpness_batches"]),
    (
        {"subspace.name": "simplex", "subspace.num_endpoints": 3, "evaluation.plane_points": 1000},
        "to evaluate the plane",
        ["evaluation.plane_points"],
    ),
]


@pytest.mark.parametrize(("fields", "verb", "named"), TOO_MUCH)
def test_what_no_machine_can_hold_is_refused_before_the_folder(fields, verb, named, tiny_mlp, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 200_000_000)
    monkeypatch.setattr(folders, "make_folder", lambda folder: pytest.fail("the run begins"))
    with pytest.raises(UsageError, match=r"needs at least .* but the machine has 200 MB:\n") as error:
        runs.train(with_fields(tiny_mlp, {"num_devices": 1} | fields), tmp_path / "run")
    assert str(error.value).startswith(verb)
    for name in named:
        assert name in str(error.value).splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_device_that_says_what_it_has_is_compared_alone(tiny_mlp, monkeypatch, caplog):
    run = build.build(with_fields(tiny_mlp, {"num_devices": 4}))
    monkeypatch.setattr(
        feeding, "resident", lambda run: None
    )  # A device of this size would have no place for examples.
    needed = max(stage.size for stage in memory.estimate(run).device)
    monkeypatch.setattr(machine, "of_accelerator", lambda device: needed)
    with caplog.at_level(logging.INFO, "jsubspace"):
        memory.check(run)
    devices, host = [record.getMessage() for record in caplog.records if "memory on" in record.getMessage()]
    assert devices.startswith("memory on each of 4 devices, at least and without activations: ")
    assert f"A device has {memory.readable(needed)}." in devices
    assert "to score" in host
    monkeypatch.setattr(machine, "of_accelerator", lambda device: needed - 1)
    with pytest.raises(UsageError, match="on each device, without activations, but a device has"):
        memory.check(run)


def test_where_nobody_knows_the_memory_nothing_is_refused(tiny_mlp, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: None)
    memory.check(build.build(with_fields(tiny_mlp, {"model.width": 2**16, "model.depth": 100})))


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    whole = machine.memory()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_LIMITS", (str(limit), str(tmp_path / "nothing")))
    for text, expected in (("123\n", 123), ("max\n", whole), ("", whole), ("²", whole)):
        limit.write_text(text)
        if expected is not whole:
            assert machine.memory() == expected
        else:
            assert machine.memory() >= whole


def test_a_batch_larger_than_the_data_is_refused(tiny_mlp, tmp_path):
    for fields in ({"data.batch_size": 2048}, {"data.num_train": 100}):
        with pytest.raises(UsageError, match=r"config.data.batch_size is \d+, but there are \d+ training images"):
            runs.train(with_fields(tiny_mlp, fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
