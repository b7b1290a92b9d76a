"""The stress command: what it does to a run's folder, and (slowly) that a run survives it."""

import json
import random
import subprocess
import sys

import pytest
from places import REPOSITORY

from jsubspace.storage import checksums


@pytest.fixture
def stress():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    pytest.importorskip("tensorboardX")
    from experiments import stress

    return stress


def make_checkpoints(folder):
    for step in (3, 6):
        (folder / "checkpoints" / str(step) / "state").mkdir(parents=True)
        (folder / "checkpoints" / str(step) / "state" / "array").write_text("some numbers")
        checksums.write(folder / "checkpoints" / str(step))


def test_damage_is_done_to_the_newest_of_several(stress, tmp_path):
    make_checkpoints(tmp_path)
    for seed in range(10):
        counts = {}
        stress.damage(tmp_path / "checkpoints", random.Random(seed), counts)
        assert sum(counts.values()) == 1
        assert checksums.damage(tmp_path / "checkpoints" / "6")
        assert checksums.damage(tmp_path / "checkpoints" / "3") is None
        (tmp_path / "checkpoints" / "6" / "state" / "array").write_text("some numbers")
    (tmp_path / "checkpoints" / "3").rename(tmp_path / "3")
    stress.damage(tmp_path / "checkpoints", random.Random(0), counts := {})
    assert counts == {}


def test_phases(stress, tmp_path):
    assert stress.phase_of(tmp_path, 0, set()) == "starting"
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 5}\n')
    assert stress.phase_of(tmp_path, 0, set()) == "training"
    assert stress.phase_of(tmp_path, 1, set()) == "starting"
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert stress.phase_of(tmp_path, 0, set()) == "saving"
    assert stress.phase_of(tmp_path, 0, stress.saving(tmp_path)) == "training"
    (tmp_path / "checkpoints" / str(stress.LAST_STEP)).mkdir()
    assert stress.phase_of(tmp_path, 0, stress.saving(tmp_path)) == "evaluating"


@pytest.mark.parametrize(("name", "kills"), [("report", 200), ("report_seed1", 60)])
def test_the_recorded_reports(name, kills):
    report = json.loads((REPOSITORY / "experiments" / "results" / "stress" / f"{name}.json").read_text())
    assert report["verdict"] == "identical"
    assert report["kills"] >= kills
    assert report["failures"] == []
    assert sum(report["damages"].values()) == report["fallbacks"] > 0


@pytest.mark.slow
def test_a_run_survives(tmp_path):
    command = [sys.executable, "-m", "experiments.stress", "--kills=5", f"--folder={tmp_path}"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "identical"
