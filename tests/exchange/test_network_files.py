"""Networks on the disk: back to the bit, readable without this library, and nothing but data."""

import ast
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from places import REPOSITORY

import jsubspace
from jsubspace import evaluate, export
from jsubspace.errors import UsageError
from jsubspace.exchange import authors, network_files
from jsubspace.models.cresnet import CResNet
from jsubspace.models.mlp import MLP
from jsubspace.models.resnet import ResNet
from jsubspace.runs import build, config_files
from jsubspace.storage import lock
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.subspaces import Line, Point, Simplex


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y)


def small_network():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5)).astype(np.float32).T  # not contiguous: what safetensors alone gets wrong
    return {
        "params": {
            "a": {"kernel": kernel, "bias": np.array(np.nan, np.float32)},
            "b": {"scale": np.ones(3, np.float16)},
        },
        "step": jnp.arange(3),
    }


@pytest.mark.parametrize("name", ["network.safetensors", "network"])
def test_round_trip(tmp_path, name):
    facts = {"alpha": [0.5], "step": 3, "config": {"seed": 0}, "who": "grüße"}
    network_files.save(tmp_path / name, small_network(), facts)
    network, found = network_files.load(tmp_path / name)
    same(network, small_network())
    assert {name: found[name] for name in facts} == facts
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["network.safetensors", "network"])
def test_damage_is_noticed_or_did_no_harm(tmp_path, name):
    original = {"a": {"b": np.arange(1000, dtype=np.float32)}}
    network_files.save(tmp_path / name, original)
    files = [p for p in (tmp_path / name / "network").rglob("*") if p.is_file()] or [tmp_path / name]
    noticed = 0
    for file in files:
        content = file.read_bytes()
        place = len(content) // 2
        for harmed in (content[:-1], content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :], b""):
            file.write_bytes(harmed)
            try:
                same(network_files.load(tmp_path / name)[0], original)
            except UsageError as error:
                noticed += "damaged" in str(error)
        file.write_bytes(content)
    assert noticed >= 3
    same(network_files.load(tmp_path / name)[0], original)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UsageError, match=r"cannot write .*No space left"):
        network_files.save(tmp_path / "n.safetensors", small_network())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def make_run(tmp_path):
    """A run's folder, as if after no step of training."""

    def make(settings):
        settings.num_devices = 1
        run = build.build(settings)
        config_files.save(tmp_path / "run", settings)
        with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
            checkpoints.save(run.devices.run_once(run.init_state), 0, {"seconds": 0.0})
        return run

    return make


