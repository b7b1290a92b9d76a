"""Whole runs: resumed to the same bits after a kill at any moment, for every subspace by the config alone."""

import functools
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from places import REPOSITORY
from whole_runs import StopAt, newest_state, without_speed

from jsubspace import errors, evaluate, runs
from jsubspace.errors import Preempted, TrainingDiverged, UsageError
from jsubspace.runs import build, config_files
from jsubspace.runs.run import train_endpoints, training
from jsubspace.storage import steps
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import read_rows
from jsubspace.training import loop


class Killed(Exception):
    """Instead of a signal, at a moment of the test's choosing."""


@pytest.fixture
def short(tiny_mlp):
    """Three steps an epoch, which are one program."""
    tiny_mlp.data.batch_size, tiny_mlp.num_devices = 479, 1
    return tiny_mlp


def interrupt_twice(train, folder, monkeypatch, preempted, killed):
    """Trains until a signal comes after the step ``preempted``, and then until the step ``killed`` is saved."""
    save = Checkpoints.save

    def save_and_die(self, state, step, *rest):
        save(self, state, step, *rest)
        if step == killed:
            raise Killed

    with pytest.raises(Preempted, match=rf"saved after step {preempted}\."):
        train(folder, StopAt(preempted))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(Killed):
            train(folder, StopAt(0))


@pytest.mark.parametrize(("name", "m"), [("point", 0), ("curve", 0), ("simplex", 3)])
def test_the_same_loop_trains_every_subspace_and_resumes_it_to_the_bit(short, tmp_path, monkeypatch, name, m):
    short.subspace.name, short.subspace.num_endpoints = name, m
    run = build.build(short)
    train = functools.partial(loop.train_endpoints, training(run))
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    train(tmp_path / "whole", StopAt(0))
    interrupt_twice(train, tmp_path / "killed", monkeypatch, preempted=2, killed=6)
    train(tmp_path / "killed", StopAt(0))
    undisturbed = newest_state(run, tmp_path / "whole")
    assert int(undisturbed.step) == 9
    jax.tree.map(np.testing.assert_array_equal, newest_state(run, tmp_path / "killed"), undisturbed)
    assert without_speed(read_rows(tmp_path / "killed")) == without_speed(read_rows(tmp_path / "whole"))


@pytest.mark.usefixtures("no_figures")
def test_a_whole_run_resumes_to_the_bit(tiny_mlp, tmp_path, monkeypatch):
    """A line, from the settings to the results, with a last batch that the devices do not divide."""
    tiny_mlp.data.batch_size = 480
    results = runs.train(tiny_mlp, tmp_path / "whole")
    interrupt_twice(functools.partial(runs.train, tiny_mlp), tmp_path / "killed", monkeypatch, preempted=2, killed=6)
    resumed = runs.train(tiny_mlp, tmp_path / "killed")
    run = build.build(tiny_mlp)
    states = [newest_state(run, tmp_path / name) for name in ("killed", "whole")]
    assert int(states[0].step) == 9
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert without_speed(read_rows(tmp_path / "killed")) == without_speed(read_rows(tmp_path / "whole"))
    assert resumed["points"] == results["points"]
    assert resumed["ensembles"] == results["ensembles"]


def test_kill_9_and_sigterm_and_again(data_dir, tmp_path):
    """The program, killed hard and then softly at moments that the test does not choose, and started again."""
    settings = {"data.dir": data_dir, "model.name": "mlp", "model.depth": 1, "model.width": 8}
    settings |= {"data.batch_size": 479, "num_devices": 1}  # three steps an epoch
    settings |= {"optimizer.num_epochs": 40, "checkpoint_every_epochs": 1, "log_every_steps": 1}
    settings |= {"evaluation.num_points": 3, "evaluation.num_resamples": 20}
    overrides = [f"--config.{field}={value}" for field, value in settings.items()]
    folder = tmp_path / "killed"

    def start():
        file = REPOSITORY / "configs" / "digits_cresnet8_line.py"
        command = [sys.executable, "-m", "jsubspace.main", f"--config={file}", f"--workdir={folder}", *overrides]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)

    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, errors.PREEMPTED)):
        process = start()
        rows, deadline = len(read_rows(folder)), time.monotonic() + 120
        while time.monotonic() < deadline:
            if len(read_rows(folder)) >= rows + 3 and steps.steps_in(folder / "checkpoints"):
                break
            time.sleep(0.02)
        process.send_signal(number)
        _, stderr = process.communicate()
        assert process.returncode == code
    assert "resuming from step" in stderr
    assert "SIGTERM: ending as soon as possible" in stderr
    assert re.search(r"\nstopped by SIGTERM and saved after step \d+. The same command resumes from there.\n$", stderr)
    assert not (folder / "results.json").exists()

    run_config = config_files.load(folder)
    killed, whole = (runs.train(run_config, tmp_path / name) for name in ("killed", "whole"))
    run = build.build(run_config)
    jax.tree.map(np.testing.assert_array_equal, *(newest_state(run, tmp_path / name) for name in ("killed", "whole")))
    assert killed["points"] == whole["points"]


