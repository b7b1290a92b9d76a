"""Checkpoints whose checksums are right and whose content is not: a stranger can write checksums too."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import dropped_by_orbax, make_state, same

from jsubspace import evaluate, runs
from jsubspace.errors import UsageError
from jsubspace.runs import config_files
from jsubspace.storage import checkpoint_files, checksums, steps
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.training.parallel import DataParallel

NOTES = {"seconds": 1.5, "journal": {"sums": {"loss": 0.5}, "count": 1}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "c"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(make_state(step), step, NOTES, {"accuracy": 0.5})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "c")


def restore(folder, read_only=True, **options):
    with Checkpoints(folder, read_only=read_only) as checkpoints:
        like, devices = jax.eval_shape(make_state), DataParallel((jax.devices()[0],))
        return checkpoints.restore(like, devices.replicated, **options)


BAD_DOCUMENTS = [
    ("notes/metadata", "[1]"),
    ("notes/metadata", '{"seconds": "x"}'),
    ("notes/metadata", '{"seconds": -1}'),
    ("notes/metadata", '{"seconds": 1e400}'),
    ("notes/metadata", '{"journal": {"sums": {"loss": "x"}, "count": 1}}'),
    ("notes/metadata", '{"journal": {"sums": {}, "count": -1}}'),
    ("notes/metadata", '{"journal": {}}'),
    ("metrics/metrics", "garbage"),
    ("metrics/metrics", '{"accuracy": "x"}'),
    ("metrics/metrics", "[" * 100_000),
    ("state/_METADATA", "[" * 100_000),
    ("state/_METADATA", "garbage"),
]


@pytest.mark.parametrize(("name", "text"), BAD_DOCUMENTS)
def test_a_document_that_is_not_what_it_must_be_is_damage(folder, name, text, caplog):
    (folder / "2" / name).write_text(text)
    checksums.write(folder / "2")
    for read_only in (True, False):
        state, notes = restore(folder, read_only)
        same(state, make_state(1))
        assert notes == NOTES
    assert f"the checkpoint of step 2 is damaged ({name}: " in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2.damaged"]


def test_metrics_that_a_disk_has_damaged_cost_one_checkpoint(folder):
    """Orbax reads them when it opens the folder, before the checksums are compared."""
    (folder / "2" / "metrics" / "metrics").write_bytes(b"")
    same(restore(folder)[0], make_state(1))
    (folder / "1" / "metrics" / "metrics").write_bytes(b"")
    with pytest.raises(UsageError, match=r"every checkpoint in .* is damaged"):
        restore(folder, read_only=False)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_a_missing_state_is_damage(folder, caplog):
    shutil.rmtree(folder / "2" / "state")
    checksums.write(folder / "2")
    same(restore(folder)[0], make_state(1))
    assert "step 2 is damaged (state is missing)" in caplog.text


# Where Orbax gives up, its threads are dropped in the middle, and say so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_garbage_in_a_file_of_orbax_is_one_message(folder):
    (folder / "2" / "state" / "manifest.ocdbt").write_bytes(b"garbage")
    checksums.write(folder / "2")
    with pytest.raises(UsageError, match="cannot restore from the folder of checkpoints"):
        restore(folder)
    with Checkpoints(folder, read_only=True) as checkpoints, pytest.raises(UsageError, match="cannot restore from"):
        checkpoints.restore_part("endpoints", DataParallel((jax.devices()[0],)).replicated)
    dropped_by_orbax()


@pytest.mark.parametrize(
    ("step", "name", "message"),
    [
        (-5, "3", "holds the state after step -5"),
        (10**6, "3", "holds the state after step 1000000"),
        (2, "1000000000", "holds the state after step 2"),
        (30, "30", "is of step 30, but the run has 20 steps"),
    ],
)
def test_a_step_agrees_with_its_folder_and_its_run(tmp_path, step, name, message):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(make_state(step=step), 3, NOTES)
    if name != "3":
        (tmp_path / "c" / "3").rename(tmp_path / "c" / name)
    with pytest.raises(UsageError, match=message):
        restore(tmp_path / "c", last_step=20)
    if "holds" in message:
        with Checkpoints(tmp_path / "c", read_only=True) as checkpoints, pytest.raises(UsageError, match=message):
            checkpoints.restore_part("endpoints", DataParallel((jax.devices()[0],)).replicated)


@pytest.mark.parametrize("count", [-1, 4, 2**31 - 1])
def test_the_optimizer_has_counted_no_other_steps(tmp_path, count):
    state = make_state(step=3)
    wrong = jax.tree.map(lambda leaf: jnp.full_like(leaf, count) if leaf.dtype == jnp.int32 else leaf, state.opt_state)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state._replace(opt_state=wrong), 3, NOTES)
    with pytest.raises(UsageError, match="counts other steps in its optimizer"):
        restore(tmp_path / "c")


@pytest.mark.parametrize("name", ["04", "٤", "³", "1" * 30])
def test_a_folder_that_looks_like_a_checkpoint_is_not_passed_over(folder, name):
    (folder / "2").rename(folder / name)
    with pytest.raises(
        UsageError, match="looks like a checkpoint, but a checkpoint is a folder whose name is its step"
    ):
        restore(folder)
    shutil.rmtree(folder / name)
    (folder / "2.damaged").mkdir()
    (folder / "3.orbax-checkpoint-tmp").mkdir()
    assert steps.steps_in(folder) == [1]
    (folder / "5").write_text("")
    with pytest.raises(UsageError, match="looks like a checkpoint"):
        steps.steps_in(folder)


def test_a_file_in_the_place_of_the_folder(tiny_mlp, tmp_path, monkeypatch):
    monkeypatch.setattr("jsubspace.runs.build.build", None)  # Nothing is read before the mistake is found.
    config_files.save(tmp_path, tiny_mlp)
    (tmp_path / "checkpoints").write_text("")
    for call in (lambda: runs.train(tiny_mlp, tmp_path), lambda: evaluate.evaluate(tmp_path)):
        with pytest.raises(UsageError, match="checkpoints is a file, and must be the folder of checkpoints"):
            call()


def test_a_stranger_cannot_name_a_file_outside(folder):
    """The sums name a file beside the checkpoint. It is not read."""
    (folder.parent / "secret").write_text("")
    with (folder / "2" / checksums.SUMS).open("a") as file:
        file.write(f"{'0' * 64}  ../../secret\n")
    assert checksums.damage(folder / "2") == "../../secret is missing"


def test_the_documents_of_a_run_are_what_is_declared(saved):
    for step in ("1", "2"):
        assert checkpoint_files.damage(saved / step) is None
        assert json.loads((saved / step / "notes" / "metadata").read_text()) == NOTES
    assert np.isclose(checkpoint_files.seconds_of(NOTES), 1.5)
