"""Comparisons of runs: what is averaged, paired and kept apart. The runs are files without a training."""

import copy
import json
import re
import shutil

import jax
import numpy as np
import pytest
from scipy import stats
from whole_runs import results_of

from jsubspace import Line, Point, compare
from jsubspace.errors import UsageError
from jsubspace.evaluation import metrics
from jsubspace.evaluation.survey import survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import per_example, recipes
from jsubspace.runs.digests import Digest

N = 400


def make_run(folder, kind="point", seed=0, keep=True, **fields):
    """A finished run's results.json and per_example.npz, of random logits."""
    settings = copy.deepcopy(recipes.digits_cresnet8(kind).to_dict())
    settings["seed"] = seed
    for field, given in fields.items():
        group, _, name = field.partition("__")
        settings[group][name] = given
    folder.mkdir()
    plan, task = survey(Point() if kind == "point" else Line(), 3), Classification(settings["evaluation"]["num_bins"])
    labels = np.random.default_rng(0).integers(3, size=N)
    rng = np.random.default_rng((seed, len(kind)))
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(len(plan.positions), N, 3))
    outcomes = jax.tree.map(np.asarray, task.outcomes((logits.astype(np.float32), None), (labels,), plan.groups))
    rows = [{"name": plan.positions[plan.center].name, "networks": 1} | task.scores(outcomes.points)[plan.center]]
    if plan.ensembles:
        rows.append({"name": plan.ensembles[0].name, "networks": 2} | task.scores(outcomes.by_probability)[0])
    (folder / "results.json").write_text(json.dumps(results_of(settings, rows)))
    if keep:
        per_example.write(folder, plan, outcomes, task)
    return folder


def change(folder, **fields):
    """Changes fields of a run's results.json."""
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def by_name(entries):
    return {(entry.method, entry.predictor): entry for entry in entries}


