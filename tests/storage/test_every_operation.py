"""Every operation on the disk is attacked in turn, and the same commands end as if nothing had happened.

A chain of commands prepares data, trains a tiny run, and evaluates, exports and compares it. Each command is started again
until it ends by itself, and every start meets the attack on another operation (`attacked`).
"""

import errno
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import quick_compiling
from attacked import CHANGES, ERRORS, parts
from forked_commands import LATER_IMPORTS, Worker
from places import REPOSITORY
from whole_runs import final_state, same, without_speed

from experiments.lib.ends import points
from jsubspace.exchange import network_files
from jsubspace.runs import config_files
from jsubspace.storage import files
from jsubspace.storage.writer import read_rows

SETTINGS = {
    "model.name": "mlp", "model.depth": 1, "model.width": 8,
    "data.batch_size": 479, "optimizer.num_epochs": 2, "optimizer.warmup_epochs": 1, "num_devices": 1,
    "checkpoint_every_epochs": 1, "log_every_steps": 2,
    "evaluation.num_points": 3, "evaluation.num_resamples": 20, "evaluation.num_random_points": 1,
}  # fmt: skip


def commands(folder):
    """The commands of a whole life in a folder."""
    run, data = folder / "run", folder / "data"
    settings = [f"--config.{name}={value}" for name, value in (SETTINGS | {"data.dir": data}).items()]
    config = REPOSITORY / "configs" / "digits_cresnet8_line.py"
    return [
        ["jsubspace.data.prepare", "digits", f"--data_dir={data}"],
        ["jsubspace.main", f"--config={config}", f"--workdir={run}", *settings],
        ["jsubspace.evaluate", f"--workdir={run}", "--config.evaluation.num_points=5"],
        ["jsubspace.export", f"--workdir={run}", f"--to={folder / 'network.safetensors'}"],
        ["jsubspace.export", f"--workdir={run}", f"--to={folder / 'network'}", "--alpha=0.25"],
        ["jsubspace.compare", str(run), f"--out={folder / 'comparison'}"],
    ]


