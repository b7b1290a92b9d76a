"""The command that merges networks in files, on files that other programs wrote."""

import json
import sys

import flax.linen as nn
import flax.nnx as nnx
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import own_problems
import pytest
import safetensors.flax
import safetensors.numpy

import jsubspace
from jsubspace import merge
from jsubspace.errors import UsageError

SHARED = np.random.default_rng(0).normal(size=(40, 30))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Dense(5, name="first")(x)))


@pytest.fixture(scope="module")
def networks():
    """Three networks of linen, near to each other."""
    start = Linen().init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    return [jax.tree.map(lambda leaf, i=i: leaf + 0.1 * i * jnp.cos(leaf), start) for i in range(3)]


def mean(networks, weights):
    return jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *networks)


def close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


@pytest.fixture
def run(monkeypatch, capsys):
    def give(*words):
        monkeypatch.setattr(sys, "argv", ["merge", *map(str, words)])
        merge.main()
        return capsys.readouterr().out

    return give


def test_files_of_flax_and_orbax_are_merged(run, networks, tmp_path):
    """Dots in the names, as safetensors.flax writes them, and folders of Orbax for the same networks."""
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file, network in zip(files, networks, strict=True):
        safetensors.flax.save_file(flax.traverse_util.flatten_dict(network, sep="."), file)
    said = run("uniform", *files, f"--to={tmp_path / 'm.safetensors'}")
    assert "is the average of 3 networks with the weights 0.333, 0.333, 0.333." in said
    held = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert set(held) == {"first.kernel", "first.bias", "Dense_0.kernel", "Dense_0.bias"}
    close(jsubspace.load(tmp_path / "m.safetensors", like=networks[0]), mean(networks, [1 / 3] * 3))

    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step, network in zip((100, 200, 400), networks, strict=True):
            state = {"params": network, "batch_stats": {"mean": jnp.ones(2)}, "step": step}
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    said = run("average", tmp_path / "run", "--schedule=linear", f"--to={tmp_path / 'folder'}")
    weights = jsubspace.checkpoint_weights("linear", [100, 200, 400])
    assert "BatchNorm statistics are left out" in said
    close(jsubspace.load(tmp_path / "folder", like=networks[0]), mean(networks, weights))
    facts = json.loads((tmp_path / "folder" / "facts.json").read_text())
    assert facts["weights"] == pytest.approx(list(weights))
    run("average", tmp_path / "run", "--schedule=ema", "--decay=0.5", f"--to={tmp_path / 'ema.safetensors'}")
    close(jsubspace.load(tmp_path / "ema.safetensors", like=networks[0]), mean(networks, [0.25, 0.25, 0.5]))


def test_a_state_of_nnx_in_orbax(run, tmp_path):
    models = [nnx.Linear(4, 3, rngs=nnx.Rngs(i)) for i in range(2)]
    for i, model in enumerate(models):
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / str(i), {"params": nnx.state(model), "step": i})
    run("uniform", tmp_path / "0", tmp_path / "1", f"--to={tmp_path / 'm'}")
    found = jsubspace.load(tmp_path / "m", like=nnx.state(models[0]))
    close(found, mean([nnx.state(model) for model in models], [0.5, 0.5]))


