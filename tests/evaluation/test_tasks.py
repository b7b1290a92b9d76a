"""What every task must do, also the one of the guide: combine members, count every example once, be drawn and told.

The tasks' own numbers are tested in test_tokens.py and test_regression.py.
"""

import json
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import REPOSITORY
from scipy import stats

import jsubspace
from jsubspace.evaluation import tables
from jsubspace.evaluation.tasks import Likelihood, Regression, Task, Tokens
from jsubspace.evaluation.tasks.task import checked
from jsubspace.training.parallel import DataParallel

LINE = jsubspace.Line()
N = 44
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype(np.float32)
W = {"w": jnp.array([[1.0, 0.5, 1.5], [0.5, 1.5, 1.0]])}


def of_the_guide():
    """The class Counts of docs/tasks.md, and the number of its lines."""
    text = (REPOSITORY / "docs" / "tasks.md").read_text(encoding="utf-8")
    code = re.search(r"(class Counts\(.*?)\n\n\nendpoints", text, re.DOTALL).group(1)
    names = {"jsubspace": jsubspace, "jax": jax, "jnp": jnp}
    exec(compile(code, "tasks.md", "exec"), names)
    return names["Counts"], len([line for line in code.splitlines() if line.strip()])


Counts, NUM_LINES = of_the_guide()

CASES = {
    "tokens": (
        Tokens(token_bytes=1),
        lambda p, x: jnp.cumsum(x, axis=-1)[..., None] * p["w"],
        (X, RNG.integers(3, size=(N, 3))),
    ),
    "regression": (Regression(quantiles=(0.05,)), lambda p, x: (x @ p["w"], jnp.zeros(())), (X, X.sum(-1))),
    "likelihood": (Likelihood(), lambda p, x: jax.scipy.stats.norm.logpdf(x - p["w"]).sum(-1), (X,)),
    "counts": (Counts(), lambda p, x: x @ p["w"] / 3, (X, RNG.poisson(np.exp(X.sum(-1) / 3)))),
}
EVERY = pytest.mark.parametrize("name", CASES)


def measure(name, size=16, **options):
    task, predict, arrays = CASES[name]
    batches = [tuple(array[i : i + size] for array in arrays) for i in range(0, N, size)]
    options = {"num_points": 5, "num_resamples": 50} | options
    return jsubspace.measure(predict, options.pop("endpoints", W), LINE, batches, task=task, **options)


@EVERY
def test_an_ensemble_is_a_mixture(name):
    report = measure(name)
    for row in report.ensembles:
        members = [next(point for point in report.points if point.name == member) for member in row.members]
        assert row.nll <= np.mean([member.nll for member in members])
        assert row.mean_logit == row.differences == {}
    equal = measure(name, endpoints={"w": jnp.stack([W["w"][0]] * 2)})
    for row in (*equal.points, *equal.ensembles):
        assert dict(row.scores) == pytest.approx(dict(equal.center.scores), rel=1e-5)
    assert equal.connector["difference"] == pytest.approx(0, abs=1e-6)
    assert equal.connector["verdict"] == "yes"


@EVERY
def test_every_example_counts_once_whatever_the_batches_and_devices_are(name):
    whole = measure(name, size=N, num_resamples=0)
    for other in (
        measure(name, size=16, num_resamples=0),
        measure(name, size=16, num_resamples=0, devices=DataParallel(tuple(jax.devices()[:4]))),
    ):
        for a, b in zip((*whole.points, *whole.ensembles), (*other.points, *other.ensembles), strict=True):
            assert dict(a.scores) == pytest.approx(dict(b.scores), rel=1e-5)


@EVERY
def test_a_report_is_told_drawn_and_written(name, tmp_path):
    task, report = CASES[name][0], measure(name)
    text = report.table()
    assert text.count("<- midpoint") == 1
    assert f"Mean {'NLL' if task.main == 'nll' else task.main} along it" in text
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert tables.table(written) == text
    assert written["task"] == {
        "name": type(task).__name__,
        "main": task.main,
        "higher_is_better": dict(task.higher_is_better),
        "fractions": list(task.fractions),
    }
    assert "reliability" not in written
    for row in (*written["points"], *(row["mean_probability"] for row in written["ensembles"]), *written["predictors"]):
        for score in task.higher_is_better:
            low, high = row["intervals"][score]
            assert low - 1e-12 <= row[score] <= high + 1e-12
    for score in task.higher_is_better:
        report.plot(tmp_path / f"{score}.png", score)
    assert report.plot().axes[0].get_ylabel() == f"test {'NLL' if task.main == 'nll' else task.main}"
    assert "95 % interval of P(α)" in [words.get_text() for words in report.plot().axes[0].get_legend().texts]
    chosen = measure_validation(name)
    assert chosen.best().scores[task.main] == min(row.scores[task.main] for row in chosen.points)


