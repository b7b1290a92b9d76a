"""Whole runs: resumed to the same bits after a kill at any moment, for every subspace by the config alone."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from places import REPOSITORY
from whole_runs import StopAt, final_state, without_speed

from jsubspace import errors, evaluate, runs
from jsubspace.errors import Preempted, TrainingDiverged, UsageError
from jsubspace.runs import config_files
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import read_rows
from jsubspace.training import loop


class Killed(Exception):
    """Instead of a signal, at a moment of the test's choosing."""


@pytest.mark.parametrize(("name", "m"), [("point", 0), ("line", 0), ("curve", 0), ("simplex", 3)])
def test_the_same_loop_trains_every_subspace_and_resumes_it_to_the_bit(tiny_mlp, tmp_path, monkeypatch, name, m):
    tiny_mlp.subspace.name, tiny_mlp.subspace.num_endpoints = name, m
    results = runs.train(tiny_mlp, tmp_path / "whole")
    undisturbed = final_state(tiny_mlp, tmp_path / "whole")
    assert int(undisturbed.step) == 36

    save = Checkpoints.save

    def save_and_die(self, state, step, *rest):
        save(self, state, step, *rest)
        if step == 24:
            raise Killed

    with pytest.raises(Preempted, match="saved after step 7"):
        runs.train(tiny_mlp, tmp_path / "killed", StopAt(7))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(Killed):
            runs.train(tiny_mlp, tmp_path / "killed")
    resumed = runs.train(tiny_mlp, tmp_path / "killed")
    jax.tree.map(np.testing.assert_array_equal, final_state(tiny_mlp, tmp_path / "killed"), undisturbed)
    assert without_speed(read_rows(tmp_path / "killed")) == without_speed(read_rows(tmp_path / "whole"))
    assert resumed["points"] == results["points"]
    assert resumed["ensembles"] == results["ensembles"]


def test_kill_9_and_sigterm_and_again(data_dir, tmp_path):
    """The program, killed hard and then softly at moments that the test does not choose, and started again."""
    settings = {"data.dir": data_dir, "model.name": "mlp", "model.depth": 1, "num_devices": 2}
    settings |= {"optimizer.num_epochs": 24, "checkpoint_every_epochs": 1, "log_every_steps": 4}
    settings |= {"evaluation.num_points": 3, "evaluation.num_resamples": 10}
    overrides = [f"--config.{field}={value}" for field, value in settings.items()]

    def start(workdir):
        file = REPOSITORY / "configs" / "digits_cresnet8_line.py"
        command = [sys.executable, "-m", "jsubspace.main", f"--config={file}", f"--workdir={workdir}", *overrides]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)

    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, errors.PREEMPTED)):
        process = start(tmp_path / "killed")
        rows, deadline = len(read_rows(tmp_path / "killed")), time.monotonic() + 120
        while len(read_rows(tmp_path / "killed")) < rows + 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, stderr = process.communicate()
        assert process.returncode == code
    assert "SIGTERM: ending as soon as possible" in stderr
    assert re.search(r"\nstopped by SIGTERM and saved after step \d+. The same command resumes from there.\n$", stderr)
    assert not (tmp_path / "killed" / "results.json").exists()

    again = start(tmp_path / "killed")
    _, stderr = again.communicate()
    assert "resuming from step" in stderr
    assert again.returncode == 0
    run_config = config_files.load(tmp_path / "killed")
    runs.train(run_config, tmp_path / "whole")
    jax.tree.map(
        np.testing.assert_array_equal,
        final_state(run_config, tmp_path / "killed"),
        final_state(run_config, tmp_path / "whole"),
    )
    whole, killed = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed"))
    assert killed["points"] == whole["points"]