def lax_network(w, images):
    """A cResNet-8 of nothing but jax.lax: what another program would write."""

    def layer(x, block, part, stride=1):
        kernel, norm = w[f"params/{block}{part}/kernel"], f"{block}{part.replace('conv', 'norm')}"
        padding = [(kernel.shape[0] // 2,) * 2] * 2
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)
        x = (x - w[f"batch_stats/{norm}/mean"]) / jnp.sqrt(w[f"batch_stats/{norm}/var"] + 1e-5)
        return x * w[f"params/{norm}/scale"] + w[f"params/{norm}/bias"]

    x = layer(images, "", "stem_conv")
    for block, stride in (("block0/", 1), ("block1/", 2), ("block2/", 2)):
        x = jax.nn.relu(x)
        y = jax.nn.relu(layer(x, block, "conv1", stride))
        x = layer(y, block, "conv2") + (x if stride == 1 else layer(x, block, "shortcut_conv", stride))
    return jax.nn.relu(x).mean((1, 2)) @ w["params/classifier/kernel"]


def test_a_network_with_batch_norm_needs_nothing_of_ours(tiny_config, tmp_path, make_run):
    tiny_config.evaluation.num_stats_batches = 2
    run = make_run(tiny_config)
    facts = export.export(tmp_path / "run", tmp_path / "out.safetensors", "0.25")
    network, found = network_files.load(tmp_path / "out.safetensors")
    assert found == json.loads(json.dumps(facts)) | {network_files.DIGEST: found[network_files.DIGEST]}
    assert (facts["alpha"], facts["weights"]) == (0.25, [0.75, 0.25])
    endpoints = run.devices.run_once(run.init_state).endpoints
    same(network["params"], jax.jit(lambda e: jsubspace.interpolate(e, 0.25))(endpoints))
    assert jax.tree.leaves(network["batch_stats"])
    images = (run.problem.pipeline.test.images / 255 - np.array(facts["mean"])) / np.array(facts["std"])
    logits = lax_network(safetensors.numpy.load_file(tmp_path / "out.safetensors"), images.astype(np.float32))
    model = run.problem.model.clone(axis_name=None)
    ours = model.apply(
        network, run.problem.pipeline.preprocess(jnp.asarray(run.problem.pipeline.test.images)), train=False
    ).logits
    np.testing.assert_allclose(logits, ours, rtol=1e-3, atol=1e-3)


def test_the_ten_lines_of_the_guide(tiny_mlp, tmp_path, make_run, monkeypatch):
    tiny_mlp.model.depth, tiny_mlp.model.width = 2, 64
    run = make_run(tiny_mlp)
    (code,) = re.findall(r"```python\n(import numpy.*?)```", (REPOSITORY / "docs" / "export.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert "jsubspace" not in code
    monkeypatch.chdir(tmp_path)
    facts = export.export("run", "midpoint.safetensors")
    assert facts["alpha"] == 0.5
    names = {}
    exec(compile(code, "export.md", "exec"), names)
    network, _ = network_files.load("midpoint.safetensors")
    images = run.problem.pipeline.preprocess(jnp.asarray(names["images"] * 255))
    ours = run.problem.model.apply({"params": network["params"]}, images, train=False).logits
    np.testing.assert_allclose(names["logits"], ours, rtol=1e-4, atol=1e-4)


def test_a_plain_network_is_the_shared_start_of_a_subspace(tmp_path):
    model, images = MLP(3, (8,)), jnp.zeros((1, 4, 4, 1))
    network_files.save(tmp_path / "n.safetensors", dict(model.init(jax.random.key(1), images, train=True)))
    network, _ = network_files.load(tmp_path / "n.safetensors")
    endpoints = jsubspace.init_endpoints(jax.random.key(0), lambda key: network["params"], 3, common_start=True)
    for i in range(3):
        same(jax.tree.map(lambda leaf: leaf[i], endpoints), network["params"])  # noqa: B023


# The authors' layout


CIFAR_8 = {
    "conv.weight", "bn.weight", "bn.bias", "fc.weight",
    *(f"blocks.{i}.{name}" for i in range(3) for name in ("conv1.weight", "bn1.weight", "bn1.bias")),
    *(f"blocks.{i}.{name}" for i in range(3) for name in ("conv2.weight", "bn2.weight", "bn2.bias")),
    *(f"blocks.{i}.shortcut.{name}" for i in (1, 2) for name in ("0.weight", "1.weight", "1.bias")),
}  # fmt: skip

MODELS = {
    "cresnet": (CResNet(10, depth=8, width=2), {}, ["blocks.2.shortcut.0.weight", "bn.bias1", "fc.weight"]),
    "resnet18, tiny": (
        ResNet(10, depth=18, width=2, stem="tiny"),
        {"tiny_imagenet": True},
        ["conv1.0.weight", "conv1.1.bias1", "conv5_x.1.residual_function.4.bias", "conv3_x.0.shortcut.1.weight1"],
    ),
    "resnet50": (
        ResNet(10, depth=50, width=2),
        {},
        ["conv1.weight", "bn1.weight1", "layer1.0.downsample.0.weight", "layer4.2.conv3.weight1", "layer3.5.bn2.bias"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("m", [1, 3])
def test_the_authors_layout_and_back(name, m):
    model, options, examples = MODELS[name]
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=True))
    rng = np.random.default_rng(0)
    endpoints = jax.tree.map(lambda leaf: rng.normal(size=(m, *leaf.shape)).astype(np.float32), shapes["params"])
    stats = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes["batch_stats"])
    theirs = authors.to_authors(endpoints, stats, **options)
    assert [name for name in examples if m == 3 or not name[-1].isdigit()] == [n for n in examples if n in theirs]
    back, back_stats = authors.from_authors({f"module.{name}": array for name, array in theirs.items()})
    same(back, endpoints)
    same(back_stats, stats)
    again = authors.to_authors(back, back_stats, **options)
    same(again, theirs)


def test_the_authors_names_and_axes():
    model = CResNet(10, depth=8, width=2)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=True))["params"]
    rng = np.random.default_rng(0)
    endpoints = jax.tree.map(lambda leaf: rng.normal(size=(2, *leaf.shape)).astype(np.float32), shapes)
    theirs = authors.to_authors(endpoints)
    assert set(theirs) == {*CIFAR_8, *(f"{name}1" for name in CIFAR_8)}
    kernel, weight = endpoints["block1"]["conv1"]["kernel"], theirs["blocks.1.conv1.weight1"]
    assert (kernel.shape, weight.shape) == ((2, 3, 3, 2, 4), (4, 2, 3, 3))
    for o, i, h, w in np.ndindex(weight.shape):
        assert weight[o, i, h, w] == kernel[1, h, w, i, o]
    assert theirs["fc.weight"].shape == (10, 8, 1, 1)
    assert theirs["fc.weight"][7, 3, 0, 0] == endpoints["classifier"]["kernel"][0, 3, 7]
    np.testing.assert_array_equal(theirs["blocks.2.bn1.weight1"], endpoints["block2"]["norm1"]["scale"][1])


# Refusals


ONES = np.ones((2, 2), np.float32)
BAD_WEIGHTS = [
    ({}, "no weight among the names"),
    ({"epoch": ONES}, "epoch is not a name of the authors' networks"),
    ({"blocks.0.conv4.weight": ONES}, "is not a name"),
    (
        {"fc.weight": ONES, "bn.weight": ONES[0], "bn.weight1": ONES[0]},
        r"classifier/kernel has the endpoints \[0\] but",
    ),
    ({"conv.weight01": ONES[..., None, None]}, "conv.weight01 is not a name"),
    ({"conv.weight²": ONES}, "is not a name"),
    ({"conv.weight" + "1" * 5000: ONES}, "is not a name"),
    ({"blocks.01.conv1.weight": ONES}, "is not a name"),
    ({"conv.bias": ONES[0]}, "conv.bias is not a name"),
    ({"bn.weight": ONES}, r"bn.weight has the shape \[2, 2\], but an array of a BatchNorm has one axis"),
    ({"bn.running_var": ONES}, "bn.running_var has the shape"),
    ({"bn.weight": np.ones(2, int)}, "bn.weight has elements of type int64, but a weight is an array of floats"),
    ({"bn.weight": np.array([None])}, "bn.weight has elements of type object"),
    (
        {"fc.weight": ONES, "fc.weight1": np.ones((2, 3), np.float32)},
        r"classifier/kernel is float32\[2, 2\] and float32\[3, 2\] at different endpoints",
    ),
    ({"fc.weight": ONES, "module.fc.weight": ONES}, "fc.weight is there twice, with and without"),
    ({"conv.weight": ONES}, r"conv.weight has the shape \[2, 2\], but a convolution's weight has four axes"),
]


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS)
def test_what_is_not_the_authors_is_refused(weights, message):
    with pytest.raises(UsageError, match=message):
        authors.from_authors(weights)


