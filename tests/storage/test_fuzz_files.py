"""Whatever a file of a run, of a network or of prepared data holds: a reader works, says one sentence, or logs one line.

The files of one finished run are changed at random, and read as the programs read them. Checksums are written again, since
a stranger can do it too.
"""

import contextlib
import json
import shutil

import hypothesis
import jax
import mutations
import numpy as np
import pytest
from hypothesis import strategies as st
from whole_runs import dropped_by_orbax, tiny_settings

from jsubspace import compare, endings, evaluate, export, runs, shown
from jsubspace.data import examples, sets
from jsubspace.exchange import leaf_files, network_files
from jsubspace.runs import build, config_files, results, summary
from jsubspace.storage import checksums
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import Writer, read_rows

# Where Orbax gives up, its threads and coroutines are dropped in the middle, and say so when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collect_what_orbax_drops():
    """Otherwise a test of another module would find it."""
    yield
    dropped_by_orbax()


class Place:
    """A folder with a finished run, its network and its data, and the settings of the run."""

    def __init__(self, folder, settings):
        self.folder, self.run, self.other, self.settings = folder, folder / "run", folder / "other", settings
        self.built = build.build(settings)
        self.like = jax.eval_shape(self.built.init_state)

    def checkpoints(self):
        return sorted((self.run / "checkpoints").iterdir(), key=lambda path: int(path.name))


@pytest.fixture(scope="session")
def place(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(data_dir, folder / "data")
    settings = tiny_settings(str(folder / "data"))
    settings.model.name, settings.model.depth, settings.model.width = "mlp", 1, 8
    settings.data.num_validation, settings.evaluation.every_epochs, settings.num_devices = 100, 1, 1
    runs.train(settings, folder / "run")
    shutil.copytree(folder / "run", folder / "other")
    export.export(folder / "run", folder / "network.safetensors")
    export.export(folder / "run", folder / "network")
    (folder / "shards").mkdir()
    shutil.copy(folder / "network.safetensors", folder / "shards")
    where = dict.fromkeys(leaf_files.find(folder / "network.safetensors").shapes, "network.safetensors")
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return Place(folder, settings)


def read_settings(place):
    config_files.load(place.run)


def read_results(place):
    found = results.read(place.run)
    json.dumps(found, allow_nan=False)
    assert shown.escaped(summary.table(found)) == summary.table(found)


def compare_runs(place):
    entries = compare.compare([place.run, place.other])
    for line in compare.table(entries).splitlines():
        assert line.replace(r"\|", "").count("|") in (11, 17)


def read_log(place):
    rows = read_rows(place.run)
    json.dumps(rows, allow_nan=False)
    results.early_stopping(rows, "validation")
    folder = place.folder / "written"
    folder.mkdir()
    shutil.copy(place.run / "metrics.jsonl", folder)
    with Writer(folder, 20) as writer:
        writer.write("train", 21, {"loss": 0.5})
    assert read_rows(folder)[-1] == {"kind": "train", "step": 21, "loss": 0.5}


def restore(place):
    devices = place.built.devices
    for read_only in (True, False):
        with Checkpoints(place.run / "checkpoints", read_only=read_only) as checkpoints:
            like = (place.like, devices.replicated)
            state, notes = checkpoints.restore(*like, last_step=place.built.total_steps)
            assert int(state.step) in (11, 22, 33)
            json.dumps(notes, allow_nan=False)
            checkpoints.restore_part("endpoints", devices.replicated)


def load_network(place):
    for name in ("network.safetensors", "network"):
        network, facts = network_files.load(place.folder / name)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(network))
        json.dumps(facts, allow_nan=False)


def stream_networks(place):
    for name in ("network.safetensors", "network", "shards"):
        stored = leaf_files.find(place.folder / name)
        assert len(stored.digest()) == 64
        for name, array in stored.read(list(stored.shapes)):
            assert (array.shape, array.dtype) == (stored.shapes[name].shape, stored.shapes[name].dtype)


def read_data(place):
    found = examples.read(sets.find("digits"), str(place.folder / "data"), "test")
    assert found.images.shape == (360, 8, 8, 1)
    assert set(found.labels) == set(range(10))


