"""Checkpoints of other programs' runs are averaged leaf by leaf, and what does not belong together is one message."""

import dataclasses
import gc
import json
import tracemalloc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.exchange import averages, leaf_files, state_parts, step_folders

STEPS = (5, 10, 100)
WEIGHTS = np.array([0.5, -0.25, 0.75])
COMMON = np.random.default_rng(0).normal(size=(40, 30))


def network(step):
    rng = np.random.default_rng(step)
    return {
        "blocks": [{"kernel": (COMMON + rng.normal(size=(40, 30))).astype(np.float32)} for _ in range(2)],
        "last": {"bias": jnp.asarray(rng.normal(size=30), jnp.bfloat16)},
        "positions": np.arange(3, dtype=np.int32),
    }


def flat(step):
    found = network(step)
    return {
        "model.layers.0.weight": found["blocks"][0]["kernel"], "model.layers.1.weight": found["blocks"][1]["kernel"],
        "model.norm.bias": np.asarray(found["last"]["bias"]), "model.position_ids": found["positions"],
    }  # fmt: skip


def expected():
    """In float64, rounded once to the dtype of each leaf."""
    leaves = zip(*[jax.tree.leaves(network(step)) for step in STEPS], strict=True)
    made = []
    for of_steps in leaves:
        total = np.tensordot(WEIGHTS, np.stack([np.asarray(leaf, np.float64) for leaf in of_steps]), 1)
        made.append(total.astype(of_steps[0].dtype))
    return made


def orbax_run(folder):
    with ocp.CheckpointManager(folder) as manager:
        for step in STEPS:
            params = jax.tree.map(jnp.asarray, network(step))
            adam = optax.adam(1e-3).init({"w": jnp.ones(3)})
            state = {"params": params, "opt_state": adam, "step": step, "batch_stats": {"mean": np.ones(2)}}
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    return folder


def composite_run(folder):
    with ocp.CheckpointManager(folder) as manager:
        for step in STEPS:
            parts = ocp.args.Composite(state=ocp.args.StandardSave(network(step)), data=ocp.args.JsonSave({"at": step}))
            manager.save(step, args=parts)
        manager.wait_until_finished()
    return folder


def trainer_run(folder):
    """As transformers writes: shards with an index, dots in the names, a state of the optimizer in another file."""
    for step in STEPS:
        inside = folder / f"checkpoint-{step}"
        inside.mkdir(parents=True)
        arrays, where = flat(step), {}
        for i, name in enumerate(arrays):
            where[name] = f"model-{i % 2}.safetensors"
        for shard in set(where.values()):
            held = {name: arrays[name] for name, place in where.items() if place == shard}
            safetensors.numpy.save_file(held, inside / shard, {"format": "pt"})
        (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        (inside / "optimizer.pt").write_bytes(b"")
    (folder / "logs").mkdir()
    return folder


def files_of_ours(folder):
    folder.mkdir()
    for step in STEPS:
        jsubspace.save(folder / f"step_{step:06}.safetensors", network(step))
    return folder


RUNS = {"Orbax": orbax_run, "Orbax with items": composite_run, "transformers": trainer_run, "ours": files_of_ours}


@pytest.mark.parametrize("name", RUNS)
def test_the_average_of_anybodys_run(name, tmp_path):
    folder = RUNS[name](tmp_path / "run")
    found = jsubspace.average_checkpoints(folder, WEIGHTS)
    assert [step.number for step in step_folders.steps(folder)] == list(STEPS)
    leaves = jax.tree.leaves(found)
    assert len(leaves) == 4
    for ours, theirs in zip(leaves, expected(), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        exact = 2e-6 if ours.dtype == np.float32 else 2e-2 if ours.dtype == jnp.bfloat16 else 0
        np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=exact, atol=exact)
    if name == "ours":
        assert jax.tree.structure(found) == jax.tree.structure(network(0))
    if name != "transformers":
        like = jsubspace.average_checkpoints(folder, WEIGHTS, like=network(0))
        assert [leaf.tobytes() for leaf in jax.tree.map(np.asarray, jax.tree.leaves(like))] == [
            leaf.tobytes() for leaf in leaves
        ]
    some = jsubspace.average_checkpoints([step.path for step in step_folders.steps(folder)][1:], [1.0, 0.0])
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(some)] == [
        np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(network(10))
    ]


def test_narrow_floats_are_added_in_float32(tmp_path):
    """Sixteen sixteenths, added in bfloat16, would lose the last bits."""
    for step in range(16):
        jsubspace.save(tmp_path / f"{step}.safetensors", {"w": jnp.full((2, 2), 1 + step / 128, jnp.bfloat16)})
    found = jsubspace.average_checkpoints(tmp_path, np.full(16, 1 / 16))
    exact = np.mean([float(jnp.bfloat16(1 + step / 128)) for step in range(16)])
    assert found["w"].dtype == jnp.bfloat16
    assert float(found["w"][0, 0]) == float(jnp.bfloat16(exact))