def test_a_network_that_they_have_not_is_refused():
    with pytest.raises(UsageError, match="have no layer hidden0"):
        authors.to_authors({"hidden0": {"kernel": np.ones((1, 2, 2))}})


@pytest.mark.parametrize("text", ["x", "-0.1", "1.1", "nan", "0.5,0.5", "inf", ","])
def test_positions_that_are_not_on_a_line(text):
    with pytest.raises(UsageError, match=rf"--alpha is '{text}'. In this run's line it must be a number from 0 to 1"):
        export.read_alpha(text, Line())


@pytest.mark.parametrize("text", ["0.5", "0.5,0.5,0.5", "0.6,0.6,-0.2", "1,0"])
def test_positions_that_are_not_on_a_simplex(text):
    with pytest.raises(UsageError, match="it must be 3 weights, none negative, that sum to 1"):
        export.read_alpha(text, Simplex(3))


def test_positions():
    assert export.read_alpha("0.2,0.3,0.5", Simplex(3)).shape == (3,)
    assert export.read_alpha("1", Line()) == 1
    for given in ("0.5", 0.5):
        with pytest.raises(UsageError, match="standard training: its only point"):
            export.read_alpha(given, Point())


@pytest.mark.parametrize("alpha", [0.0, 0, np.float32(0.25), jnp.bfloat16(0.5), 1.0])
def test_positions_may_be_numbers(alpha):
    """0 is an end, and not the absence of a position."""
    assert export.read_alpha(alpha, Line()) == np.float32(alpha)
    np.testing.assert_allclose(export.read_alpha((0.2, 0.3, 0.5), Simplex(3)), [0.2, 0.3, 0.5])
    assert export.read_alpha(None, Line()) == export.read_alpha("", Line()) == 0.5


