"""The demo: its command runs and resumes, what it says is true of its numbers, and what is recorded follows from the seeds."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from places import REPOSITORY
from scipy import stats

from experiments import demo
from experiments.lib import jobs, noisy_digits, picture, side_by_side
from experiments.lib.figure import midpoint
from experiments.lib.noisy_digits import LINE, NOISY, QUICK, STANDARD, STOPPED
from jsubspace import runs
from jsubspace.data import examples, labels, sets
from jsubspace.errors import UsageError
from jsubspace.runs import results as run_results

RECORDED = REPOSITORY / demo.RECORDED


def recorded():
    return json.loads((RECORDED / "demo.json").read_text(encoding="utf-8"))


def row_of(found, way, predictor=side_by_side.NETWORK):
    (row,) = (row for row in found["rows"] if (row["way"], row["predictor"]) == (way, predictor))
    return row


@pytest.fixture
def run(data_dir, one_device, tmp_path, monkeypatch, capsys):
    """Gives the command, whose trainings are processes of their own, and returns what it printed."""
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", data_dir)

    def give(*options):
        monkeypatch.setattr(sys, "argv", ["demo", "--quick", "--jobs=2", f"--runs={tmp_path}", *options])
        demo.main()
        return capsys.readouterr().out

    return give


def test_the_command_trains_prints_draws_and_resumes(run, tmp_path):
    with pytest.raises(UsageError, match="are not finished"):
        run("--plot")
    with pytest.raises(UsageError, match="every seed is given once"):
        run("--seeds", "1", "1")
    first = run()
    assert "2 runs, 2 at once" in first
    again = run()
    shown = [said[said.index("| standard ") :] for said in (first, again)]
    assert shown[0] == shown[1]
    assert "runs, " not in again  # Nothing was trained.
    assert (tmp_path / "demo.png").read_bytes()[:4] == b"\x89PNG"
    for way, name in ((STANDARD, "standard"), (LINE, "line: midpoint")):
        (job,) = noisy_digits.declare(QUICK, way, [0])
        middle = midpoint(run_results.read(tmp_path / job.name))
        low, high = middle["intervals"]["accuracy"]
        line = next(line for line in shown[0].splitlines() if line.startswith(f"| {name} "))
        assert f"| {middle['accuracy']:.3f} ({low:.3f} to {high:.3f}) |" in line


def test_the_numbers_of_wrong_labels_in_the_texts(data_dir):
    data_set = sets.find("digits")
    true, tested = (examples.read(data_set, data_dir, split).labels for split in ("train", "test"))
    noisy = labels.add_noise(true, noisy_digits.NOISE, 10)
    wrong, random = int((noisy != true).sum()), int(len(true) * noisy_digits.NOISE)
    for text in (demo.INTRODUCTION, noisy_digits.__doc__):
        assert f"{len(true):,} training labels" in text
        assert str(random) in text
        assert str(wrong) in text
    assert f"{random - wrong} of them are right" in noisy_digits.__doc__
    assert f"{len(tested)} test labels" in demo.INTRODUCTION
    assert dict(NOISY.settings)["data.label_noise"] == noisy_digits.NOISE


def test_early_stopping_is_scored_on_the_test_set_at_the_chosen_checkpoint(tiny_mlp, tmp_path):
    tiny_mlp.subspace.name, tiny_mlp.optimizer.num_epochs, tiny_mlp.optimizer.warmup_epochs = "point", 2, 0
    tiny_mlp.data.num_validation, tiny_mlp.evaluation.every_epochs, tiny_mlp.keep_epochs = 40, 1, (1, 2)
    result = runs.train(tiny_mlp, tmp_path / "run")
    best = result["early_stopping"]
    steps = round(2 * best["step"] / best["epoch"])
    last = best | {"step": steps}
    at_the_end = noisy_digits.stopped(tmp_path / "run", result | {"early_stopping": last})
    assert midpoint(at_the_end)["nll"] == pytest.approx(midpoint(result)["nll"], rel=1e-6)
    earlier = noisy_digits.stopped(tmp_path / "run", result | {"early_stopping": last | {"step": steps // 2}})
    assert midpoint(earlier)["nll"] > midpoint(at_the_end)["nll"] + 1e-3


def test_validation_images_choose_the_strength(monkeypatch, tmp_path):
    """By accuracy, then by NLL. The test set does not take part."""

    def found(job, root):
        strength = dict(job.details)["optimizer.label_smoothing"]
        accuracy, nll = {0.1: (0.9, 0.5), 0.2: (0.95, 0.7), 0.4: (0.95, 0.6)}[strength]
        of_test = {"roles": ["center"], "accuracy": 1 - strength, "nll": 0.0}
        return {"points": [of_test], "validation": {"points": [of_test | {"accuracy": accuracy, "nll": nll}]}}

    monkeypatch.setattr(jobs, "results", found)
    assert noisy_digits.best_strength(NOISY, tmp_path) == 0.4
    declared = noisy_digits.strengths(NOISY).values()
    assert all(dict(job.details)["data.num_validation"] and job.seed not in demo.RECORDED_SEEDS for job in declared)


@pytest.mark.parametrize(
    ("along", "words"),
    [
        ([95, 96, 95], "every network on the line beats"),
        ([93, 96, 95], "the middle of the line beats"),
        ([93, 93.5, 93], "maybe by chance"),
        ([95, 91, 95], "does not beat"),
    ],
)
def test_the_title_says_what_is_seen(along, words):
    assert words in picture.title(np.array(along), 92, 94)


def test_the_recorded_intervals_follow_from_the_seeds():
    found = recorded()
    standard = row_of(found, STANDARD)
    for row in found["rows"]:
        for score in side_by_side.SCORES:
            values = np.array(row[score]["seeds"])
            assert len(values) == len(found["seeds"]) == 10
            expected = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
            np.testing.assert_allclose(
                [row[score]["mean"], *row[score]["interval"]], [values.mean(), *expected], rtol=1e-6
            )
            if row is not standard:
                difference, seeds = row[score]["minus_standard"], values - standard[score]["seeds"]
                expected = stats.t.interval(0.95, 9, seeds.mean(), stats.sem(seeds))
                np.testing.assert_allclose(difference["over_seeds"], expected, rtol=1e-6, atol=1e-12)
                np.testing.assert_allclose(difference["mean"], seeds.mean(), atol=1e-12)


def test_the_recorded_texts_are_those_of_the_numbers():
    found, text = recorded(), (RECORDED / "demo.md").read_text(encoding="utf-8")
    for made in (
        side_by_side.table,
        side_by_side.table_of_differences,
        side_by_side.table_against_the_midpoint,
        side_by_side.says,
    ):
        assert made(found["rows"]) in text
    assert {row["way"] for row in found["rows"]} == set(noisy_digits.WAYS)
    assert all(name in found["runs"] for name in found["trainings"])


def test_the_guide_shows_the_recorded_table():
    guide = (REPOSITORY / "docs" / "demo.md").read_text(encoding="utf-8")
    assert f"\n{side_by_side.short_table(recorded()['rows'])}\n" in guide


def test_what_the_guide_says_of_the_controls():
    """Paired by seed, every interval of the midpoint minus a network is above zero, but for label smoothing.

    The plain line is more accurate than the line with a faster center, which has the lower NLL.
    """
    found = recorded()
    middle = row_of(found, LINE, side_by_side.MIDPOINT)
    against = side_by_side.midpoint_against(found["rows"])
    centered = row_of(found, noisy_digits.CENTERED, side_by_side.MIDPOINT)
    for row, score in ((middle, "accuracy"), (middle, "nll"), (row_of(found, STANDARD), "nll")):
        differences = np.subtract(row[score]["seeds"], centered[score]["seeds"])
        assert stats.t.interval(0.95, 9, differences.mean(), stats.sem(differences))[0] > 0
    assert set(against) == {STANDARD, noisy_digits.CONTROL, STOPPED, noisy_digits.SMOOTHED}
    for way, of_scores in against.items():
        for score, (mean, interval) in of_scores.items():
            differences = np.subtract(middle[score]["seeds"], row_of(found, way)[score]["seeds"])
            expected = stats.t.interval(0.95, 9, differences.mean(), stats.sem(differences))
            np.testing.assert_allclose([mean, *interval], [differences.mean(), *expected], rtol=1e-6, atol=1e-12)
        assert (of_scores["accuracy"][1][0] > 0) == (way != noisy_digits.SMOOTHED)