def test_memory_holds_the_result_and_two_leaves(tmp_path):
    size = 2**18  # one MiB
    for step in range(4):
        jsubspace.save(
            tmp_path / f"{step}.safetensors",
            {f"w{i}": np.full((2, size // 2), step + i, np.float32) for i in range(5)},
        )
    one = 4 * size
    gc.collect()
    tracemalloc.start()
    try:
        found = jsubspace.average_checkpoints(tmp_path, np.full(4, 1 / 4), unrelated=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 5
    assert 5 * one < peak < (5 + 2) * one + one // 2  # the chunks of `_CHUNK` numbers, and small things


def test_two_leaves_of_orbax_are_held_at_a_time(tmp_path):
    folder = composite_run(tmp_path / "run")
    alive, most = weakref.WeakSet(), [0]

    class Seen(np.ndarray):
        """An array that can be counted."""

    def watched(stored):
        return dataclasses.replace(stored, read=lambda names: map(counted, stored.read(names)))

    def counted(pair):
        one = pair[1].view(Seen)
        if one.dtype != np.int32:  # What is no float is a part of the result.
            alive.add(one)
        most[0] = max(most[0], len(alive))
        return pair[0], one

    Seen.__hash__ = object.__hash__
    stored = [watched(leaf_files.find(step.path)) for step in step_folders.steps(folder)]
    found = averages.average(stored, WEIGHTS)
    assert len(dict(found.read(list(found.shapes)))) == 4
    assert most[0] == 2


def changed(step, **leaves):
    return network(step) | leaves


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (changed(1, positions=np.arange(4, dtype=np.int32)), r"positions is int32\[4\] there and int32\[3\] here"),
        ({"blocks": network(1)["blocks"]}, "it has no last/bias"),
        (changed(1, more=np.ones(1)), "it has more, .* which the network lacks\nRename .* or give checkpoints of one network"),
        (changed(1, last={"bias": np.ones(30, np.float32)}), "last/bias is float32.* there and bfloat16"),
        (changed(1, last={"bias": np.ones(30, np.float16)}), "last/bias is float16"),
        (changed(1, positions=np.arange(1, 4, dtype=np.int32)), "positions is int32 and differs between .*a.safetensors and .*b.safetensors"),
        (changed(1, last={"bias": jnp.full(30, jnp.nan, jnp.bfloat16)}), "b.safetensors is not finite: the leaf last/bias"),
        (
            changed(1, blocks=[{"kernel": np.random.default_rng(i).normal(size=(40, 30)).astype(np.float32)} for i in (8, 9)]),
            "are not two states of one run: their kernels have the cosine",
        ),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(tmp_path, second, message):
    jsubspace.save(tmp_path / "a.safetensors", network(0))
    jsubspace.save(tmp_path / "b.safetensors", second)
    with pytest.raises(UsageError, match=message):
        jsubspace.average_checkpoints([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], [0.5, 0.5])
    if "cosine" in message:
        jsubspace.average_checkpoints(
            [tmp_path / "a.safetensors", tmp_path / "b.safetensors"], [0.5, 0.5], unrelated=True
        )


def test_a_narrower_dtype_is_refused_too(tmp_path):
    jsubspace.save(tmp_path / "a.safetensors", {"w": np.ones(2, np.float32)})
    jsubspace.save(tmp_path / "b.safetensors", {"w": np.ones(2, np.float16)})
    with pytest.raises(UsageError, match=r"w is float16 in .*b.safetensors and float32 in .*a.safetensors. Store"):
        jsubspace.average_checkpoints([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], [0.5, 0.5])


def test_wrong_arguments_are_one_message(tmp_path, monkeypatch):
    folder = files_of_ours(tmp_path / "run")
    paths = [step.path for step in step_folders.steps(folder)]
    (tmp_path / "none").mkdir()
    (tmp_path / "mixed").mkdir()
    for name in ("a-1", "b-2"):
        (tmp_path / "mixed" / name).mkdir()
    (tmp_path / "twice").mkdir()
    for name in ("01", "1"):
        (tmp_path / "twice" / name).mkdir()
    for checkpoints, weights, message in [
        (folder, [0.5, 0.5], "weights is 2 numbers with the sum 1, but there are 3 checkpoints"),
        (folder, [0.5, 0.5, 0.5], "weights is 3 numbers with the sum 1.5"),
        (folder, "uniform", "weights is 'uniform'"),
        ([paths[0], paths[0]], [0.5, 0.5], "step_000005.safetensors is given twice"),
        ([], [], "checkpoints is a list without leaves, but it must be a list of files"),
        (tmp_path / "none", [1], "none has no checkpoints. A checkpoint is a folder"),
        (tmp_path / "mixed", [1], "of several kinds, with the words 'a', 'b' before their steps"),
        (tmp_path / "twice", [1], "two checkpoints of the step 1"),
    ]:
        with pytest.raises(UsageError, match=message):
            jsubspace.average_checkpoints(checkpoints, weights)
    with pytest.raises(UsageError, match=r"has no part 'ema'. Its parts are blocks, last, positions"):
        jsubspace.average_checkpoints(folder, WEIGHTS, part="ema")
    monkeypatch.setattr("jsubspace.machine.memory", lambda: 1000)
    with pytest.raises(UsageError, match=r"needs 0.0 GiB of memory, and this machine has"):
        jsubspace.average_checkpoints(folder, WEIGHTS)


def test_which_part_of_a_state_is_the_network(tmp_path):
    def parts(state, part=""):
        jsubspace.save(tmp_path / "s.safetensors", state)
        return sorted(state_parts.network_in(leaf_files.find(tmp_path / "s.safetensors"), part))

    w = {"w": np.ones(1)}
    assert parts({"params": w, "batch_stats": w}) == ["w"]
    assert parts({"params": w}) == ["params/w"]
    assert parts({"endpoints": w, "opt_state": w}) == ["w"]
    assert parts({"params": w, "ema": {"v": np.ones(1)}}, "ema") == ["v"]
    assert parts({"layers": w, "batch_stats": w}) == ["layers/w"]
    with pytest.raises(UsageError, match=r"holds the state of an optimizer .* Its parts are net, opt_state. Name"):
        parts({"net": w, "opt_state": w})
