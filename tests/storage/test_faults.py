"""What disks, machines and second runs do to a run: nothing that was saved is lost, and one message says what happened."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import final_state, make_state, same

from jsubspace import runs
from jsubspace.errors import TrainingDiverged, UsageError
from jsubspace.preemption import Preemption
from jsubspace.runs import build, config_files
from jsubspace.runs.run import train_endpoints
from jsubspace.storage import checksums, lock
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.journal import Journal, Report
from jsubspace.storage.writer import read_rows
from jsubspace.training.parallel import DataParallel
from jsubspace.training.train_state import TrainState


def restore(folder, read_only=False):
    with Checkpoints(folder, read_only=read_only) as checkpoints:
        return checkpoints.restore(jax.eval_shape(make_state), DataParallel((jax.devices()[0],)).replicated)


def files_of(folder):
    return sorted(path for path in folder.glob("*/**/*") if path.is_file())


DAMAGES = {
    "flip": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 4]) + path.read_bytes()[1:]),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "delete": lambda path: path.unlink(),
}


def test_every_damage_to_every_file_is_noticed(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(make_state(step=7), 7, {"a": 1})
    whole = tmp_path / "c" / "7"
    assert checksums.damage(whole) is None
    assert len(files_of(whole)) > 8
    for file in [*files_of(whole), whole / checksums.SUMS]:
        for kind, harm in DAMAGES.items():
            content = file.read_bytes()
            harm(file)
            if (file.name, kind) != (checksums.SUMS, "cut"):  # of its last newline
                assert checksums.damage(whole)
            file.write_bytes(content)
    assert checksums.damage(whole) is None
    (whole / "state" / "d" / "more").write_text("")
    assert checksums.damage(whole) == "state/d/more does not belong to it"


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_set_aside(tmp_path, kind, caplog):
    folder = tmp_path / "c"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(make_state(step), step, {"step": step})
    DAMAGES[kind](files_of(folder / "3")[-1])
    DAMAGES[kind](folder / "2" / "notes" / "metadata")
    state, notes = restore(folder, read_only=True)
    same(state, make_state(1))
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]
    state, notes = restore(folder)
    same(state, make_state(1))
    assert notes == {"step": 1}
    assert caplog.text.count("the checkpoint of step 2 is damaged (notes/metadata is ") == 2
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2.damaged", "3.damaged"]
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(make_state(5, step=3), 3, {"step": 3})  # The name is free.
    same(restore(folder)[0], make_state(5, step=3))


def test_nothing_but_damage_is_a_clear_error(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(make_state(), 1, {})
    shutil.rmtree(tmp_path / "c" / "1" / "state")
    for read_only in (True, False, False):  # It does not look like a new run the next time.
        with pytest.raises(UsageError, match=r"every checkpoint in .* is damaged. Restore one from a copy"):
            restore(tmp_path / "c", read_only=read_only)


def test_a_checkpoint_of_something_else_is_not_called_damaged(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(make_state(m=3, step=1), 1, {})
    with pytest.raises(UsageError, match=r"is complete but its arrays are not those of this run"):
        restore(tmp_path / "c")


def test_the_best_is_kept_beside_the_newest(tmp_path):
    accuracies: dict = {1: None, 2: 0.7, 3: 0.9, 4: 0.8, 5: None, 6: None}
    for steps in ((1, 2, 3, 4), (5, 6)):  # In two processes, as it were.
        with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
            for step in steps:
                metrics = accuracies[step] and {"accuracy": accuracies[step]}
                checkpoints.save(make_state(step), step, {}, metrics)
            assert checkpoints.best_step() == 3
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
        assert checkpoints.best_step() == 3
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["3", "6"]


def test_the_only_checkpoint_is_there_until_the_next_is_complete(tmp_path, monkeypatch):
    """Seen from inside of the save, in the moment before it is complete."""
    seen = []
    write = checksums.write

    def look_and_write(folder):
        seen.append(sorted(path.name for path in (tmp_path / "c").iterdir() if path.name.isdigit()))
        write(folder)

    monkeypatch.setattr(checksums, "write", look_and_write)
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(make_state(step), step, {})
    assert seen == [[], ["1"], ["2"]]


@pytest.fixture
def full_disk():
    """Makes it as if the disk took no file of more than some bytes; the kernel refuses the rest, whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_what_is_there(tmp_path, full_disk):
    big, bigger = init_big(1), init_big(2)
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(big, 1, {})
    checkpoints.wait()
    full_disk(10_000)
    checkpoints.save(bigger, 2, {})
    with pytest.raises(
        UsageError, match=r"cannot save into .*\nthe newest complete checkpoint is of step 1\. Make room"
    ):
        checkpoints.__exit__(None, None, None)
    full_disk(resource.RLIM_INFINITY)
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        restored, _ = checkpoints.restore(big, DataParallel((jax.devices()[0],)).replicated)
        same(restored, big)
        checkpoints.save(bigger, 2, {})
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["2"]


