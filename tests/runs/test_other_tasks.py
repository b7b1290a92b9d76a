"""results.json, tables, figures and comparisons of runs with a task that is no classification."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jsubspace
from jsubspace import compare
from jsubspace.errors import UsageError
from jsubspace.evaluation import measure as measuring
from jsubspace.evaluation import networks
from jsubspace.evaluation.batches import padded
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.survey import survey
from jsubspace.runs import figures, per_example, recipes, results, summary
from jsubspace.storage import documents

N = 60
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
Y = X.sum(-1)


def make_run(folder, seed=0, task=None, predict=None, **fields):
    """A finished run's results.json and per_example.npz, with a task in the place of a classification."""
    settings = copy.deepcopy(recipes.digits_cresnet8("line").to_dict())
    settings["seed"] = seed
    task = jsubspace.Regression() if task is None else task
    predict = (lambda p, x: (x @ p["w"], p["s"])) if predict is None else predict
    rng = np.random.default_rng(seed)
    endpoints = {"w": jnp.float32(1 + 0.3 * rng.normal(size=(2, 3))), "s": jnp.zeros(2)}
    plan = survey(jsubspace.Line(), 3)
    evaluator = Evaluator(networks.from_functions(predict), task, plan)
    outcomes = jax.device_get(evaluator.outcomes(endpoints, None, padded([(X, Y)], task)))
    report = measuring.report_of(endpoints, jsubspace.Line(), plan, outcomes, task, 50)
    content = report.to_json()
    folder.mkdir()
    found = {
        "schema": 3, "config": settings, "finished": True, "early_stopping": None, "sharpness": None, "plane": None,
        "shifted": {"fog_1": {"points": content["points"], "ensembles": content["ensembles"]}},
        "validation": content | {"best": "0.50"},
    }  # fmt: skip
    (folder / "results.json").write_text(documents.to_json(found | content | fields))
    per_example.write(folder, plan, outcomes, task)
    return folder


def test_results_are_read_told_and_drawn(tmp_path):
    found = results.read(make_run(tmp_path / "a"))
    text = summary.table(found)
    assert "chosen on the validation data, by NLL: 0.50, with NLL" in text
    assert "fog_1: midpoint" in text
    assert "accuracy" not in text
    drawn = figures.draw(found, [], tmp_path / "figures")
    assert [path.name for path in drawn] == ["nll.png", "shifted.png"]
    stopped = {"epoch": 3, "nll": 0.7, "tested_on": "validation"}
    found = results.read(make_run(tmp_path / "b", early_stopping=stopped))
    assert "after epoch 3, with NLL 0.7000 on the validation data" in summary.table(found)


def test_scores_that_are_not_finite_are_null_and_said(tmp_path):
    run = make_run(tmp_path / "a", predict=lambda p, x: (x @ p["w"] / 0.0, p["s"]))
    found = results.read(run)
    assert found["points"][0]["nll"] is None
    assert "3 of 3 points have scores that are not finite" in summary.table(found)
    other = make_run(tmp_path / "b", 1)
    first, *_ = compare.compare([other, run])
    assert first.values["nll"][0] is not None


def test_runs_are_compared_by_the_scores_of_their_task(tmp_path, capsys):
    runs = [make_run(tmp_path / str(seed), seed) for seed in range(2)]
    other = make_run(tmp_path / "other", 7)
    content = json.loads((other / "results.json").read_text())
    content["config"]["subspace"]["name"] = "curve"  # Another method.
    (other / "results.json").write_text(json.dumps(content))
    compare.main([*map(str, [*runs, other]), f"--out={tmp_path / 'out'}"])
    header = capsys.readouterr().out.splitlines()[0]
    assert "| NLL | NLL − first | RMSE | RMSE − first | CRPS | CRPS − first | coverage 50 |" in header
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    compare.main([str(runs[0]), "--metrics=crps"])
    with pytest.raises(UsageError, match=r"unknown metric 'accuracy'. The metrics are nll, rmse, crps"):
        compare.main([str(runs[0]), "--metrics=accuracy"])


def test_differences_are_paired_over_examples(tmp_path):
    runs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)]
    content = json.loads((runs[1] / "results.json").read_text())
    content["config"]["subspace"]["name"] = "curve"
    (runs[1] / "results.json").write_text(json.dumps(content))
    entries = compare.compare(runs)
    first, other = entries[0], next(entry for entry in entries if entry.runs == (str(runs[1]),))
    for metric, found in other.to_first.items():
        assert found["difference"] == pytest.approx(other.values[metric][0] - first.values[metric][0], abs=1e-6)
    kept = [per_example.read(run, results.read(run))["0.50"] for run in runs]
    d = np.float64(kept[1]["nll"]) - np.float64(kept[0]["nll"])
    expected = stats.t.interval(0.95, N - 1, d.mean(), stats.sem(d))
    assert other.to_first["nll"]["interval"] == pytest.approx(expected, rel=1e-4)
    low, high = other.to_first["coverage_90"]["interval"]
    assert high - low > 0.05  # A fraction: sixty examples without a difference would prove nothing.


def test_runs_of_two_tasks_are_not_compared(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", task=jsubspace.Regression(levels=(0.8,)))]
    with pytest.raises(UsageError, match="different tasks, Regression, Regression, or by different scores"):
        compare.compare(runs)


def test_scores_per_example_of_another_evaluation_are_refused(tmp_path):
    runs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)]
    (runs[0] / per_example.FILE).replace(runs[1] / per_example.FILE)
    with pytest.raises(UsageError, match=r"does not belong to the results\.json"):
        compare.compare([runs[1]])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, "results.task lacks the field 'name'"),
        (5, "results.task is 5"),
        ({"main": "loss"}, "results.task.main is not one of its scores"),
        ({"main": "coverage_50"}, "results.task.main is not one of its scores"),
        ({"higher_is_better": {"nll": False, "alpha": True}}, "has a score 'alpha', which is no name"),
        ({"higher_is_better": {"nll": False, "a\x1b b": True}}, "a name in results.task.higher_is_better is"),
        ({"higher_is_better": {"nll": False, "loss": False}}, "points.0. lacks the field 'loss'"),
        ({"higher_is_better": {"nll": False} | {f"s{i}": False for i in range(100)}}, "more than 100 scores"),
        ({"higher_is_better": {"nll": 1}}, "higher_is_better.nll is 1"),
    ],
)  # fmt: skip
def test_a_strange_task_is_one_message(tmp_path, task, message):
    run = make_run(tmp_path / "a")
    content = json.loads((run / "results.json").read_text())
    content["task"] = content["task"] | task if isinstance(task, dict) and task else task
    (run / "results.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=rf"results.json is damaged \(.*{message}"):
        results.read(run)