def measure_validation(name):
    task, predict, arrays = CASES[name]
    return jsubspace.measure(predict, W, LINE, validation_batches=[arrays], task=task, num_points=5, num_resamples=0)


def test_the_task_of_the_guide_is_short_and_right():
    assert NUM_LINES <= 20
    report, counts = measure("counts"), CASES["counts"][2][1]
    rates = np.exp(X @ np.asarray(W["w"], np.float64).T / 3).T  # [2, n]
    assert report.at(0).nll == pytest.approx(-stats.poisson.logpmf(counts, rates[0]).mean(), rel=1e-5)
    mixture = stats.poisson.pmf(counts, rates).mean(0)
    assert report.ensemble().nll == pytest.approx(-np.log(mixture).mean(), rel=1e-5)
    assert report.ensemble().rmse == pytest.approx(np.sqrt(np.mean((rates.mean(0) - counts) ** 2)), rel=1e-5)
    assert report.ensemble().zeros == pytest.approx(np.exp(-rates).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="batch 0 has targets that are no counts"):
        jsubspace.measure(CASES["counts"][1], W, LINE, [(X, -counts)], task=Counts())


def test_a_likelihood_is_pooled_by_its_mean_and_may_be_zero():
    ends = {"mean": jnp.array([0.0, 1.0])}
    x = np.array([0.5, 3.0], np.float32)

    def inside(point, x):  # uniform on [mean, mean + 2]
        return jnp.where((x >= point["mean"]) & (x <= point["mean"] + 2), -jnp.log(2.0), -jnp.inf)

    report = jsubspace.measure(inside, ends, LINE, [(x,)], task=Likelihood(), num_points=3)
    assert report.at(0).nll == np.inf  # It cannot explain 3.
    assert report.ensemble(0, 1).nll == pytest.approx(np.log(4))
    assert report.connector["verdict"] == "undecided"
    assert "the first at 0.00" in report.table()


def test_networks_with_statistics_have_any_task():
    """The statistics here are the mean of the training inputs times the point."""
    x = np.ones((8, 3), np.float32)
    report = jsubspace.measure(
        lambda p, x, y, stats: jax.scipy.stats.norm.logpdf(y - stats), W, LINE, [(x, x[:, 0])], task=Likelihood(),
        stats_fn=lambda p, x: jnp.mean(x @ p["w"]), train_batches=[(2 * x,)], num_points=3,
    )  # fmt: skip
    assert report.at(0).nll == pytest.approx(-stats.norm.logpdf(1 - 6), rel=1e-5)


class Plain(Task):
    higher_is_better: ClassVar = {"gain": True}

    def __init__(self, found=None, **members):
        self.found = found
        for name, value in members.items():
            setattr(type(self), name, value)

    def per_example(self, members, targets):
        return {"gain": members[0]} if self.found is None else self.found(members)


def plain(found=None, **members):
    return type("Plain", (Plain,), {})(found, **members)