def leave_half_a_data_set(folder):
    """What TFDS leaves when it is killed."""
    for number in range(3):
        file = folder / "data" / "digits" / "incomplete.7_1.0.0" / str(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")


def end_of(folder):
    """Everything at the end of the chain that must be the same, to the bit."""
    run = folder / "run"
    results = json.loads((run / "results.json").read_text())
    del results["seconds"], results["config"]["data"]["dir"]
    with np.load(run / "per_example.npz") as arrays:
        scores = {name: arrays[name].tolist() for name in arrays.files}
    exported = [network_files.load(folder / name) for name in ("network.safetensors", "network")]
    for _, facts in exported:
        del facts["config"]["data"]["dir"]
    comparison = [(folder / "comparison" / name).read_text() for name in ("table.md", "comparison.json")]
    return {
        "names": sorted({_without_numbers(path.relative_to(folder).as_posix()) for path in folder.rglob("*")}),
        "rows": without_speed(read_rows(run)),
        "points": points(run),
        "results": results,
        "scores": scores,
        "exported": [(_lists(network), facts) for network, facts in exported],
        "comparison": [text.replace(str(folder), "") for text in comparison],
    }


def _lists(network):
    return {name: array.tolist() for name, array in network_files.flatten(network).items()}


def _without_numbers(name):
    """The name of a file, without the time in the names of events and without the random names of OCDBT."""
    if "events.out" in name:
        return "events"
    return name.rpartition("/d/")[0] + "/d/" if "/d/" in name else name


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    compiled = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        started = Worker(REPOSITORY, compiled, LATER_IMPORTS, quick_compiling.FLAGS)
    yield started
    started.end()


@pytest.fixture(scope="module")
def undisturbed(worker, tmp_path_factory):
    """The folder of a chain that is not attacked, its end, and the callers and operations that it had."""
    folder = tmp_path_factory.mktemp("undisturbed")
    plan = make_plan(folder.parent / "watch.json", "watch")
    leave_half_a_data_set(folder)
    for command in commands(folder):
        code, text = live(worker, plan, command)
        assert code == 0, text
    return folder, end_of(folder), seen(plan)


def make_plan(path, attack, every=False):
    path.write_text(json.dumps({"attack": attack, "every": every, "seen": []}))
    return path


def seen(plan):
    return json.loads(plan.read_text())["seen"]


def live(worker, plan, command):
    """The exit code and the output of a command that is attacked."""
    log = plan.with_suffix(".log")
    log.unlink(missing_ok=True)
    worker.start([["tests.attacked", str(plan), *command]], log)
    _, code = worker.ending()
    return code, log.read_text()


def attack(worker, folder, kind, every):
    """Lives a whole chain under attack. Returns code and output of all lives that were attacked, and what was attacked."""
    plan = make_plan(folder.parent / f"{kind}.json", kind, every)
    leave_half_a_data_set(folder)
    outcomes = []
    for command in commands(folder):
        code = None
        while code != 0:
            before = len(seen(plan))
            code, text = live(worker, plan, command)
            if code != 0:
                assert len(seen(plan)) > before, f"{command} ended without an attack: {text}"
                outcomes.append((code, text))
                assert kind == "kill" or not [*folder.rglob("*.partial")], seen(plan)[-1]
                for word in command:  # An export that was complete would be refused.
                    if word.startswith("--to="):
                        files.remove(pathlib.Path(word.removeprefix("--to=")))
    return outcomes, set(seen(plan))


QUICK_AND_ALL = [False, pytest.param(True, marks=pytest.mark.slow)]


@pytest.mark.parametrize("every", QUICK_AND_ALL)
def test_a_kill_at_every_operation_loses_nothing(worker, undisturbed, tmp_path, every):
    outcomes, attacked = attack(worker, tmp_path / "life", "kill", every)
    check_same_end(undisturbed, tmp_path / "life")
    assert {code for code, _ in outcomes} == {-9}
    for name in undisturbed[2]:
        if (
            name.split()[-1] in CHANGES and "_partial" not in name
        ):  # All partial files are alike, and are attacked once.
            assert {f"after {name}", f"half of {name}"} & attacked, name


@pytest.mark.parametrize("every", QUICK_AND_ALL)
def test_an_error_at_every_operation_is_one_message(worker, undisturbed, tmp_path, every):
    outcomes, attacked = attack(worker, tmp_path / "life", "error", every)
    check_same_end(undisturbed, tmp_path / "life")
    for code, text in outcomes:
        check_one_message(code, text)
    missing = [name for name in undisturbed[2] if not attacked.issuperset([name] if every else parts(name))]
    # An error that comes after the last change of the disk ends a command whose next start has nothing left to do.
    assert len(missing) <= every * len(undisturbed[2]) // 5, missing


def check_same_end(undisturbed, folder):
    expected, found = undisturbed[1], end_of(folder)
    for name in expected:
        assert found[name] == expected[name], name
    settings = config_files.load(folder / "run")
    same(final_state(settings, folder / "run"), final_state(settings, undisturbed[0] / "run"))


def check_one_message(code, text):
    assert code == 2, text
    assert not any(words in text for words in ("Traceback", "Exception ignored", "Exception in thread")), text
    reasons = [os.strerror(number) for number in ERRORS]
    assert any(reason in text for reason in reasons), text
    assert text.replace(os.strerror(errno.EIO), "").count("error: ") == 1, text


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("number", "left"),
    [(0, 40), (1, 16), (1, 40), (2, 16), (2, None), (3, 0), (4, 12), (5, 12)],
    ids=lambda value: "read-only" if value is None else None,
)
def test_a_disk_that_is_full_or_read_only_is_one_message(worker, undisturbed, disk, number, left):
    """All but some kB of the disk are full when a command starts. A trained run is there, except for the first two commands."""
    if number > 1:
        shutil.copytree(undisturbed[0] / "run", disk / "run", ignore=shutil.ignore_patterns("figures"))
    command = [word.replace(f"data.dir={disk}", f"data.dir={undisturbed[0]}") for word in commands(disk)[number]]
    before = {*disk.rglob("*")}
    if left is None:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    else:
        (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - left * 1024))
    check_one_message(*live(worker, make_plan(disk.parent / "plan.json", "watch"), command))
    for path in {*disk.rglob("*")} - before:
        may_be_empty = "lock" in path.name or path.name.startswith(("metrics.jsonl", "events"))
        assert ".partial" not in path.name
        assert "tmp" not in path.name
        assert path.is_dir() or path.stat().st_size or may_be_empty, path