def test_a_finished_run_is_left_alone_and_can_be_evaluated_again(short, tmp_path):
    short.optimizer.num_epochs = 2
    results = runs.train(short, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert runs.train(short, tmp_path / "run") == results
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (tmp_path / "run" / "results.json").unlink()
    assert evaluate.evaluate(tmp_path / "run")["points"] == results["points"]
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert drawn == {"accuracy.png", "endpoints.png", "reliability.png"}


def test_it_resumes_on_another_number_of_devices_equal_to_rounding(tiny_mlp, tmp_path):
    """From two devices to four, against one device without an interruption. No device gets a part of the last batch."""
    tiny_mlp.data.batch_size = 360

    def train(devices, steps, name, saved):
        tiny_mlp.num_devices = devices
        run = build.build(tiny_mlp)
        (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(Preempted, match=f"saved after step {saved}"):
            train_endpoints(run, tmp_path / name, StopAt(steps))
        return newest_state(run, tmp_path / name)

    states = [train(2, 6, "moved", 6), train(4, 5, "moved", 11), train(1, 11, "stayed", 11)]
    for name in ("moved", "stayed"):
        assert [row["step"] for row in read_rows(tmp_path / name, "train")] == [5, 10]
    for state in states[1:]:
        assert int(state.step) == 11
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *states[1:])


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_was_evaluated_on_its_way_goes_on(short, tmp_path):
    short.subspace.name = "point"
    with pytest.raises(Preempted):
        runs.train(short, tmp_path, StopAt(2))
    assert not evaluate.evaluate(tmp_path)["finished"]
    assert runs.train(short, tmp_path)["finished"]
    (tmp_path / "results.json").write_text('{"poi')
    with pytest.raises(UsageError, match=r"results.json is damaged .*Delete it"):
        runs.train(short, tmp_path)


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


def test_divergence_stops_before_it_is_saved(short, tmp_path):
    short.optimizer.learning_rate, short.optimizer.weight_decay = 1000.0, 100.0  # The endpoints grow without end.
    short.optimizer.num_epochs = short.checkpoint_every_epochs = 6
    with pytest.raises(TrainingDiverged, match=r"of step [1-9]"):
        runs.train(short, tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() is None


def test_nothing_to_evaluate(tiny_config, tmp_path):
    with pytest.raises(UsageError, match=r"holds no run \(it has no config.json\)"):
        evaluate.evaluate(tmp_path / "nothing")
    config_files.save(tmp_path / "run", tiny_config)
    with pytest.raises(UsageError, match="has no checkpoint yet"):
        evaluate.evaluate(tmp_path / "run")


@pytest.mark.usefixtures("no_figures")
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
    tiny_config.data.num_validation, tiny_config.data.batch_size, tiny_config.log_every_steps = 237, 600, 1
    tiny_config.model.width, tiny_config.evaluation.num_stats_batches = 2, 1
    results = runs.train(tiny_config, tmp_path / "run")
    rows = read_rows(tmp_path / "run", "train")
    assert rows[-1]["step"] == 4
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert len(results["points"]) == 3


@pytest.mark.parametrize(("step", "due"), [(9, False), (10, True), (20, True), (23, True), (22, False)])
def test_is_due(step, due):
    assert loop.is_due(step, every=10, last=23) == due
