"""Numbers that are not finite: networks that hold them are refused, and files have null in their place."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_runs import make_state, tiny_settings

from jsubspace import evaluate, export, runs
from jsubspace.errors import UsageError
from jsubspace.evaluation.report import ValidationReport
from jsubspace.evaluation.rows import PointRow
from jsubspace.exchange import network_files
from jsubspace.runs import build, results, stacks, summary
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.checkpoint_files import NOTES, seconds_of
from jsubspace.storage.documents import from_json, to_json, without_nan, write_json
from jsubspace.storage.schema import Mismatch
from jsubspace.storage.writer import Writer, read_rows
from jsubspace.training.train_state import not_finite

SETTINGS = settings(deadline=None, derandomize=True, max_examples=200)
BAD = (math.nan, math.inf, -math.inf)
CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64) + 1, 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def strict(text):
    """The content of JSON, for a reader that knows the standard alone."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@SETTINGS
@given(CONTENT)
def test_what_is_written_is_json_and_comes_back(content):
    assert strict(to_json(content)) == without_nan(content)
    assert from_json(json.dumps(content), nan_is_none=True) == without_nan(
        content
    )  # Python's own writer writes NaN and Infinity.


@SETTINGS
@given(st.lists(st.none() | st.floats(), max_size=6), st.sampled_from([1, -1]))
def test_a_number_that_is_not_finite_never_wins(scores, sign):
    rows = [{"name": str(i), "accuracy": score} for i, score in enumerate(scores)]
    finite = [score for score in scores if score is not None and math.isfinite(score)]
    best = summary.best_row(rows, "accuracy", sign)
    assert (best and best["accuracy"]) == (max(finite, key=lambda score: sign * score) if finite else None)
    log = [row | {"kind": "test", "step": 1, "epoch": 1.0} for row in rows]
    stopped = results.early_stopping(log)
    assert (stopped and stopped["accuracy"]) == (max(finite) if finite else None)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_validation_report_never_chooses_nan(order):
    nll = (math.nan, 0.5, 0.7)
    rows = tuple(PointRow(str(i), "grid", ("center",), 0.0, [1.0], {"nll": nll[i]}) for i in order)
    assert ValidationReport("Line()", {}, rows, (), {}, None, {"nll": False}).best("nll").name == "1"


@pytest.mark.parametrize("bad", BAD)
def test_the_best_checkpoint_has_a_finite_score(tmp_path, bad):
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        for step, accuracy in ((1, 0.5), (2, bad), (3, 0.4), (4, bad)):
            checkpoints.save(make_state(step), step, {"seconds": bad}, {"accuracy": accuracy})
        assert checkpoints.best_step() == 1
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "4"]
    for path in (tmp_path / "c").rglob("*"):
        if path.is_file() and path.suffix == "" and path.parent.name in ("notes", "metrics"):
            strict(path.read_text())


def test_seconds_in_notes():
    for notes, seconds in (({}, 0), ({"seconds": None}, 0), ({"seconds": 2}, 2)):
        NOTES.check(notes, "notes")
        assert seconds_of(notes) == seconds
    for bad in (*BAD, "x", -1, True, 10**400):
        with pytest.raises(Mismatch, match=r"notes.seconds is .* and must be a number from 0 on"):
            NOTES.check({"seconds": bad}, "notes")


def test_metrics_have_null(tmp_path):
    with Writer(tmp_path) as writer:
        writer.write("train", 1, {"loss": math.nan, "accuracy": 0.5})
    assert strict((tmp_path / "metrics.jsonl").read_text())["loss"] is None
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": NaN}\n')  # of an older version
    assert read_rows(tmp_path) == [{"kind": "train", "step": 1, "loss": None}]
    Writer(tmp_path, 1).close()
    strict((tmp_path / "metrics.jsonl").read_text())
    write_json(tmp_path / "x.json", {"interval": (0.0, math.inf)})
    assert strict((tmp_path / "x.json").read_text()) == {"interval": [0.0, None]}


@pytest.mark.parametrize("name", ["n.safetensors", "n"])
def test_facts_are_json_or_refused(tmp_path, name):
    with pytest.raises(ValueError, match="JSON compliant"):
        network_files.save(tmp_path / name, {"params": {"w": np.ones(1)}}, {"alpha": math.nan})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", BAD)
def test_the_leaf_is_named(bad):
    tree = {"a": {"kernel": jnp.ones((2, 3))}, "b": jnp.ones(4).at[2].set(bad), "steps": jnp.arange(3)}
    assert not_finite(tree) == "['b']"
    assert not_finite({"a": tree["a"], "steps": tree["steps"]}) is None
    assert not_finite({}) is None


def rewrite(settings, workdir, change):
    """Replaces the newest checkpoint by one with other endpoints. Its checksums are right."""
    run = build.build(settings)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state, notes = checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated)
        step = int(state.step)
    (workdir / "checkpoints" / str(step)).rename(workdir / "old")
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(state._replace(endpoints=jax.tree.map(change, state.endpoints)), step, notes)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """The settings and the folder of a run that has ended."""
    settings, folder = tiny_settings(data_dir), tmp_path_factory.mktemp("finished") / "run"
    settings.model.name, settings.model.depth, settings.model.width = "mlp", 1, 8
    settings.data.batch_size, settings.num_devices, settings.keep_epochs = 479, 1, (3,)
    runs.train(settings, folder)
    return settings, folder


@pytest.fixture
def settings_of_copy(finished, tmp_path):
    """The settings of the run. A copy of it is in the test's own folder."""
    shutil.copytree(finished[1], tmp_path / "run")
    return finished[0].copy_and_resolve_references()


def test_a_diverged_checkpoint_is_refused_by_all_who_read_it(settings_of_copy, tmp_path):
    before = (tmp_path / "run" / "results.json").read_text()
    rewrite(settings_of_copy, tmp_path / "run", lambda leaf: leaf.at[0].set(math.nan) if leaf.ndim == 3 else leaf)
    message = r"the endpoints in .*run are not finite: the leaf \['\w+'\]\['kernel'\] holds NaN or infinity"
    with pytest.raises(UsageError, match=message):
        evaluate.evaluate(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        export.export(tmp_path / "run", tmp_path / "network.safetensors")
    assert (tmp_path / "run" / "results.json").read_text() == before
    assert not (tmp_path / "network.safetensors").exists()
    settings_of_copy.start.runs = str(tmp_path / "run")
    for epoch, epochs in ((0, 0), (3, 4)):  # stacked, and continued
        settings_of_copy.start.epoch, settings_of_copy.optimizer.num_epochs = epoch, epochs
        with pytest.raises(UsageError, match=message):
            stacks.check_start(build.build(settings_of_copy))


def test_endpoints_that_are_too_large_are_reported(settings_of_copy, tmp_path, caplog):
    """They are finite, and the outputs of the network are not."""
    rewrite(settings_of_copy, tmp_path / "run", lambda leaf: leaf * 1e30)
    measured = evaluate.evaluate(tmp_path / "run")
    assert "3 of 3 points have scores that are not finite, the first at 0.00" in caplog.text
    written = strict((tmp_path / "run" / "results.json").read_text())
    assert {row["nll"] for row in written["points"]} == {None}
    assert results.read(tmp_path / "run") == measured
    assert "nan" in results.table(measured)
