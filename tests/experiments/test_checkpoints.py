"""The trial of averaged checkpoints: what is recorded follows from the recorded numbers, and the command runs."""

import json
import sys

import numpy as np
import pytest
from places import REPOSITORY
from scipy import stats

from experiments import checkpoints
from experiments.lib import decayed

RECORDED = REPOSITORY / checkpoints.OUTPUT


def recorded():
    return json.loads((RECORDED / "checkpoints.json").read_text(encoding="utf-8"))


def test_the_recorded_intervals_follow_from_the_bits():
    found = recorded()
    assert len(found["differences"]) == 4 * len(decayed.DECAYS)
    for row in found["differences"]:
        differences = np.subtract(*(found["bits_per_byte"][row[side]] for side in ("ours", "theirs")))
        expected = stats.t.interval(0.95, len(differences) - 1, differences.mean(), stats.sem(differences))
        np.testing.assert_allclose(row["over_seeds"], expected, rtol=1e-6)
        assert row["over_text"][0] < row["difference"] < row["over_text"][1]
    text = (RECORDED / "checkpoints.md").read_text(encoding="utf-8")
    assert checkpoints.table_of_differences(found["differences"]) in text
    assert checkpoints.table_of_quadratics(found["quadratics"]) in text
    bits = {name: np.array(of_seeds)[:, None] for name, of_seeds in found["bits_per_byte"].items()}
    assert checkpoints.table(bits) in text


def test_the_rates_of_the_runs_are_the_rates_of_the_averages():
    """A decayed run spends in every interval between checkpoints what the weights of this interval say."""
    for decay in decayed.DECAYS:
        found = decayed.scales(1200, 800, decay)
        assert found[60:800].tolist() == [1.0] * 740
        by_interval = found[800:].reshape(-1, decayed.CHUNK).mean(1)
        weights = decayed.averages(list(range(800, 1201, decayed.CHUNK)))[f"{decayed.REPLAYED}, {decay}"]
        np.testing.assert_allclose(1 - np.cumsum(weights)[:-1], by_interval, atol=1e-12)


@pytest.mark.slow
def test_the_command_runs(monkeypatch, tmp_path, capsys):
    small = ["--steps=50", "--start=25", "--width=16", "--blocks=1", "--seeds", "0", "1", f"--output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["checkpoints", *small])
    checkpoints.main()
    assert "| replayed average, linear − decayed run, linear |" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "checkpoints.json").read_text())["bits_per_byte"].keys()
        == recorded()["bits_per_byte"].keys()
    )
