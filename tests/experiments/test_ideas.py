"""The ideas for a better line: positions are uniform with less variance, and the reference is one network."""

import json
import sys

import numpy as np
import pytest
from places import REPOSITORY

from experiments import ideas as program
from experiments.lib.ideas import IDEAS, PLAIN, STANDARD, Trial, antithetic, sequence, spread_out, stratified, uniform
from jsubspace.runs import build, recipes

STEPS = 4096


@pytest.mark.parametrize("draw", [uniform, sequence, stratified, antithetic])
def test_positions_are_uniform(draw):
    drawn = draw(np.random.default_rng(0), STEPS)
    assert drawn.shape == (STEPS,)
    counts, _ = np.histogram(drawn, 16, (0, 1))
    assert counts.sum() == STEPS
    np.testing.assert_allclose(counts, STEPS / 16, rtol=0.25)
    assert draw(np.random.default_rng(1), 9).shape == (9,)


@pytest.mark.parametrize("draw", [sequence, stratified, antithetic])
def test_positions_have_less_variance_over_eight_steps(draw):
    variance, independent = (
        made(np.random.default_rng(0), STEPS).reshape(-1, 8).mean(1).var() for made in (draw, uniform)
    )
    assert variance < independent / 4


def test_strata_and_mirror_images():
    drawn = stratified(np.random.default_rng(0), 64).reshape(-1, 8)
    assert np.all(np.sort(np.floor(8 * drawn), axis=1) == np.arange(8))
    drawn = antithetic(np.random.default_rng(0), 64).reshape(-1, 2)
    np.testing.assert_allclose(drawn.sum(1), 1)


def test_the_spread_grows_to_the_drawn_positions():
    drawn = uniform(np.random.default_rng(0), 100)
    grown = spread_out(drawn, 0.5)
    np.testing.assert_array_equal(spread_out(drawn, 0.0), drawn)
    np.testing.assert_allclose(grown[50:], drawn[50:])
    np.testing.assert_allclose(grown[:50] - 0.5, (drawn[:50] - 0.5) * np.arange(50) / 50)


def test_the_reference_is_one_network_and_the_program_resumes(data_dir, tmp_path, monkeypatch, capsys):
    settings = recipes.digits_cresnet8("line")
    settings.data.dir, settings.data.num_train, settings.data.num_validation = data_dir, 64, 40
    settings.data.batch_size, settings.evaluation.num_points, settings.num_devices = 32, 3, 1
    settings.model.name, settings.model.depth, settings.model.width = "mlp", 1, 8
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs = 2, 1
    tried = []

    def trial():
        made = Trial(build.build(settings))
        return lambda idea, seed: tried.append(idea.name) or made(idea, seed)

    monkeypatch.setattr(program, "trial", trial)
    monkeypatch.setattr(program, "IDEAS", IDEAS[:2])
    monkeypatch.setattr(sys, "argv", ["ideas", "--seeds", "3", f"--output={tmp_path}"])
    program.main()
    program.main()
    assert tried == [STANDARD, PLAIN]
    rows = {name: row["3"] for name, row in json.loads((tmp_path / "ideas.json").read_text())["rows"].items()}
    assert rows[STANDARD]["distance"] == 0
    assert rows[PLAIN]["distance"] > 1
    assert rows["line, average of 100 steps"]["validation"]["nll"] != rows[PLAIN]["validation"]["nll"]
    assert f"- *{STANDARD}*: The reference: one network." in (tmp_path / "ideas.md").read_text()
    assert "| standard | 1 |" in capsys.readouterr().out


def test_the_recorded_table_is_of_the_recorded_numbers_and_reasons():
    found = json.loads((REPOSITORY / program.OUTPUT / "ideas.json").read_text(encoding="utf-8"))
    text = (REPOSITORY / program.OUTPUT / "ideas.md").read_text(encoding="utf-8")
    assert program.table(found["rows"]) in text
    assert found["reasons"] == program.reasons()
    assert set(found["rows"]) == set(found["reasons"])
    assert all(len(of_seeds) == len(program.SEEDS) for of_seeds in found["rows"].values())
    for reason in found["reasons"].values():
        assert reason in text
