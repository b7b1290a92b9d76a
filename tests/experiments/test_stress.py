"""The stress command: what it does to a run's folder, and (slowly) that a run survives it."""

import json
import random
import subprocess
import sys
import types

import pytest
from places import REPOSITORY

from jsubspace.storage import checksums


@pytest.fixture
def lib():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from experiments.lib import kills, life, phases, signals

    return types.SimpleNamespace(kills=kills, life=life, phases=phases, signals=signals)


def make_checkpoints(folder):
    for step in (3, 6):
        (folder / "checkpoints" / str(step) / "state").mkdir(parents=True)
        (folder / "checkpoints" / str(step) / "state" / "array").write_text("some numbers")
        checksums.write(folder / "checkpoints" / str(step))


def test_damage_is_done_to_the_newest_of_several(lib, tmp_path):
    make_checkpoints(tmp_path)
    for seed in range(10):
        counts = {}
        lib.kills.damage(tmp_path / "checkpoints", random.Random(seed), counts)
        assert sum(counts.values()) == 1
        assert checksums.damage(tmp_path / "checkpoints" / "6")
        assert checksums.damage(tmp_path / "checkpoints" / "3") is None
        (tmp_path / "checkpoints" / "6" / "state" / "array").write_text("some numbers")
    (tmp_path / "checkpoints" / "3").rename(tmp_path / "3")
    lib.kills.damage(tmp_path / "checkpoints", random.Random(0), counts := {})
    assert counts == {}


def test_phases(lib, tmp_path):
    phase_of, saving = lib.phases.phase_of, lib.phases.saving
    assert phase_of(tmp_path, 12, 0, set()) == "starting"
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 5}\n')
    assert phase_of(tmp_path, 12, 0, set()) == "training"
    assert phase_of(tmp_path, 12, 1, set()) == "starting"
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert phase_of(tmp_path, 12, 0, set()) == "saving"
    assert phase_of(tmp_path, 12, 0, saving(tmp_path)) == "training"
    (tmp_path / "checkpoints" / "12").mkdir()
    assert phase_of(tmp_path, 12, 0, saving(tmp_path)) == "evaluating"


PROGRAM = """
import os, pathlib, signal, sys, time
from jsubspace import endings

def main():
    what, last = sys.argv[1:]
    pathlib.Path(last).with_name("begun").touch()
    if what == "swallows":
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, lambda *_: None)
        time.sleep(2)
    elif what == "tells":
        os.write(1, b"Exception ignored in: <function>")
    if what != "tells":
        time.sleep(2)
    pathlib.Path(last).write_text("results")

if __name__ == "__main__":
    endings.run(main)
"""


@pytest.mark.filterwarnings("ignore:.*fork.*")  # This process has threads, and its child does not use them.
@pytest.mark.parametrize(("what", "failures"), [("obeys", 0), ("swallows", 1), ("tells", 1)])
def test_what_the_signals_report(what, failures, lib, tmp_path, monkeypatch):
    """A program that obeys, one that ignores signals and finishes its work with 0, and one that prints noise."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr(lib.signals, "FRESH", 0)
    attack = lib.signals.Signals(tmp_path, 0)
    attack.workdir.mkdir()
    attack.report["import_seconds"] = 0.0
    command = ["program", what, str(attack.workdir / "results.json")]
    while attack.attacks() < 1 and what != "tells":
        again = attack._live("main", command, 1.0, peaceful=False)
        assert again == (what == "obeys" and attack.attacks() == 1)
    assert not attack._live("main", command, 1.0, peaceful=True)
    report = json.loads((tmp_path / "signals.json").read_text())
    assert len(report["failures"]) == failures
    assert sum(sum(codes.values()) for codes in report["phases"].values()) == report["signals"]
    assert report["commits"]


@pytest.mark.parametrize(
    ("name", "kills"), [("report", 200), ("report_seed1", 60), ("report_rebuilt", 200), ("problem", 20)]
)
def test_the_recorded_reports(name, kills):
    report = json.loads((REPOSITORY / "experiments" / "results" / "stress" / f"{name}.json").read_text())
    assert report["verdict"] == "identical"
    assert report["kills"] >= kills
    assert report["failures"] == []
    assert sum(report["damages"].values()) == report["fallbacks"] > 0


def test_the_recorded_signals():
    report = json.loads((REPOSITORY / "experiments" / "results" / "stress" / "signals.json").read_text())
    assert (report["verdict"], report["failures"]) == ("identical", [])
    assert report["signals"] == sum(sum(codes.values()) for codes in report["phases"].values()) >= 1000
    assert {code for codes in report["phases"].values() for code in codes} <= {"0", "75", "130", "143"}


@pytest.mark.slow
def test_a_run_survives(tmp_path):
    command = [sys.executable, "-m", "experiments.stress", "--kills=5", f"--folder={tmp_path}"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "identical"


@pytest.mark.slow
def test_a_run_survives_signals(tmp_path):
    command = [sys.executable, "-m", "experiments.stress", "--signals=10", f"--folder={tmp_path}"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    report = json.loads((tmp_path / "signals.json").read_text())
    assert (report["verdict"], report["failures"]) == ("identical", [])
