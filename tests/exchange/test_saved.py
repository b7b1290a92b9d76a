"""One network of any tree as a file: back to the bit, in its own tree, and readable by others."""

import collections
import json
import os

import equinox as eqx
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax.training.train_state import TrainState

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.exchange import named_leaves, network_files, tensor_header

RNG = np.random.default_rng(0)


def bits(array):
    array = jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array
    array = np.asarray(array)
    return array.dtype, array.shape, array.tobytes()


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (bits(x) == bits(y)) if hasattr(x, "dtype") else (type(x), repr(x)) == (type(y), repr(y))


class Net(nnx.Module):
    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


Pair = collections.namedtuple("Pair", "first second")

PLAIN = {
    "dictionaries": {"a": {"kernel": RNG.normal(size=(3, 2)).astype(np.float32).T, "nan": np.array(np.nan, np.float16)}},
    "lists and tuples": [{"w": np.ones(2)}, (np.zeros((0, 3), np.int8), [np.array(True)]), np.arange(11)],
    "eleven in a row": [np.full(1, i) for i in range(11)],
    "names with dots": {"model.layers.0.weight": np.ones(2), "model.norm.weight": np.ones(1)},
    "names with slashes": {"mlp/~/linear_0": {"w": np.ones(2)}, "mlp": {"~/linear_0": {"w": np.zeros(2)}}},
    "names of the format": {"__metadata__": np.ones(2), "a": {"": np.ones(1)}, "": np.zeros(1)},
    "integers as keys": {"blocks": {0: np.ones(1), 10: np.ones(2), 2: np.ones(3)}},
    "empty things": {"a": {}, "b": [None, (), []], "w": np.ones(1)},
    "numbers": {"scale": 0.1, "on": True, "n": 10**30, "inf": float("inf"), "z": 1j, "w": np.ones(1)},
    "one array": np.arange(3),
    "a key": {"key": np.ones(1), "rng": jax.random.key(3), "fast": jax.random.key(4, impl="rbg")},
    "every dtype": {str(dtype): np.arange(3).astype(dtype) for dtype in tensor_header.DTYPES.values()},
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_plain_trees_come_back_to_the_bit(name, tmp_path):
    path = tmp_path / "n.safetensors"
    jsubspace.save(path, PLAIN[name])
    same(jsubspace.load(path), PLAIN[name])
    same(jsubspace.load(path, like=jax.tree.map(lambda leaf: leaf, PLAIN[name])), PLAIN[name])


OPTIMIZER = optax.adam(1e-2)
PARAMS = {"kernel": RNG.normal(size=(2, 3, 4)), "bias": RNG.normal(size=(2, 4))}
BESIDE_PARAMS = {
    "state of a loop": {"params": PARAMS, "opt_state": OPTIMIZER.init(PARAMS), "step": jnp.int32(7)},
    "state of flax": TrainState.create(apply_fn=None, params=PARAMS, tx=OPTIMIZER),
    "variables of linen": {"params": PARAMS, "batch_stats": {"mean": np.ones(4)}},
    "parameters alone": {"params": PARAMS},
    "parameters in parameters": {"params": {"params": PARAMS, "temperature": np.ones(2)}},
}


@pytest.mark.parametrize("name", BESIDE_PARAMS)
def test_a_tree_with_parameters_and_more_comes_back(name, tmp_path):
    """Beside params, a file for a network may hold more. But a tree that asks for more gets it."""
    path, tree = tmp_path / "n.safetensors", BESIDE_PARAMS[name]
    jsubspace.save(path, tree)
    same(jsubspace.load(path, like=tree), tree)
    if isinstance(tree, dict):
        same(jsubspace.load(path, like=tree["params"]), tree["params"])
        with pytest.raises(UsageError, match="it has no more"):
            jsubspace.load(path, like=tree | {"more": np.ones(1)})


@pytest.mark.parametrize(
    ("tree", "like"),
    [
        (Net(0), Net(1)),
        (nnx.split(Net(0)), nnx.split(Net(1))),
        (nnx.state(Net(0), nnx.Param), jax.eval_shape(lambda: nnx.state(Net(0), nnx.Param))),
        (eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(1))),
        (Pair(jnp.ones(2), (0.5,)), Pair(jnp.zeros(2), (0.25,))),
    ],
    ids=["nnx module", "nnx split", "nnx state", "equinox", "namedtuple"],
)
def test_modules_come_back_in_a_tree_like_them(tree, like, tmp_path):
    path = tmp_path / "n.safetensors"
    jsubspace.save(path, tree)
    found = jsubspace.load(path, like)
    assert jax.tree.structure(found) == jax.tree.structure(like)
    arrays = [[leaf for leaf in jax.tree.leaves(t) if not callable(leaf)] for t in (found, tree)]
    same(*arrays)
    assert all(map(callable, {type(leaf): leaf for leaf in jax.tree.leaves(found) if callable(leaf)}.values()))