def test_one_run_per_method_is_compared_over_test_examples(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", "line")]
    entries = compare.compare(runs)
    assert [entry.predictor for entry in entries] == ["network", "0.50", "0.00 & 1.00"]
    first, line, ensemble = entries
    assert set(first.to_first.values()) == {None}
    for entry in (line, ensemble):
        found = entry.to_first["accuracy"]
        assert found["difference"] == pytest.approx(entry.values["accuracy"][0] - first.values["accuracy"][0])
        assert found["interval"][0] < found["difference"] < found["interval"][1]
        assert set(entry.over_runs.values()) == {None}
    text = compare.table(entries, ["accuracy", "ece_debiased"])
    assert "| accuracy | accuracy − first | debiased ECE | debiased ECE − first |" in text
    assert "±" not in text


def test_seeds_have_a_t_interval_in_a_column_of_their_own(tmp_path):
    runs = [make_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    (entry, *_) = compare.compare([*runs, make_run(tmp_path / "line", "line")])
    values = entry.values["nll"]
    assert len(values) == 3
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert entry.over_runs["nll"] == pytest.approx(expected)
    text = compare.table([entry, *compare.compare([runs[0], tmp_path / "line"])[1:]], ["nll"])
    for row in text.splitlines()[2:]:
        mean, difference = row.strip("| ").split(" | ")[4:]
        assert "(" not in mean
        assert "±" not in difference


def test_runs_that_were_evaluated_differently_are_not_averaged(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, evaluation__num_bins=7)]
    entries = by_name(compare.compare(runs))
    assert {method for method, _ in entries} == {
        "standard, evaluation.num_bins = 20",
        "standard, evaluation.num_bins = 7",
    }
    other = entries["standard, evaluation.num_bins = 7", "network"]
    assert len(other.runs) == 1
    assert other.to_first["accuracy"] is not None
    assert other.to_first["ece"] is None  # errors of other bins
    for field, given in (("num_stats_batches", 3), ("corruptions", "fog"), ("every_epochs", 2)):
        again = make_run(tmp_path / field, seed=2, **{f"evaluation__{field}": given})
        assert len({entry.method for entry in compare.compare([runs[0], again])}) == 2


def test_results_of_older_versions_are_shown_without_what_they_lack(tmp_path):
    runs = [make_run(tmp_path / "a", keep=False), make_run(tmp_path / "b", "line", keep=False)]
    results = json.loads((runs[0] / "results.json").read_text())
    del results["predictors"][0]["ece_debiased"]
    results["predictors"][0]["nll"] = None  # it was infinite
    (runs[0] / "results.json").write_text(json.dumps(results))
    text = compare.table(compare.compare(runs), ["accuracy", "nll", "ece_debiased"])
    assert "first" not in text
    assert text.splitlines()[2].endswith("| - | - |")
    compare.main([*map(str, runs), f"--out={tmp_path / 'out'}", "--metrics=accuracy,ece_debiased"])
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000


def test_the_figure_has_both_kinds_of_intervals(tmp_path, capsys):
    runs = [make_run(tmp_path / str(seed), seed=seed) for seed in range(2)] + [make_run(tmp_path / "line", "line")]
    compare.main([*map(str, runs), f"--out={tmp_path / 'out'}"])
    assert compare.NOTE in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written[1]["to_first"]["nll"]["interval"][0] < written[1]["to_first"]["nll"]["interval"][1]


def test_scores_per_example_that_do_not_belong_to_the_results_are_refused(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", "line")]
    (runs[0] / per_example.FILE).rename(tmp_path / "kept")
    other = make_run(tmp_path / "c", seed=5)
    (other / per_example.FILE).rename(runs[0] / per_example.FILE)
    with pytest.raises(UsageError, match=r"does not belong to the results.json .*Evaluate the run again"):
        compare.compare(runs)
    for content in (b"", b"PK\x03\x04damaged", (tmp_path / "kept").read_bytes()[:700]):
        (runs[0] / per_example.FILE).write_bytes(content)
        with pytest.raises(UsageError, match=r"per_example.npz is damaged"):
            compare.compare(runs)


def test_scores_per_example_are_read_as_they_were_written(tmp_path):
    folder = make_run(tmp_path / "a", "line")
    found = per_example.read(folder, json.loads((folder / "results.json").read_text()))
    assert set(found) == {"0.50", "0.00 & 1.00"}
    assert set(found["0.50"]) == set(metrics.Scores._fields)
    assert not list(folder.glob("*.partial"))
    assert (folder / per_example.FILE).stat().st_size < 2 * 4 * 4 * N + 3000


def test_two_runs_of_one_seed_are_no_two_seeds(tmp_path):
    """A copy of a run, and a run that differs in what changes no result."""
    runs = [make_run(tmp_path / "a", seed=3), make_run(tmp_path / "b", seed=4)]
    copied = shutil.copytree(runs[0], tmp_path / "copy")
    with pytest.raises(UsageError, match=r"a and .*copy are two runs of the method 'standard' with the same seed, 3\."):
        compare.compare([*runs, copied])
    again = make_run(tmp_path / "again", seed=4)
    settings = json.loads((again / "results.json").read_text())["config"]
    for name, other in {"parallel": "jit", "num_devices": 2, "log_every_steps": 7}.items():
        change(again, config=settings | {name: other})
        with pytest.raises(UsageError, match=r"b and .*again are two runs of .* the same seed, 4\."):
            compare.compare([*runs, again])
    change(again, config=settings | {"start": settings["start"] | {"runs": "trunks/1"}})
    other = make_run(tmp_path / "other", seed=4, start__runs="trunks/2")
    (entry, *_) = compare.compare([again, other])  # Two starts of one method.
    assert entry.runs == (str(again), str(other))


def test_runs_that_were_tested_on_different_examples_are_refused(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1), make_run(tmp_path / "c", "line")]
    change(runs[0], test_digest=64 * "a")
    change(runs[1], test_digest=64 * "a")
    assert compare.compare(runs)[0].to_first is not None  # The third run is older and has no digest.
    for place in (1, 2):
        change(runs[place], test_digest=64 * "b")
        with pytest.raises(
            UsageError, match=rf"a and .*{runs[place].name} were tested on different examples.*aaaaaaaa"
        ):
            compare.compare(runs)
        change(runs[place], test_digest=64 * "a")
    change(runs[0], test_digest="a")
    with pytest.raises(UsageError, match=r"results\.test_digest is 'a'"):
        compare.compare(runs)


def test_the_digest_of_test_examples_is_one_of_their_targets_in_their_order():
    def digest(*batches):
        found = Digest()
        for targets, mask in batches:
            found.add(targets, np.array(mask, bool))
        return found.hexdigest()

    labels, values = np.array([1, 0, 2]), np.array([[0.1, 2], [0.3, 4], [0.5, 6]])
    whole = digest(((labels, values), [1, 1, 1]))
    first, last = (labels[:2].astype(np.uint8), values[:2].astype(np.float32)), (labels[[2, 2]], values[[2, 2]])
    assert digest((first, [1, 1]), (last, [1, 0])) == whole
    order = [1, 0, 2]
    others = [(labels[order], values[order]), (labels, values[order]), (labels,), (labels, np.float32(2) * values)]
    assert len({whole, *(digest((targets, [1, 1, 1])) for targets in others)}) == 5
    assert digest(((labels, values), [1, 1, 0])) != whole
    assert re.fullmatch("[0-9a-f]{64}", digest(((np.array([1e300, np.nan]),), [1, 1])))


def test_the_best_epoch_on_the_test_set_is_called_so(tmp_path, capsys):
    stopped = {"tested_on": "test", "epoch": 2, "accuracy": 0.9, "nll": 0.3}
    runs = [make_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    compare.main([*map(str, runs)])
    assert "best epoch" not in capsys.readouterr().out
    for run in runs:
        change(run, early_stopping=stopped)
    compare.main([*map(str, runs), f"--out={tmp_path / 'out'}"])
    out = capsys.readouterr().out
    assert "| standard | best epoch, chosen on the test set | 1 | 2 | 0.9000 |" in out
    assert "is a maximum over the tests during training" in out
    assert "early stopping" not in out
    assert (tmp_path / "out" / "table.md").read_text() == out