def evaluate_run(place):
    measured = evaluate.evaluate(place.run)
    json.dumps(measured, allow_nan=False)


def export_run(place):
    export.export(place.run, place.folder / "exported.safetensors")


def train_run(place):
    with contextlib.suppress(FileNotFoundError):
        (place.run / "results.json").unlink()
    json.dumps(runs.train(place.settings, place.run), allow_nan=False)


TARGETS = {
    "config.json": (["run/config.json"], [read_settings]),
    "results.json": (["run/results.json"], [read_results, compare_runs]),
    "metrics.jsonl": (["run/metrics.jsonl"], [read_log]),
    "per_example.npz": (["run/per_example.npz"], [compare_runs]),
    "documents of a checkpoint": (
        [f"run/checkpoints/33/{name}" for name in ("notes/metadata", "metrics/metrics", "_CHECKPOINT_METADATA",
                                                   "state/_METADATA", "state/_sharding")],
        [restore],
    ),
    "files of a checkpoint": (["run/checkpoints/33/*/**/*"], [restore]),
    "network": (["network.safetensors", "network/facts.json", "network/network/**/*"], [load_network]),
    "network of another program": (["network.safetensors", "network/network/**/*", "shards/*"], [stream_networks]),
    "data": (["data/digits/1.0.0/*.json", "data/digits/1.0.0/*test*"], [read_data]),
}  # fmt: skip
"""What is changed, and who reads it."""

PROGRAMS = {
    "evaluate": (["run/config.json", "run/metrics.jsonl", "run/checkpoints/33/notes/metadata"], [evaluate_run]),
    "export": (["run/config.json", "run/checkpoints/33/state/_METADATA"], [export_run]),
    "main": (["run/metrics.jsonl", "run/checkpoints/33/notes/metadata"], [train_run]),
}


def fuzz(place, target, num_examples, tmp_path):
    names, readers = target

    @hypothesis.settings(
        max_examples=num_examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(st.data())
    def one(data):
        copied = tmp_path / "place"
        shutil.rmtree(copied, ignore_errors=True)
        for part in {name.partition("/")[0] for name in names}:
            copy(place.folder / part, copied / part)
        here = Place.__new__(Place)
        here.__dict__ |= place.__dict__ | {"folder": copied, "run": copied / "run"}
        files = sorted(path for name in names for path in copied.glob(name) if path.is_file())
        change(data.draw, data.draw(st.sampled_from(files)))
        for reader in readers:
            outcome(reader, here)

    one()


def copy(path, to):
    if path.is_dir():
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("figures", "events.*"))
    else:
        to.parent.mkdir(exist_ok=True)
        shutil.copy(path, to)


def change(draw, path):
    content = path.read_bytes()
    if path.suffix == ".jsonl":
        lines = content.split(b"\n")
        i = draw(st.integers(0, len(lines) - 2))
        lines[i] = mutations.mutated_json(draw, lines[i].decode())
        path.write_bytes(b"\n".join(lines))
    elif path.suffix in (".json", "") and content.startswith(b"{"):
        path.write_bytes(mutations.mutated_json(draw, content.decode()))
    else:
        path.write_bytes(mutations.mutated_bytes(draw, content))
    for folder in path.parents:
        if (folder / checksums.SUMS).exists():
            checksums.write(folder)


def outcome(reader, place):
    """Runs a reader. It may work, or end with an exception that a program knows."""
    try:
        reader(place)
    except Exception as error:
        known = endings.as_known(error)
        if known is None:
            raise
        assert 10 < len(str(known)) < 2000
        assert "Error:" not in str(known).split("\n")[0][:40]


@pytest.mark.parametrize("name", TARGETS)
def test_readers(name, place, tmp_path):
    fuzz(place, TARGETS[name], 18, tmp_path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name, place, tmp_path):
    fuzz(place, PROGRAMS[name], 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_readers_thousands_of_times(name, place, tmp_path):
    fuzz(place, TARGETS[name], 500, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_often(name, place, tmp_path):
    fuzz(place, PROGRAMS[name], 30, tmp_path)