def test_names_and_metadata_of_transformers_stay(run, tmp_path):
    """Shards with an index, in bfloat16, and a tied table that is stored once."""
    names = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"]
    for k in range(2):
        folder = tmp_path / str(k)
        folder.mkdir()
        rng = np.random.default_rng(k)
        arrays = {name: (SHARED + 0.1 * rng.normal(size=(40, 30))).astype(jnp.bfloat16) for name in names}
        safetensors.numpy.save_file({n: arrays[n] for n in names[:2]}, folder / "model-1.safetensors", {"format": "pt"})
        safetensors.numpy.save_file({n: arrays[n] for n in names[2:]}, folder / "model-2.safetensors", {"format": "pt"})
        where = {n: f"model-{1 + (n == names[2])}.safetensors" for n in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        safetensors.numpy.save_file(arrays, tmp_path / f"{k}.safetensors", {"format": "pt"})
    run("uniform", tmp_path / "0", tmp_path / "1", f"--to={tmp_path / 'a.safetensors'}")
    run("uniform", tmp_path / "0.safetensors", tmp_path / "1.safetensors", f"--to={tmp_path / 'b.safetensors'}")
    found = [safetensors.numpy.load_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    assert sorted(found[0]) == sorted(found[1]) == sorted(names)
    assert all(found[0][name].tobytes() == found[1][name].tobytes() for name in names)
    assert found[0][names[0]].dtype == jnp.bfloat16
    for name in ("a", "b"):
        with safetensors.safe_open(tmp_path / f"{name}.safetensors", "numpy") as file:
            assert file.metadata()["format"] == "pt"
            assert json.loads(file.metadata()["merge"])["weights"] == [0.5, 0.5]


def arrays_of(networks, folder):
    """The files of networks, with flat names."""
    files = [folder / f"{i}.safetensors" for i in range(len(networks))]
    for file, network in zip(files, networks, strict=True):
        jsubspace.save(file, network)
    return files


def test_stock_and_slerp_are_those_of_trees(run, networks, tmp_path):
    files = arrays_of([network | {"steps": np.arange(2)} for network in networks], tmp_path)
    for by in ("leaf", "whole"):
        axis = None if by == "whole" else by
        run("stock", *files[1:], f"--base={files[0]}", f"--by={by}", f"--to={tmp_path / f'stock {by}'}")
        expected = jsubspace.soup(None, networks[1:], how="stock", origin=networks[0], by=axis).network
        close(
            jsubspace.load(tmp_path / f"stock {by}", like=networks[0] | {"steps": np.arange(2)}),
            expected | {"steps": np.arange(2)},
        )
        said = run("slerp", *files[1:], "--alpha=0.25", f"--by={by}", f"--to={tmp_path / f'{by}.safetensors'}")
        assert "at alpha = 0.25 on the arc between" in said
        found = jsubspace.load(tmp_path / f"{by}.safetensors")
        assert found.pop("steps").tolist() == [0, 1]
        close(found, jax.device_get(jsubspace.merging.slerp(*networks[1:], 0.25, by=axis)))


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A user's file, and three networks of it: one random, and two that were trained with the closed form of the last layer."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.py").write_text(own_problems.FILE)
    get_config, get_problem = own_problems.of_file()
    problem = get_problem(get_config())
    start = problem.network.init(jax.random.key(0))
    x = np.linspace(-3, 3, 90, dtype=np.float32)[:, None]
    hidden = np.tanh(x @ start["hidden"]["kernel"] + start["hidden"]["bias"])
    made = [start]
    for rows in (slice(0, None, 2), slice(0, None, 3)):
        kernel = np.linalg.lstsq(hidden[rows], np.sin(x[rows]), rcond=None)[0].astype(np.float32)
        made.append(start | {"last": {"kernel": kernel}})
    return folder / "mine.py", arrays_of(made, folder), made


def test_weights_that_are_chosen_by_the_data_of_a_problem(run, mine, tmp_path):
    file, files, made = mine
    said = run("greedy", *files, f"--config={file}", f"--to={tmp_path / 'greedy.safetensors'}")
    assert f"{files[0]} is left out" in said
    found = jsubspace.load(tmp_path / "greedy.safetensors")
    kept = [network for path, network in zip(files, made, strict=True) if f"{path} is left out" not in said]
    close(found, jax.device_get(mean(kept, [1 / len(kept)] * len(kept))))
    run("fitted", *files, f"--config={file}", f"--to={tmp_path / 'fitted'}")
    facts = json.loads((tmp_path / "fitted" / "facts.json").read_text())
    weights = [facts["weights"][str(path)] for path in files]
    assert sum(weights) == pytest.approx(1)
    close(jsubspace.load(tmp_path / "fitted"), jax.device_get(mean(made, weights)))
    said = run("connected", *files[1:], f"--config={file}", f"--to={tmp_path / 'barriers.png'}")
    assert "connected" in said
    assert (tmp_path / "barriers.png").read_bytes()[:4] == b"\x89PNG"


def test_a_file_without_a_problem_is_refused(run, mine, tmp_path):
    _, files, _ = mine
    for text, message in [
        ("", r"empty.py must define get_config\(\) and get_problem"),
        ("def get_config(): 1 / 0\ndef get_problem(c): pass", "division by zero"),
        ("def get_config(): return 3\ndef get_problem(c): pass", "must start from jsubspace.training.default_settings"),
    ]:
        (tmp_path / "empty.py").write_text(text)
        with pytest.raises(UsageError, match=message):
            run("greedy", *files, f"--config={tmp_path / 'empty.py'}", f"--to={tmp_path / 'm.safetensors'}")
    with pytest.raises(UsageError, match="which problem"):
        run("connected", *files)
    other = tmp_path / "other.safetensors"
    jsubspace.save(other, {"w": np.ones(2, np.float32)})
    with pytest.raises(UsageError, match=r"other.safetensors is not the network of like"):
        run("connected", files[0], other, f"--config={mine[0]}")


def test_what_is_wrong_is_one_message_and_nothing_is_written(networks, tmp_path):
    a, b = arrays_of(networks[:2], tmp_path)
    to = tmp_path / "m.safetensors"
    for call, message in [
        (lambda: merge.averaged([a], to), "0.safetensors is one network, and there is nothing to merge it with"),
        (lambda: merge.averaged([a, a], to), "is given twice"),
        (lambda: merge.averaged([a, b], a), "0.safetensors exists. Choose another name"),
        (lambda: merge.averaged([a, b], tmp_path / "m.bin"), "neither a safetensors file"),
        (lambda: merge.averaged([a, b], to, "ema"), "decay is None"),
        (lambda: merge.averaged([a, b], to, part="ema"), "has no part 'ema'"),
        (lambda: merge.averaged([a, tmp_path / "none"], to), "none does not exist"),
        (lambda: merge.slerp([a, b], to, alpha=2), "alpha is 2, but it must be a number from 0 to 1"),
        (lambda: merge.slerp([a, b], to, by="word"), "word"),
        (lambda: merge.stock([a, b], a, to), "0.safetensors is the base and one of the networks"),
    ]:
        with pytest.raises(UsageError, match=message):
            call()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]
