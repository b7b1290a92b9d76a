"""A run that commit e779459 trained and evaluated, with results.json of schema 2, still serves every program.

``old_line/`` was written there by ``python -m jsubspace.main --config=configs/digits_cresnet8_line.py`` with a multilayer
perceptron of width 4, one hidden layer and two epochs.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from jsubspace import compare, evaluate, export, runs
from jsubspace.exchange import network_files
from jsubspace.runs import config_files, results

OLD = pathlib.Path(__file__).parent / "old_line"
WRITTEN = json.loads((OLD / "results.json").read_text())


@pytest.fixture
def workdir(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", data_dir)
    return pathlib.Path(shutil.copytree(OLD, tmp_path / "old"))


def test_its_results_are_converted(workdir):
    assert WRITTEN["schema"] == 2
    found = results.read(workdir)
    assert found["schema"] == 3
    assert results.is_finished(found)
    assert {row["kind"] for row in found["points"]} == {"grid"}
    assert [row["name"] for row in found["points"] if "end" in row["roles"]] == ["0.00", "1.00"]
    assert [row["name"] for row in found["points"] if "center" in row["roles"]] == ["0.50"] == [WRITTEN["midpoint"]]
    assert [row["kind"] for row in found["ensembles"]] == ["ends", "pair"]
    for new, old in zip(found["points"], WRITTEN["points"], strict=True):
        assert {name: new[name] for name in old} == old


def test_it_is_finished_for_the_program_that_trains(workdir):
    before = sorted(workdir.rglob("*"))
    assert runs.train(config_files.load(workdir), workdir)["points"][0]["nll"] == WRITTEN["points"][0]["nll"]
    assert sorted(workdir.rglob("*")) == before


def test_it_is_evaluated_compared_and_exported(workdir, tmp_path, capsys):
    compare.main([str(workdir)])
    assert f"| line | 0.50 | 1 | 1 | {WRITTEN['points'][2]['accuracy']:.4f}" in capsys.readouterr().out
    again = evaluate.evaluate(workdir)
    for new, old in zip(again["points"], WRITTEN["points"], strict=True):
        assert new["accuracy"] == pytest.approx(old["accuracy"], abs=1.1 / 360)
        assert new["nll"] == pytest.approx(old["nll"], rel=1e-5)
    facts = export.export(workdir, tmp_path / "end.safetensors", "0")
    network, _ = network_files.load(tmp_path / "end.safetensors")
    assert facts["weights"] == [1.0, 0.0]
    assert np.shape(network["params"]["hidden0"]["kernel"]) == (64, 4)
