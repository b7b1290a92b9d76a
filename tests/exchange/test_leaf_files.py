"""Networks of other programs are read array by array, and what does not fit is one message."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

from jsubspace.errors import UsageError
from jsubspace.exchange import leaf_files, matching, network_files

RNG = np.random.default_rng(0)
NETWORK = {
    "blocks": [{"kernel": RNG.normal(size=(2, 3)).astype(np.float32)}, {"kernel": RNG.normal(size=(3, 3)).astype(np.float32)}],
    "last": {"bias": jnp.asarray(RNG.normal(size=3), jnp.bfloat16)},
}  # fmt: skip
FLAT = network_files.flatten(NETWORK)


def write_shards(folder, arrays, names=None):
    """Two shards and their index, as programs write networks that are too large for one file."""
    split = {"model-00001-of-00002.safetensors": [*arrays][:1], "model-00002-of-00002.safetensors": [*arrays][1:]}
    for file, inside in split.items():
        safetensors.numpy.save_file({name: arrays[name] for name in inside}, folder / file)
    where = {name: file for file, inside in split.items() for name in inside} if names is None else names
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
    )
    return folder / "model.safetensors.index.json"


def save_orbax(folder, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, tree)
    return folder


def managed(folder):
    with ocp.CheckpointManager(folder) as manager:
        manager.save(5, args=ocp.args.StandardSave(NETWORK))
        manager.wait_until_finished()
    return folder / "5"


def saved(path, network=None):
    network_files.save(path, NETWORK if network is None else network)
    return path


def dotted(path):
    safetensors.numpy.save_file({name.replace("/", "."): array for name, array in FLAT.items()}, path)
    return path


def with_optimizer(folder):
    """The whole state of a training loop in Flax."""
    params = {"params": NETWORK}
    return save_orbax(
        folder, params | {"step": 3, "opt_state": optax.adam(1e-3).init(jax.tree.map(jnp.asarray, NETWORK))}
    )


WRITERS = {
    "safetensors": lambda folder: saved(folder / "n.safetensors"),
    "dots": lambda folder: dotted(folder / "n.safetensors"),
    "shards": lambda folder: write_shards(folder, FLAT),
    "a folder of shards": lambda folder: write_shards(folder, FLAT).parent,
    "our folder": lambda folder: saved(folder / "n"),
    "Orbax": lambda folder: save_orbax(folder / "n", NETWORK),
    "a manager's step": lambda folder: managed(folder / "n"),
    "params and optimizer": lambda folder: with_optimizer(folder / "n"),
    "params and statistics": lambda folder: saved(
        folder / "n.safetensors", {"params": NETWORK, "batch_stats": {"norm": {"mean": np.zeros(2)}}}
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_holds_the_same_bits(writer, tmp_path):
    stored = leaf_files.find(pathlib.Path(WRITERS[writer](tmp_path)))
    expected = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in FLAT.items()}
    names = matching.matched(stored.shapes, expected, "it")
    assert list(names) == list(FLAT)
    backwards = [*names.items()][::-1]
    for (ours, theirs), (name, array) in zip(backwards, stored.read([name for _, name in backwards]), strict=True):
        assert name == theirs
        assert array.dtype == FLAT[ours].dtype
        assert array.tobytes() == FLAT[ours].tobytes()
    digest = stored.digest()
    assert digest == leaf_files.find(stored.path).digest()
    name = max(stored.files, key=lambda path: path.stat().st_size)
    content = bytearray(name.read_bytes())
    content[-1] ^= 1
    name.write_bytes(content)
    assert stored.digest() != digest


def test_the_digest_of_one_file_is_what_sha256sum_prints(tmp_path):
    import hashlib

    path = saved(tmp_path / "n.safetensors")
    assert leaf_files.find(path).digest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_arrays_are_read_when_they_are_asked_for(tmp_path):
    stored = leaf_files.find(write_shards(tmp_path, FLAT))
    arrays = iter(stored.read(list(stored.shapes)))
    assert next(arrays)[0] == "blocks/0/kernel"
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model-00002-of-00002\.safetensors is not a safetensors file"):
        next(arrays)


def header(arrays):
    text = json.dumps(arrays).encode()
    return len(text).to_bytes(8, "little") + text


def test_what_is_no_network_is_refused(tmp_path):
    def read(path):
        stored = leaf_files.find(path)
        return dict(stored.read(list(stored.shapes)))

    def refused(path, message):
        with pytest.raises(UsageError, match=message):
            read(path)

    refused(tmp_path / "nothing", "nothing does not exist. A network is a file NAME.safetensors")
    refused(tmp_path, "holds no network. A network is a file")
    (tmp_path / "text.safetensors").write_text("some text that is long enough")
    refused(tmp_path / "text.safetensors", "is not a safetensors file of a network, or damaged")
    one = {"dtype": "F32", "shape": [2]}
    behind = {"a": one | {"data_offsets": [0, 8]}, "b": one | {"data_offsets": [96, 104]}}
    (tmp_path / "behind.safetensors").write_bytes(header(behind) + bytes(16))
    refused(tmp_path / "behind.safetensors", "'b' lies behind its end")

    for number, (names, message) in enumerate(
        [
            (
                {"a": "../model.safetensors"},
                r"weight_map.a is '../model.safetensors', and must be a line of text of the form",
            ),
            ({"a": "gone.safetensors"}, "names the shard gone.safetensors, which is not beside it. Download it again"),
            ({"a": "model-00001-of-00002.safetensors"}, "do not belong together: a is in one and not in the other"),
            (3, "weight_map is 3, and must be a dictionary"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused(write_shards(folder, FLAT, names), message)

    broken = save_orbax(tmp_path / "broken", NETWORK)
    (broken / "_METADATA").write_text("{")
    refused(broken, "broken is damaged or not a network of Orbax")


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in leaves.items()}


def test_one_message_names_what_does_not_fit():
    here = shapes(kernel=((2, 3), jnp.float32), bias=((3,), jnp.float32), scale=((3,), jnp.bfloat16))

    def refused(message, **changed):
        there = {name: leaf for name, leaf in (here | shapes(**changed)).items() if leaf.shape != (0,)}
        with pytest.raises(UsageError, match=message):
            matching.matched(there, here, "n.safetensors")

    gone = ((0,), jnp.float32)
    refused(r"kernel is float32\[3, 2\] there and float32\[2, 3\] here", kernel=((3, 2), jnp.float32))
    refused(r"kernel is float64\[2, 3\] there", kernel=((2, 3), jnp.float64))
    refused(r"scale is float16\[3\] there and bfloat16\[3\] here", scale=((3,), jnp.float16))
    refused(r"bias is int32\[3\] there", bias=((3,), jnp.int32))
    refused(
        r"n.safetensors is not the network of this run:\n  it has no bias, which is float32\[3\] here \(similar: biases\)\n"
        r"  it has biases, float32\[3\], which the network lacks \(similar: bias\)\nRename",
        bias=gone, biases=((3,), jnp.float32),
    )  # fmt: skip
    refused("which the network lacks\n  and 2 more\n", **{f"x{i}": ((1,), jnp.float32) for i in range(5)})
    narrower = here | shapes(kernel=((2, 3), jnp.bfloat16), bias=((3,), jnp.float16))
    assert list(matching.matched(narrower, here, "it")) == ["kernel", "bias", "scale"]


def test_a_network_that_keeps_the_collection_itself():
    leaf = jax.ShapeDtypeStruct((2,), jnp.float32)
    there = {"params/w": leaf, "batch_stats/w": leaf}
    assert matching.matched(there, {"w": leaf}, "it") == {"w": "params/w"}
    assert matching.matched(there, {"params/w": leaf}, "it") == {"params/w": "params/w"}
    assert matching.matched({"params/params/w": leaf}, {"params/w": leaf}, "it") == {"params/w": "params/params/w"}
