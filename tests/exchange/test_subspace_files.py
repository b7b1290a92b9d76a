"""Endpoints with their map as a folder: what comes back is what was saved, and a stranger needs numpy alone."""

import json
import os

import equinox as eqx
import guides
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from own_subspaces import Ring

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.exchange import model_card, subspace_files
from jsubspace.subspaces import Chain, Curve, Line, Point, Simplex

KEY = jax.random.key(0)


def endpoints_of(m, dtype=np.float32):
    rng = np.random.default_rng(m)
    return {
        "blocks": [{"kernel": rng.normal(size=(m, 3, 2)).astype(dtype)}, {"kernel": rng.normal(size=(m, 2, 2)).astype(dtype)}],
        "bias": rng.normal(size=(1, 2)).astype(dtype),
    }  # fmt: skip


def bits(tree):
    return [(str(leaf.dtype), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def measured():
    endpoints = {"kernel": jax.random.normal(KEY, (2, 4, 3))}
    x = jax.random.normal(jax.random.key(1), (30, 4))
    batches = [(x, jnp.argmax(x[:, :3], axis=1))]
    report = jsubspace.measure(lambda p, x: x @ p["kernel"], endpoints, Line(), batches, num_points=3, num_resamples=20)
    return endpoints, report


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The reader of the guide, which is executed whole."""
    folder, before = tmp_path_factory.mktemp("guide"), os.getcwd()
    os.chdir(folder)
    try:
        return guides.execute("files.md")
    finally:
        os.chdir(before)


SUBSPACES = [Point(), Line(), Curve(), Curve(3), Chain(), Chain(4), Simplex(1), Simplex(5)]


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("subspace", SUBSPACES, ids=repr)
def test_a_subspace_comes_back_and_numpy_reads_it(subspace, dtype, tmp_path, reader):
    endpoints = endpoints_of(subspace.num_endpoints, dtype)
    jsubspace.save_subspace(tmp_path / "s", endpoints, subspace, batch_norm="reestimate")
    found = jsubspace.load_subspace(tmp_path / "s")
    assert found.subspace == subspace
    assert jax.tree.structure(found.endpoints) == jax.tree.structure(endpoints)
    assert bits(found.endpoints) == bits(endpoints)
    assert (found.layers, found.facts["batch_norm"]) == (None, "reestimate")
    assert found.facts["shared"] == (["bias"] if subspace.num_endpoints > 1 else [])
    for alpha in [subspace.center, *subspace.ends, *subspace.sample(KEY, (3,))]:
        network = reader["read_network"](tmp_path / "s", np.asarray(alpha).tolist())
        ours = jsubspace.interpolate(found.endpoints, alpha, found.subspace)
        assert list(network) == sorted(["bias", "blocks/0/kernel", "blocks/1/kernel"])
        for name, leaf in zip(sorted(network), jax.tree.leaves(ours), strict=True):
            theirs = network[name].astype(np.float32)
            np.testing.assert_allclose(
                theirs, leaf.astype(np.float32), rtol=1e-5 if dtype == np.float32 else 0.01, atol=1e-6
            )


def test_the_reader_is_short_and_needs_numpy_alone():
    (code,) = (block for block in guides._blocks("files.md") if "def read_network" in block)
    lines = code[: code.index("np.testing")].splitlines()
    assert len([line for line in lines if line.strip()]) <= 40
    assert {line for line in lines if line.startswith(("import", "from"))} == {
        "import json",
        "import math",
        "import numpy as np",
    }


def test_everything_that_is_said_comes_back(tmp_path, measured):
    endpoints, report = measured
    jsubspace.save_subspace(
        tmp_path / "s", endpoints, Line(), report=report, layers=jsubspace.layers(endpoints), batch_norm="none",
        normalization={"mean": (0.5, 0.25, 0), "std": np.ones(3)}, commit="0123abc",
        card={"license": "apache-2.0", "datasets": ["a", 'b: "c"'], "tags": "jax"},
    )  # fmt: skip
    found = jsubspace.load_subspace(tmp_path / "s")
    assert found.layers == {"kernel": ""}
    assert found.facts["normalization"] == {"mean": [0.5, 0.25, 0], "std": [1, 1, 1]}
    assert (
        found.facts["provenance"] | {"version": jsubspace.__version__, "commit": "0123abc"} == found.facts["provenance"]
    )
    assert found.facts["provenance"]["date"].endswith("+00:00")
    rows = found.facts["report"]["points"]
    assert [(row["alpha"], row["accuracy"]) for row in rows] == [(row.alpha, row.accuracy) for row in report.points]
    assert (tmp_path / "s" / "alpha.png").read_bytes()[:4] == b"\x89PNG"
    _, header, card = (tmp_path / "s" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "jsubspace", "license": "apache-2.0", "datasets": ["a", 'b: "c"'],
        "tags": ["jsubspace", "jax", "weight-averaging"],
    }  # fmt: skip
    for words in (
        "# Line() of 2 networks",
        "](alpha.png)",
        report.table().splitlines()[0],
        "no BatchNorm",
        "commit: 0123abc",
    ):
        assert words in card
    code = card[card.index("```python\n") + 10 : card.index("\n```", card.index("```python\n"))]
    names = {}
    exec(code.replace("path/to/this/folder", str(tmp_path / "s")), names)
    np.testing.assert_allclose(names["network"]["kernel"], endpoints["kernel"].mean(axis=0), rtol=1e-6)

    jsubspace.save_subspace(tmp_path / "s", endpoints, Line())  # Nothing of the former subspace stays.
    assert sorted(os.listdir(tmp_path / "s")) == ["README.md", "endpoints.safetensors", "subspace.json"]
    assert jsubspace.load_subspace(tmp_path / "s").facts["report"] is None


def test_scanned_layers_come_back(tmp_path):
    endpoints = {"blocks": {"w": jnp.ones((2, 5, 3, 3))}, "head": {"w": jnp.ones((2, 3, 5))}}
    layers = jsubspace.layers(endpoints, scanned="blocks")
    jsubspace.save_subspace(tmp_path / "s", endpoints, Line(), layers=layers)
    assert jsubspace.load_subspace(tmp_path / "s").layers == layers


def test_endpoints_get_the_tree_of_a_module(tmp_path):
    def init(key):
        return eqx.nn.MLP(2, 3, 4, 1, key=key)

    endpoints = jsubspace.stack([eqx.filter(init(key), eqx.is_array) for key in jax.random.split(KEY)])
    jsubspace.save_subspace(tmp_path / "s", endpoints, Line())
    like = eqx.filter(init(KEY), eqx.is_array)
    found = jsubspace.load_subspace(tmp_path / "s", like=like)
    assert jax.tree.structure(found.endpoints) == jax.tree.structure(endpoints)
    assert bits(found.endpoints) == bits(endpoints)
    with pytest.raises(UsageError, match=r"is not the network of like="):
        jsubspace.load_subspace(tmp_path / "s", like={"w": jnp.ones(3)})


def test_a_subspace_of_a_users_own_is_known_by_name(tmp_path):
    endpoints = endpoints_of(3)
    jsubspace.save_subspace(tmp_path / "s", endpoints, Ring())
    with pytest.raises(
        UsageError, match=r"of the class own_subspaces.Ring, which is not .* load_subspace\(folder, subspace=Ring\(\)\)"
    ):
        jsubspace.load_subspace(tmp_path / "s")
    ring = Ring()
    assert jsubspace.load_subspace(tmp_path / "s", ring).subspace is ring
    with pytest.raises(
        UsageError, match=r"holds the subspace own_subspaces.Ring\(\), but subspace= is Simplex.*other weights"
    ):
        jsubspace.load_subspace(tmp_path / "s", Simplex(3))
    jsubspace.save_subspace(tmp_path / "c", endpoints, Curve())
    with pytest.raises(UsageError, match=r"holds the subspace Curve\(num_bends=1\), but subspace= is Chain"):
        jsubspace.load_subspace(tmp_path / "c", Chain())


@pytest.mark.parametrize("killed_at", range(4))
def test_a_killed_save_leaves_the_old_subspace_or_the_new_one(tmp_path, monkeypatch, measured, killed_at):
    """The map of a curve never meets the endpoints of a simplex, at whichever file the process is killed."""
    old, new = endpoints_of(3), jax.tree.map(lambda leaf: leaf + 1, endpoints_of(3))
    jsubspace.save_subspace(tmp_path / "s", old, Curve())
    write, count = subspace_files.files.new_file, [0]

    def new_file(path):
        if count[0] == killed_at:
            raise KeyboardInterrupt
        count[0] += 1
        return write(path)

    monkeypatch.setattr(subspace_files.files, "new_file", new_file)
    try:
        jsubspace.save_subspace(tmp_path / "s", new, Simplex(3))
    except KeyboardInterrupt:
        assert count[0] == killed_at
    found = jsubspace.load_subspace(tmp_path / "s")
    expected = (old, Curve()) if killed_at == 0 else (new, Simplex(3))
    assert (bits(found.endpoints), found.subspace) == (bits(expected[0]), expected[1])


def changed(folder, change):
    content = json.loads((folder / "subspace.json").read_text())
    change(content)
    (folder / "subspace.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "subspace.json.version is 2, and must be 1"),
        (lambda c: c.update(format="x"), "format is 'x'"),
        (lambda c: c["subspace"].update(parameters={"bends": 1}), r"the parameters of Curve are \{'bends': 1\}"),
        (lambda c: c["subspace"].update(parameters={"num_bends": 99}), "a curve has at least one bend"),
        (lambda c: c["subspace"].update(parameters={"num_bends": 2}), "its positions are not"),
        (lambda c: c["subspace"]["positions"][0].update(alpha="x"), "its positions are not"),
        (lambda c: c["subspace"]["positions"][0].update(weights=[1, 0, 0]), "its positions are not"),
        (lambda c: c.update(layers=[]), "its layers are not"),
    ],
)
def test_a_strange_map_is_refused(tmp_path, change, message):
    jsubspace.save_subspace(tmp_path / "s", endpoints_of(3), Curve())
    changed(tmp_path / "s", change)
    with pytest.raises(UsageError, match=rf"is damaged.*{message}"):
        jsubspace.load_subspace(tmp_path / "s")


def test_what_does_not_belong_together_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no subspace: it has no endpoints.safetensors"):
        jsubspace.load_subspace(tmp_path)
    jsubspace.save(tmp_path / "endpoints.safetensors", endpoints_of(3))
    with pytest.raises(UsageError, match=r"subspace.json is missing, or belongs to other endpoints"):
        jsubspace.load_subspace(tmp_path)
    jsubspace.save_subspace(tmp_path / "s", endpoints_of(2), Line())
    changed(tmp_path / "s", lambda c: c.update(batch_norm="none"))  # A stranger may say more about the same endpoints.
    assert jsubspace.load_subspace(tmp_path / "s").facts["batch_norm"] == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_norm": "yes"}, 'batch_norm is \'yes\', but it must be "none" or "reestimate"'),
        ({"normalization": {"mean": [0.5]}}, "normalization is .*numbers of each channel"),
        ({"normalization": {"mean": [0.5], "std": [0.0]}}, "std is above 0"),
        ({"report": {"points": []}}, "report is a dict without leaves, but it must be a report of jsubspace.measure"),
        ({"layers": {"w": "a"}}, "layers is no tree like the endpoints: it lacks leaf"),
        ({"commit": 3}, "commit is 3"),
        ({"card": {"license": 3}}, r"card\['license'\] is 3"),
        ({"card": {"library_name": "mine"}}, "card has the field 'library_name'"),
        ({"card": {"license": "a\nb: c"}}, r"card\['license'\]"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.save_subspace(tmp_path / "s", endpoints_of(2), Line(), **options)
    assert not (tmp_path / "s").exists()


def test_what_is_no_subspace_is_refused(tmp_path, measured):
    with pytest.raises(ValueError, match="has 2 endpoints but 3 were given"):
        jsubspace.save_subspace(tmp_path / "s", endpoints_of(3), Line())
    with pytest.raises(ValueError, match="not finite: the leaf w holds NaN"):
        jsubspace.save_subspace(tmp_path / "s", {"w": np.array([[1.0], [np.nan]])}, Line())
    with pytest.raises(ValueError, match=r"report was measured of Line\(\), and not of these 3 endpoints"):
        jsubspace.save_subspace(tmp_path / "s", endpoints_of(3), Curve(), report=measured[1])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*file"):
        jsubspace.save_subspace(tmp_path / "file", endpoints_of(2), Line())


def test_a_card_without_matplotlib_has_its_table(tmp_path, measured, monkeypatch):
    def plot(self, path):
        raise ModuleNotFoundError("matplotlib")

    monkeypatch.setattr(type(measured[1]), "plot", plot)
    jsubspace.save_subspace(tmp_path, measured[0], Line(), report=measured[1])
    card = (tmp_path / model_card.CARD).read_text()
    assert "midpoint" in card
    assert model_card.PICTURE not in card