def test_a_gain_is_better_when_higher():
    report = jsubspace.measure(
        lambda p, x: -((x @ p["w"]) ** 2), W, LINE, validation_batches=[(X, X)], task=plain(), num_points=3
    )
    assert report.best().gain == max(row.gain for row in report.points)
    assert report.connector["difference"] > 0  # A square is convex, so the points between the ends are better.
    assert report.connector["verdict"] == "yes"
    assert report.connector["barrier"] == 0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Regression, r"task is the class Regression. Pass an instance: Regression\(\)"),
        ("regression", "task is a str. Pass Classification"),
        (plain(higher_is_better={"a b": True}), "has a score 'a b'. A score is a Python name"),
        (plain(higher_is_better={"alpha": True}), "has a score 'alpha'.* not one of alpha"),
        (plain(higher_is_better={"gain": None}), "the main score of Plain is 'gain'. It must be one of"),
        (plain(higher_is_better={}), "higher_is_better of Plain is empty"),
        (plain(main="loss"), "the main score of Plain is 'loss'"),
        (plain(tolerance=-1), "tolerance is -1. It must be a finite number of at least 0"),
        (plain(lambda members: {"gain": 1j * members[0]}), "'gain' as complex64, but scores are real numbers"),
        (plain(fractions=("loss",)), r"the fractions of Plain are \('loss',\)"),
        (plain(lambda members: members), "per_example returned a .* It must return a dictionary of arrays"),
        (plain(lambda members: {"gain": members.mean()}), r"'gain' with the shape \[\]. It must be \[44\]"),
        (plain(lambda members: {"gain": members}), r"'gain' with the shape \[1, 44\]"),
        (plain(lambda members: {"loss": members[0]}), "returned loss, and lacks the scores gain. Return them, or"),
        (plain(summary=lambda self, means: {}), "summary returned nothing, but higher_is_better names the scores gain"),
        (plain(reduce=lambda self, outputs, *targets: outputs.mean()), r"shapes \[\[\]\] for a batch of 44 examples"),
        (plain(reduce=lambda self, outputs, *targets: {}), r"shapes \[\] for a batch of 44 examples"),
        (type("Empty", (Task,), {})(), "Empty lacks higher_is_better"),
        (type("Half", (Task,), {"higher_is_better": {"nll": False}})(), "Half lacks per_example"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_work_is_refused(task, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.measure(lambda p, x: x @ p["w"], W, LINE, [(X, X)], task=task, num_points=3)


@pytest.mark.parametrize(
    ("predict", "batch", "task", "message"),
    [
        (lambda p, x: (x @ p["w"], p["w"][0]), (X, X[:, 0].astype(int) * 0), None, "For other outputs pass another task"),
        (lambda p, x: x, (X, X[:, 0]), None, r"float32\[44\]. It must hold the labels"),
        (lambda p, x: x, (X,), Likelihood(), r"log_prob_fn returned float32\[44, 3\]. For a likelihood it must"),
        (lambda p, x: x[:, 0].mean(), (X,), Likelihood(), r"log_prob_fn returned float32\[\]"),
        (lambda p, x: (x[:, 0], x), (X,), Likelihood(), r"log_prob_fn returned \(float32\[44\], float32\[44, 3\]\)"),
        (lambda p, x: x[:3, 0], (X,), Likelihood(), r"shapes \[\[3\]\] for a batch of 44 examples"),
        (lambda p, x: x[:, 0] > 0, (X,), Likelihood(), r"log_prob_fn returned bool\[44\]"),
        (lambda p, x: x, (), Likelihood(), r"batch 0 is a tuple of length 0. A batch is a tuple of arrays.*\[\(x,\)\]"),
    ],
)  # fmt: skip
def test_outputs_that_do_not_fit_a_task_are_one_message(predict, batch, task, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.measure(predict, W, LINE, [batch], task=task, num_points=3)


OUTPUTS = {
    **{name: CASES[name] for name in ("tokens", "regression", "likelihood")},
    "classification": (jsubspace.Classification(), lambda p, x: x * p["w"], (X, X.argmax(-1))),
    "features": (jsubspace.Classification(), lambda p, x: (x + p["w"], x), (X, X.argmax(-1))),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("change", [lambda found: found * (1 + 5j), lambda found: found > 0], ids=["complex", "bool"])
def test_complex_and_bool_outputs_are_refused(name, change):
    """Before, the imaginary part was dropped, and the network was measured as its real part."""
    task, predict, arrays = OUTPUTS[name]

    def changed(point, *inputs):
        return jax.tree.map(change, predict(point, *inputs))

    with pytest.raises(ValueError, match=r"(complex64|bool)"):
        jsubspace.measure(changed, W, LINE, [arrays], task=task, num_points=3, num_resamples=0)
    with pytest.raises(ValueError, match=r"(complex64|bool)"):
        task.losses(changed({"w": W["w"][0]}, X), *map(jnp.asarray, arrays[1:]))


@pytest.mark.parametrize("name", OUTPUTS)
def test_integers_are_outputs_like_their_floats(name):
    task, predict, arrays = OUTPUTS[name]

    def scores(dtype):
        def rounded(point, *inputs):
            found = jax.tree.map(lambda leaf: jnp.round(3 * leaf).astype(int), predict(point, *inputs))
            return jax.tree.map(lambda leaf: leaf.astype(dtype), found)

        report = jsubspace.measure(rounded, W, LINE, [arrays], task=task, num_points=3, num_resamples=0)
        return [dict(row.scores) for row in (*report.points, *report.ensembles)]

    assert scores(int) == scores(jnp.float32)


def test_numbers_of_numpy_are_options_and_become_floats():
    task = Regression(scale=np.float32(0.5), levels=np.array([0.5, 0.75]), tolerance=np.float64(0.25))
    assert (task.scale, task.levels, task.tolerance) == (0.5, (0.5, 0.75), 0.25)
    assert all(type(value) is float for value in (task.scale, *task.levels, task.tolerance))
    assert hash(task) == hash(Regression(scale=0.5, levels=(0.5, 0.75), tolerance=0.25))
    assert type(jsubspace.Classification(label_smoothing=np.float32(0.5)).label_smoothing) is float


def test_the_checked_task_is_the_task():
    assert checked(CASES["counts"][0]) is CASES["counts"][0]