def test_a_finished_run_is_left_alone_and_can_be_evaluated_again(tiny_mlp, tmp_path):
    results = runs.train(tiny_mlp, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert runs.train(tiny_mlp, tmp_path / "run") == results
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (tmp_path / "run" / "results.json").unlink()
    assert evaluate.evaluate(tmp_path / "run")["points"] == results["points"]
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert drawn == {"accuracy.png", "endpoints.png", "reliability.png"}


def test_it_resumes_on_another_number_of_devices_equal_to_rounding(tiny_mlp, tmp_path):
    states = []
    for devices in (1, 2):
        tiny_mlp.num_devices = devices
        with pytest.raises(Preempted):
            runs.train(tiny_mlp, tmp_path / f"from_{devices}", StopAt(17))
    for before, after in ((1, 1), (1, 4), (2, 1)):
        workdir = tmp_path / f"from_{before}_to_{after}"
        shutil.copytree(tmp_path / f"from_{before}", workdir)
        tiny_mlp.num_devices = after
        with pytest.raises(Preempted, match="saved after step 31"):
            runs.train(tiny_mlp, workdir, StopAt(14))
        states.append(final_state(tiny_mlp, workdir))
        assert [row["step"] for row in read_rows(workdir, "train")] == [5, 10, 15, 20, 25, 30]
    for other in states[1:]:
        assert int(other.step) == 31
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), other, states[0])


def test_a_run_that_was_evaluated_on_its_way_goes_on(tiny_mlp, tmp_path):
    tiny_mlp.subspace.name = "point"
    with pytest.raises(Preempted):
        runs.train(tiny_mlp, tmp_path, StopAt(7))
    assert not evaluate.evaluate(tmp_path)["finished"]
    assert runs.train(tiny_mlp, tmp_path)["finished"]
    (tmp_path / "results.json").write_text('{"poi')
    with pytest.raises(UsageError, match=r"results.json is damaged .*Delete it"):
        runs.train(tiny_mlp, tmp_path)


def test_other_config_in_the_same_folder_is_refused(tiny_config, tmp_path):
    config_files.save(tmp_path / "run", tiny_config)
    tiny_config.penalty.beta = 2.0
    tiny_config.num_devices = 4  # where it runs does not matter
    with pytest.raises(UsageError, match=r"holds another run:\n  config.penalty.beta: 1.0 there, 2.0 here\n"):
        runs.train(tiny_config, tmp_path / "run")
    assert config_files.load(tmp_path / "run").penalty.beta == 1.0


def test_a_folder_of_something_else_is_refused(tiny_config, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        runs.train(tiny_config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_divergence_stops_before_it_is_saved(tiny_mlp, tmp_path):
    tiny_mlp.optimizer.learning_rate, tiny_mlp.optimizer.weight_decay = 1000.0, 100.0  # The endpoints grow without end.
    with pytest.raises(TrainingDiverged, match=r"of step [1-9]"):
        runs.train(tiny_mlp, tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() is None


def test_nothing_to_evaluate(tiny_config, tmp_path):
    with pytest.raises(UsageError, match=r"holds no run \(it has no config.json\)"):
        evaluate.evaluate(tmp_path / "nothing")
    config_files.save(tmp_path / "run", tiny_config)
    with pytest.raises(UsageError, match="has no checkpoint yet"):
        evaluate.evaluate(tmp_path / "run")


def test_per_device_batch_norm_several_samples_and_the_other_switches(tiny_config, tmp_path):
    tiny_config.model.sync_batch_norm = False
    tiny_config.model.dropout_rate = 0.1
    tiny_config.subspace.num_samples = 2
    tiny_config.subspace.layerwise = True
    tiny_config.subspace.shared_init = True
    tiny_config.penalty.all_pairs = True
    tiny_config.penalty.all_leaves = True
    tiny_config.optimizer.per_epoch = True
    tiny_config.optimizer.label_smoothing = 0.1
    tiny_config.optimizer.num_epochs = 2
    tiny_config.data.label_noise = 0.2
    results = runs.train(tiny_config, tmp_path / "run")
    rows = read_rows(tmp_path / "run", "train")
    assert rows[-1]["step"] == 20
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert len(results["points"]) == 3


@pytest.mark.parametrize(("step", "due"), [(9, False), (10, True), (20, True), (23, True), (22, False)])
def test_is_due(step, due):
    assert loop.is_due(step, every=10, last=23) == due