@pytest.mark.parametrize("alpha", [-0.1, np.nan, True, [0.5], [], {"kernel": 0.5}, object(), [[0.5], [0.1, 0.2]]])
def test_numbers_that_are_no_position(alpha):
    with pytest.raises(UsageError, match="In this run's line it must be a number from 0 to 1"):
        export.read_alpha(alpha, Line())
    with pytest.raises(UsageError, match="it must be 3 weights"):
        export.read_alpha((0.5, 0.5), Simplex(3))


def tensors(path, header, size=0, length=None):
    """A safetensors file with any header, and a number of bytes that take no place on the disk."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with path.open("wb") as file:
        file.write((len(text) if length is None else length).to_bytes(8, "little") + text)
        file.truncate(file.tell() + size)
    return path


def one(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}} | more


BAD_FILES = {
    "fp6": ((one("F6_E2M3", (8,)), 6), r"its header.a.dtype is 'F6_E2M3', and must be 'F64' or"),
    "fp4": ((one("F4", (16,)), 8), "'F4'"),
    "65 axes": ((one(shape=[1] * 64 + [2]), 8), "its header.a.shape is a list of length 65"),
    "sparse": ((one(shape=(2**43,), offsets=(0, 2**45)), 2**43), "bytes of arrays, and its header says"),
    "larger than memory": (
        (one(shape=(2**38,), offsets=(0, 2**40)), 2**40),
        "it has 1024.0 GiB of arrays, and this machine",
    ),
    "other size": ((one(offsets=(0, 12)), 12), "'a' has 12 bytes, which is not the size"),
    "backwards": ((one(shape=(0,), offsets=(8, 0)), 8), "'a' has -8 bytes"),
    "short": ((one(), 4), "it has 4 bytes of arrays, and its header says 8"),
    "a name twice": ((b'{"a": {}, "a": {}}', 0), "the name 'a' twice"),
    "deep": ((b'{"a":' * 10**5, 0), "nested deeper"),
    "long": ((b"{}", 0, 2**60), "its header has 1152921504606846976 bytes"),
    "control characters": ((one() | {"__metadata__": {}, "x": 5}, 8), "its header.x is 5, and must be a dictionary"),
    "metadata": ((one(__metadata__=5), 8), "__metadata__ is 5"),
    "empty": ((b"", 0), "Expecting value"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_header_is_checked_before_memory_is_taken(tmp_path, name):
    content, message = BAD_FILES[name]
    path = tensors(tmp_path / "n.safetensors", *content)
    with pytest.raises(
        UsageError, match=rf"n.safetensors is not a safetensors file of a network, or damaged: .*{message}"
    ):
        network_files.load(path)


def test_a_header_that_is_right(tmp_path):
    path = tensors(tmp_path / "n.safetensors", one("BF16", (2, 2)), 8)
    assert str(network_files.load(path)[0]["a"].dtype) == "bfloat16"


RECURSIVE: dict = {}
RECURSIVE["a"] = RECURSIVE
W = {"w": np.ones(2, np.float32)}


@pytest.mark.parametrize("name", ["n.safetensors", "n"])
@pytest.mark.parametrize(
    ("network", "facts", "message"),
    [
        ({}, {}, "has no array"),
        ({"a": {}}, {}, "has no array"),
        ({"w": np.array([None])}, {}, "w has elements of type object"),
        ({"w": np.array(["a"])}, {}, "w has elements of type <U1"),
        ({"w": np.ones(2, np.complex128)}, {}, "w has elements of type complex128"),
        (RECURSIVE, {}, "nested deeper than 50"),
        (W, {"alpha": {1, 2}}, "the fact 'alpha' cannot be stored as JSON"),
        (W, {"alpha": RECURSIVE}, "the fact 'alpha' cannot be stored as JSON"),
        (W, {"alpha": 10**400}, "the fact 'alpha' cannot be stored as JSON"),
        (W, {5: 1}, "5 cannot be the name of a fact"),
        (W, {"sha256": "mine"}, "the facts have a sha256, and it is not the digest of this network"),
    ],
)
def test_what_cannot_be_saved(tmp_path, name, network, facts, message):
    with pytest.raises(ValueError, match=message):
        network_files.save(tmp_path / name, network, facts)
    assert list(tmp_path.iterdir()) == []


def test_the_facts_of_a_file_can_be_saved_again(tmp_path):
    network_files.save(tmp_path / "a", W, {"alpha": 0.5})
    network_files.save(tmp_path / "b.safetensors", *network_files.load(tmp_path / "a"))
    assert network_files.load(tmp_path / "b.safetensors")[1] == network_files.load(tmp_path / "a")[1]
    for text in ("[1]", "garbage", "[" * 100_000, '{"alpha": NaN}'):
        (tmp_path / "a" / "facts.json").write_text(text)
        with pytest.raises(UsageError, match=r"facts.json is damaged .*delete it to do without facts"):
            network_files.load(tmp_path / "a")


# Data only


def test_no_code_reads_or_writes_pickles():
    """Nor anything else that executes what it reads."""
    banned = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "torch"}
    for path in [*(REPOSITORY / "jsubspace").rglob("*.py"), *(REPOSITORY / "experiments").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "__import__", "torch.load"), path
                assert not called.endswith((".tofile", ".loads")) or called == "json.loads", (path, called)
                assert not any(keyword.arg == "allow_pickle" for keyword in node.keywords), path
            allowed = (
                {"torch"} if path.name == "torch_steps.py" else set()
            )  # It times steps of PyTorch, and reads no file.
            assert not (banned - allowed) & {name.split(".")[0] for name in names}, path


def test_names_in_a_file_are_no_paths_on_the_disk(tmp_path):
    path = tmp_path / "n.safetensors"
    path.write_bytes(safetensors.numpy.save({"../../evil": np.ones(1, np.float32)}))
    assert network_files.load(path)[0].keys() == {".."}  # A dictionary called ".." is a dictionary.
    with pytest.raises(ValueError, match="cannot be a name"):
        network_files.save(tmp_path / "m.safetensors", {"../evil": np.ones(1)})
    assert list(tmp_path.iterdir()) == [path]


def test_lists_are_dictionaries_with_numbers_for_names(tmp_path):
    """Also where the numbers are keys, as in a state of Flax nnx, and in both formats."""
    block = {"kernel": np.ones((2, 3), np.float32)}
    for name in ("n.safetensors", "n"):
        for blocks in ([block, block], (block, block), {0: block, 1: block}):
            path = tmp_path / f"{type(blocks).__name__}_{name}"
            network_files.save(path, {"params": {"blocks": blocks, "scales": [np.ones(1), np.zeros(2)]}})
            params = network_files.load(path)[0]["params"]
            assert (params["blocks"].keys(), params["scales"].keys()) == ({"0", "1"}, {"0", "1"})
            np.testing.assert_array_equal(params["blocks"]["1"]["kernel"], block["kernel"])
            np.testing.assert_array_equal(params["scales"]["1"], np.zeros(2))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ([np.ones(1)], r"the network is a list. A network is a dictionary of arrays.*nnx.state\(model, nnx.Param\)"),
        ({"a": {0: np.ones(1), "0": np.ones(1)}}, "two keys '0', a text and an integer"),
        ({True: np.ones(1)}, "True cannot be a name"),
        ({"a": [1.0]}, "0 is a float. A network is made of dictionaries, lists and arrays"),
    ],
)
def test_what_is_no_dictionary_of_arrays_is_refused(tmp_path, network, message):
    with pytest.raises(ValueError, match=message):
        network_files.save(tmp_path / "n.safetensors", network)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [["/etc/evil"], ["a//b"], ["a", "a/b"], ["a/b", "a"]])
def test_names_that_make_no_network(tmp_path, names):
    path = tmp_path / "n.safetensors"
    path.write_bytes(safetensors.numpy.save({name: np.ones(1, np.float32) for name in names}))
    with pytest.raises(UsageError, match="array"):
        network_files.load(path)


@pytest.mark.parametrize(
    "place", ["metrics.jsonl", "results.json.partial", "figures", "checkpoints", "figures/accuracy.png"]
)
def test_a_folder_with_a_link_out_of_it_is_refused(tmp_path, place):
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "run" / place).parent.mkdir(parents=True)
    (tmp_path / "run" / place).symlink_to(target)
    with pytest.raises(UsageError, match=r"is a link out of the run's folder"), lock.alone(tmp_path / "run"):
        pass
    assert target.read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with lock.alone(tmp_path / "link"):  # The whole folder may be elsewhere.
        assert os.listdir(tmp_path / "elsewhere") == [lock.LOCK]


def test_a_config_of_somebody_elses_run_prepares_no_data_where_it_says(tiny_mlp, tmp_path, make_run, caplog):
    make_run(tiny_mlp)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    settings["data"]["dir"] = str(tmp_path / "elsewhere")
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings))
    assert evaluate.load_settings(tmp_path / "run").data.dir == ""
    assert "digits is not prepared in" in caplog.text
    assert not (tmp_path / "elsewhere").exists()
