"""The trial with networks that exist: the command runs, and what is recorded follows from the recorded numbers."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from places import REPOSITORY
from scipy import stats

from experiments import existing
from jsubspace.merging.barriers import CONNECTED

RECORDED = REPOSITORY / "experiments" / "results" / "existing"


KINDS = sorted(path.stem for path in RECORDED.glob("*.json"))


def recorded(kind):
    return json.loads((RECORDED / f"{kind}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_tables_are_those_of_the_numbers(kind):
    found, text = recorded(kind), (RECORDED / f"{kind}.md").read_text(encoding="utf-8")
    for table in (existing.table_of_barriers, existing.table_of_soups, existing.table_of_alphas):
        assert table(found["networks"]) in text
    assert found["command"] in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_copy_is_found_again_in_every_seed(kind):
    for row in recorded(kind)["networks"][kind]:
        before, after = row["treatments"]["as they are"], row["treatments"]["units permuted"]
        for found, verdict in ((before, "not connected"), (after, CONNECTED)):
            (pair,) = (pair for pair in found["pairs"] if {*pair["names"]} == {"tuned", "copy"})
            assert pair["verdict"] == verdict


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_intervals_over_seeds_are_t_intervals(kind):
    seeds = recorded(kind)["networks"][kind]
    gains = [row["soups"]["fine-tunings"]["uniform"]["test_gain"] for row in seeds]
    low, high = stats.t.interval(0.95, len(gains) - 1, np.mean(gains), stats.sem(gains))
    assert f"| {np.mean(gains):+.4f} | {low:+.4f} to {high:+.4f} |" in existing.table_of_soups({kind: seeds})


@pytest.mark.slow
def test_the_command_runs(fake_data, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    options = [
        "--steps=2",
        "--seeds",
        "0",
        "--sizes",
        "16",
        "16",
        "20",
        "20",
        f"--data={fake_data}",
        f"--output={tmp_path}",
    ]
    command = [sys.executable, "-m", "experiments.existing", *options]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| cResNet8 | two independent networks | units permuted |" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{kind}.{end}" for kind in ("MLP", "cResNet8") for end in ("png", "json", "md")
    }
