"""The line of robust fine-tuning: the scores and changes on every distribution, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.evaluation import paired
from jsubspace.merging import robust_line

RNG = np.random.default_rng(0)
NETWORKS = [{"w": RNG.normal(size=(4, 3)).astype(np.float32)} for _ in range(2)]


def predict_fn(point, x):
    return x @ point["w"]


def data(shift, n):
    x = (RNG.normal(size=(n, 4)) + shift).astype(np.float32)
    y = (x @ NETWORKS[shift > 0]["w"] + RNG.normal(size=(n, 3))).argmax(-1)
    return [(x[:50], y[:50]), (x[50:], y[50:])]


DATA = {"shifted": data(0.0, 90), "fine-tuned on": data(1.0, 60)}


def test_scores_and_changes_on_both_distributions():
    line = robust_line(predict_fn, *NETWORKS, DATA, num_points=4, num_resamples=50)
    assert line.alphas == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert [*line.reports] == [*DATA]
    right = {}
    for name, batches in DATA.items():
        x, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        points = [(1 - alpha) * NETWORKS[0]["w"] + alpha * NETWORKS[1]["w"] for alpha in line.alphas]
        right[name] = np.array([(x @ w).argmax(-1) == y for w in points], float)
    for i, (alpha, row) in enumerate(line.rows()):
        assert alpha == line.alphas[i]
        for name, (score, (low, high), change) in row.items():
            assert score == pytest.approx(right[name][i].mean(), abs=1e-6)
            assert low <= score <= high
            value, bounds = paired.of_means([right[name][i]], [right[name][-1]], is_fraction=True)
            assert (change.value, *change.interval) == pytest.approx((value, *bounds), abs=1e-6)
    report = jsubspace.measure(
        predict_fn, jsubspace.stack(NETWORKS), jsubspace.Line(), DATA["shifted"], num_points=4, num_resamples=50
    )
    for point in line.reports["shifted"].points:
        other = report.at(point.alpha)
        assert point.scores == pytest.approx(other.scores, abs=1e-6)
    assert line.table().splitlines()[0].split() == [
        "alpha",
        *["accuracy", "on", "shifted", "accuracy", "on", "fine-tuned", "on"],
    ]


def test_another_task_has_its_main_score():
    def log_prob_fn(point, x, y):
        return jax.nn.log_softmax(predict_fn(point, x))[jnp.arange(len(x)), y]

    line = robust_line(log_prob_fn, *NETWORKS, DATA, task=jsubspace.Likelihood(), num_points=2, num_resamples=50)
    assert line.score == "nll"
    assert line.changes["shifted"][-1].value == 0
    assert line.changes["shifted"][0].value < 0  # The pretrained network has the lower loss there.


WRONG = [
    ({"distributions": {"one": DATA["shifted"]}}, "at least two lists of batches by name"),
    ({"distributions": list(DATA.values())}, "distributions is a list"),
    ({"distributions": DATA | {"third": 3}}, "the distribution 'third' is 3"),
    ({"fine_tuned": {"w": np.ones((5, 3), np.float32)}}, "fine_tuned has the shape|of robust_line: fine_tuned"),
    ({"num_points": 1}, "num_points is 1"),
    ({"num_resamples": 0}, "num_resamples is 0"),
    ({"predict_fn": 3}, "predict_fn is 3"),
    ({"stats_fn": predict_fn}, "stats_fn and train_batches belong together"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_wrong_arguments_are_refused(changed, message):
    right = {"predict_fn": predict_fn, "pretrained": NETWORKS[0], "fine_tuned": NETWORKS[1], "distributions": DATA}
    with pytest.raises(ValueError, match=message):
        robust_line(**right | changed)