def test_a_module_without_like_is_dictionaries(tmp_path):
    path = tmp_path / "n.safetensors"
    jsubspace.save(path, eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)))
    assert jax.tree.map(np.shape, jsubspace.load(path)) == {
        "layers": ({"weight": (4, 2), "bias": (4,)}, {"weight": (3, 4), "bias": (3,)})
    }
    jsubspace.save(path, nnx.split(Net(0)))
    with pytest.raises(UsageError, match=r"holds a GraphDef at 0, which is no array and was not written. Pass like="):
        jsubspace.load(path)


def test_others_read_the_file_and_it_reads_theirs(tmp_path):
    tree = {"blocks": [{"kernel": jnp.ones((2, 3), jnp.bfloat16)}], "n": jnp.arange(3, dtype=jnp.int8)}
    jsubspace.save(tmp_path / "n.safetensors", tree)
    theirs = safetensors.numpy.load_file(tmp_path / "n.safetensors")
    assert {name: bits(array) for name, array in theirs.items()} == {
        "blocks/0/kernel": bits(tree["blocks"][0]["kernel"]), "n": bits(tree["n"]),
    }  # fmt: skip
    with (tmp_path / "n.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    starts = {name: about["data_offsets"][0] for name, about in header.items() if name != "__metadata__"}
    assert all(start % theirs[name].dtype.itemsize == 0 for name, start in starts.items())
    safetensors.numpy.save_file(
        {"blocks.0.kernel": np.ones((2, 3), np.float16), "n": np.arange(3)}, tmp_path / "o.safetensors"
    )
    like = {"blocks": [{"kernel": np.zeros((2, 3), np.float32)}], "n": np.zeros(3, int)}
    found = jsubspace.load(tmp_path / "o.safetensors", like)
    same(found, {"blocks": [{"kernel": np.ones((2, 3), np.float32)}], "n": np.arange(3)})
    assert list(jsubspace.load(tmp_path / "o.safetensors")["blocks"]) == ["0"]
    network_files.save(tmp_path / "exported", {"params": {"w": np.ones(2)}}, {"alpha": 0.5})
    same(jsubspace.load(tmp_path / "exported"), {"params": {"w": np.ones(2)}})


def test_arrays_lie_where_those_of_like_lie(tmp_path):
    mesh = jax.make_mesh((8,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    jsubspace.save(tmp_path / "n.safetensors", {"w": jax.device_put(jnp.arange(16.0), sharding), "host": np.ones(2)})
    found = jsubspace.load(
        tmp_path / "n.safetensors",
        {"w": jax.ShapeDtypeStruct((16,), jnp.float32, sharding=sharding), "host": np.zeros(2)},
    )
    assert found["w"].sharding == sharding
    assert found["w"].tolist() == list(range(16))
    assert isinstance(found["host"], np.ndarray)


def test_a_killed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "n.safetensors"
    jsubspace.save(path, {"w": np.zeros(2)})
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            jsubspace.save(path, {"w": np.ones(2)})
    assert jsubspace.load(path)["w"].tolist() == [0, 0]
    jsubspace.save(path, {"w": np.ones(2)})
    assert jsubspace.load(path)["w"].tolist() == [1, 1]
    assert os.listdir(tmp_path) == ["n.safetensors"]


def test_memory_holds_no_second_network(tmp_path):
    import tracemalloc

    network = {f"w{i}": np.full(2**17, i, np.float32) for i in range(8)}
    one = network["w0"].nbytes
    tracemalloc.start()
    try:
        jsubspace.save(tmp_path / "n.safetensors", network)
        _, of_save = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        like = {name: jax.ShapeDtypeStruct((2**17,), np.float16) for name in network}
        jsubspace.save(tmp_path / "h.safetensors", {name: array.astype(np.float16) for name, array in network.items()})
        del network
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        found = jsubspace.load(tmp_path / "h.safetensors", like)
        _, of_load = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert of_save < one / 2
    assert of_load - before < 4 * one + one  # the result, which has half the size, and less than two leaves
    assert found["w3"][0] == 3


DAMAGES = {
    "an array": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "the end": lambda content: content[:-1],
    "the tree": lambda content: content.replace(rb"\"[0\"", rb"\"[5\""),
    "a kind": lambda content: content.replace(rb"\"array\"", rb"\"other\"", 1),
    "two at a path": lambda content: content.replace(rb"\"[1\"", rb"\"[0\""),
    "no array": lambda content: content.replace(rb"\"text\": \"0/w\"", rb"\"text\": \"9/w\""),
    "no JSON": lambda content: content.replace(rb"[{\"path\"", rb"[[\"path\""),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_message(name, tmp_path):
    path = tmp_path / "n.safetensors"
    jsubspace.save(path, [{"w": np.arange(4.0)}, {"w": np.arange(3.0)}])
    content = path.read_bytes()
    harmed = DAMAGES[name](content)
    assert harmed != content
    path.write_bytes(harmed)
    with pytest.raises(UsageError, match=r"n.safetensors (is damaged|is not a safetensors file|holds a 0/w at 0/w)"):
        jsubspace.load(path)


def test_what_cannot_be_saved_or_loaded(tmp_path, monkeypatch):
    for path, network, message in [
        (tmp_path / "n.bin", {"w": np.ones(1)}, "is no name of a safetensors file. Call it n.safetensors"),
        (
            tmp_path / "n.safetensors",
            {"w": "text"},
            r"network is a dict with leaf \['w'\], 'text', but it must be a tree of arrays",
        ),
        (
            tmp_path / "n.safetensors",
            {"w": np.ones(1, np.complex128)},
            "w has elements of type complex128. A network has",
        ),
        (
            tmp_path / "n.safetensors",
            {"w": jax.ShapeDtypeStruct((2,), jnp.float32)},
            "without numbers. Save outside of jit",
        ),
        (tmp_path / "n.safetensors", {"a\nb": np.ones(1)}, "is no line of plain text. Rename it"),
        (tmp_path / "n.safetensors", {"a": np.ones(1), 1: np.ones(1)}, "the class dict is no tree of jax"),
        (tmp_path / "none" / "n.safetensors", {"w": np.ones(1)}, "cannot write .*No such file"),
    ]:
        with pytest.raises(ValueError, match=message):
            jsubspace.save(path, network)
    assert os.listdir(tmp_path) == []
    deep = np.ones(1)
    for _ in range(60):
        deep = [deep]
    with pytest.raises(ValueError, match=r"the tree is nested deeper than 50"):
        jsubspace.save(tmp_path / "n.safetensors", deep)
    path = tmp_path / "n.safetensors"
    jsubspace.save(path, {"w": np.ones(2)})
    with pytest.raises(
        UsageError, match=r"is not the network of like=:\n  it has no v, .*\n  it has w, .*\nRename .* or pass the"
    ):
        jsubspace.load(path, {"v": np.ones(2)})
    with pytest.raises(UsageError, match=r"like is 'text', but it must be a tree of arrays"):
        jsubspace.load(path, "text")
    monkeypatch.setattr("jsubspace.machine.memory", lambda: 10)
    with pytest.raises(UsageError, match=r"GiB of arrays, and this machine has 0.0 GiB of memory"):
        jsubspace.load(path)


def test_names_are_those_of_other_readers():
    tree = {"blocks": [{"w": np.ones(1)}], "head": Pair(np.ones(1), np.ones(2))}
    assert [entry.name for entry in named_leaves.entries(tree)] == ["blocks/0/w", "head/first", "head/second"]
    state = nnx.state(Net(0), nnx.Param)
    names = [entry.name for entry in named_leaves.entries(state)]
    assert names == ["layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/scale"]
