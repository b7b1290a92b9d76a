"""The trial of fine-tuning: what is recorded follows from the recorded accuracies, and the command runs."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import REPOSITORY
from scipy import stats

import jsubspace
from experiments import finetune
from experiments.lib import fine_tuning

RECORDED = REPOSITORY / "experiments" / "results" / "finetune"


def recorded():
    return json.loads((RECORDED / "finetune.json").read_text(encoding="utf-8"))


def chosen(found, label, optimizer):
    (row,) = (row for row in found["chosen"] if (row["way"], row["optimizer"]) == (label, optimizer))
    return row


def test_the_recorded_intervals_follow_from_the_accuracies():
    found = recorded()
    assert len(found["comparisons"]) == len(finetune.COMPARISONS) * len(fine_tuning.RATES)
    for one in found["comparisons"]:
        ours, theirs = (chosen(found, one[side], one["optimizer"]) for side in ("ours", "theirs"))
        differences = np.subtract(*(row[one["points"]][one["images"]] for row in (ours, theirs)))
        assert len(differences) == 5
        expected = stats.t.interval(0.95, 4, differences.mean(), stats.sem(differences))
        np.testing.assert_allclose(one["over_seeds"], expected, rtol=1e-6)
        assert one["over_images"][0] < one["difference"] < one["over_images"][1]


def test_the_recorded_rates_are_the_best_of_the_single_networks():
    """On validation images. The others of the kind have the same rate."""
    found = recorded()
    kinds = {way.label: way.like for way in fine_tuning.ways()}
    for row in found["chosen"]:
        single = kinds[row["way"]]
        rates = {
            r["rate"]: r["validation"]
            for r in found["at_all_rates"]
            if (r["way"], r["optimizer"]) == (single, row["optimizer"])
        }
        assert row["rate"] == max(rates, key=rates.get)
        assert len(rates) == 4


def test_the_recorded_table_is_that_of_the_numbers():
    found, text = recorded(), (RECORDED / "finetune.md").read_text(encoding="utf-8")
    rows = [
        row | {"cosine_squared": [np.nan if c is None else c for c in row["cosine_squared"]]} for row in found["chosen"]
    ]
    assert finetune.table(rows) in text
    assert finetune.table_of_comparisons(found["comparisons"]) in text


def test_a_way_is_trained_and_measured(data_dir):
    """One step of SGD from deltas of zero, by hand. The ends have moved in one direction, by their coefficients."""
    data = fine_tuning.load(0, data_dir)
    upright = np.reshape(data.train[0], (-1, 8, 8))[:, :, ::-1].reshape(-1, 64)
    assert not {*map(bytes, data.base[0])} & {*map(bytes, upright)}  # The base has not seen them.
    np.testing.assert_array_equal(
        np.reshape(data.mirrored[0], (-1, 8, 8))[:, :, ::-1].reshape(-1, 64), data.original[0]
    )
    base = small_base()
    (way,) = (way for way in fine_tuning.ways() if way.label == "deltas, β = 0")
    made = fine_tuning.fine_tuned(way, "SGD", 1)(jax.random.key(0), jnp.float32(0.1), base, data)
    assert made.mirrored.shape == (11, 360)
    assert made.validation.shape == (11, 200)
    np.testing.assert_allclose(made.cosine, 1, rtol=1e-5)
    np.testing.assert_allclose(made.moved[5], (made.moved[0] + made.moved[10]) / 2, rtol=1e-4)
    np.testing.assert_allclose(made.moved[10] / made.moved[0], ratio_of_coefficients(), rtol=1e-3)


def small_base():
    keys = jax.random.split(jax.random.key(1), 3)
    return {
        fine_tuning.layer(i): {"kernel": jax.random.normal(k, (d, e)) / d**0.5, "bias": jnp.zeros(e)}
        for i, (k, d, e) in enumerate(zip(keys, fine_tuning.WIDTHS[:-1], fine_tuning.WIDTHS[1:], strict=True))
    }


def ratio_of_coefficients():
    """c_2 / c_1 of the one step that seed 0 takes."""
    train_key = jax.random.split(jax.random.key(0))[1]
    grad_key = jax.random.split(jax.random.fold_in(train_key, 0))[1]
    alpha = jsubspace.sample_alpha(jax.random.split(grad_key)[0], jsubspace.Line())
    return alpha / (1 - alpha)


@pytest.mark.slow
def test_the_command_runs(data_dir, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    options = ["--steps=2", "--seeds", "0", "1", f"--data={data_dir}", f"--output={tmp_path}"]
    command = [sys.executable, "-m", "experiments.finetune", *options]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| LoRA, products, β = 1 | SGD |" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {f"finetune.{end}" for end in ("json", "md", "png", "pdf")}