def init_big(step):
    return TrainState(jnp.int32(step), {"w": jax.random.normal(jax.random.key(0), (2, 100, 100))}, ())


def test_a_folder_that_vanishes_is_a_clear_error_and_stays_away(tmp_path):
    with Checkpoints(tmp_path / "run" / "c") as checkpoints:
        checkpoints.save(make_state(), 1, {})
        checkpoints.wait()
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(UsageError, match=r"has vanished. The run cannot be saved and stops at step 2"):
            checkpoints.save(make_state(), 2, {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workdir", ["/proc/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_written_is_a_clear_error(tiny_config, workdir):
    with pytest.raises(UsageError, match=r"cannot write the run's folder .*Choose another --workdir"):
        runs.train(tiny_config, workdir)


def test_a_second_run_in_a_folder_refuses_and_touches_nothing(tiny_config, tmp_path):
    config_files.save(tmp_path, tiny_config)
    with lock.alone(tmp_path):
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(UsageError, match=rf"is in use by process {os.getpid()} on .*choose another --workdir"):
            runs.train(tiny_config, tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with lock.alone(tmp_path):
        pass


def test_the_lock_of_a_killed_process_goes_with_it(tmp_path):
    program = f"from jsubspace import lock; import pathlib, time\nwith lock.alone(pathlib.Path({str(tmp_path)!r})):\n  print('in', flush=True)\n  time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    with pytest.raises(UsageError, match=f"in use by process {process.pid} "), lock.alone(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert json.loads((tmp_path / lock.LOCK).read_text())["pid"] == process.pid
    with lock.alone(tmp_path):
        pass


def test_a_file_system_without_locks_only_warns(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.alone(tmp_path):
        assert "has no file locks: do not start two runs in it" in caplog.text


def test_a_step_that_spoils_the_endpoints_is_not_saved(tiny_mlp, tmp_path):
    """Its loss is finite; the next step's would not be, but there is a checkpoint between them."""
    tiny_mlp.subspace.name = "point"
    tiny_mlp.data.batch_size = 1440  # one step an epoch
    tiny_mlp.num_devices = 1
    tiny_mlp.optimizer.warmup_epochs = 0
    tiny_mlp.optimizer.learning_rate, tiny_mlp.optimizer.weight_decay = 3e38, 1e4
    run = build.build(tiny_mlp)  # Not by `runs.train`, which refuses such a learning rate.
    with pytest.raises(TrainingDiverged, match="the endpoints after step 1 are not finite"):
        train_endpoints(run, tmp_path, Preemption())
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_loss_that_is_no_number_and_a_damaged_checkpoint_change_nothing(tiny_mlp, tmp_path, monkeypatch):
    """A run that is stopped by the first, then ends, then loses its newest checkpoint, and ends again."""
    tiny_mlp.num_devices = 1
    run = build.build(tiny_mlp)
    add = Journal.add

    def add_nan(self, step, info):
        add(self, step, Report(info.names, info.values * jnp.nan) if step == 20 else info)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", add_nan)
        with pytest.raises(TrainingDiverged, match=r"the loss of step 20 is nan\. Nothing since the last checkpoint"):
            train_endpoints(run, tmp_path, Preemption())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["12"]
    train_endpoints(run, tmp_path, Preemption())
    expected = final_state(tiny_mlp, tmp_path)
    rows = read_rows(tmp_path)
    DAMAGES["flip"](files_of(tmp_path / "checkpoints" / "36")[-1])
    train_endpoints(run, tmp_path, Preemption())
    jax.tree.map(np.testing.assert_array_equal, final_state(tiny_mlp, tmp_path), expected)
    strip = lambda rows: [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]  # noqa: E731
    assert strip(read_rows(tmp_path)) == strip(rows)
