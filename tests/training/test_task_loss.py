"""The training loss of every task against its formula, and its gradient against the gradient of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jsubspace
from jsubspace.network import Network
from jsubspace.training.train_step import task_loss

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(5, 3)).astype(np.float32), np.array([0, 2, 1, 1, 0])
TOKENS = RNG.normal(size=(5, 4, 3)).astype(np.float32), RNG.integers(0, 3, size=(5, 4))
MASK = np.arange(4) < np.array([4, 1, 2, 3, 4])[:, None]
NUMBERS = RNG.normal(size=(2, 5)).astype(np.float32), RNG.normal(size=5).astype(np.float32)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def nll(logits, labels):
    return -np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0]


class Absolute(jsubspace.Task):
    """A task of one's own, which trains by its nll: a Laplace distribution."""

    higher_is_better = {"nll": False}  # noqa: RUF012

    def per_example(self, members, targets):
        return {"nll": jnp.abs(members.mean(0) - targets) + np.log(2)}


CASES = {
    "labels": (jsubspace.Classification(), LOGITS, (LABELS,), nll(LOGITS, LABELS)),
    "smooth labels": (
        jsubspace.Classification(label_smoothing=0.2), LOGITS, (LABELS,),
        0.8 * nll(LOGITS, LABELS) - 0.2 * log_softmax(LOGITS).mean(-1),
    ),
    "tokens": (jsubspace.Tokens(), TOKENS[0], TOKENS[1:], nll(*TOKENS).mean(-1)),
    "masked tokens": (
        jsubspace.Tokens(masked=True), TOKENS[0], (TOKENS[1], MASK), (nll(*TOKENS) * MASK).sum(-1) / MASK.sum(-1),
    ),
    "numbers": (
        jsubspace.Regression(), tuple(NUMBERS[0]), NUMBERS[1:],
        -stats.norm.logpdf(NUMBERS[1], NUMBERS[0][0], np.exp(NUMBERS[0][1] / 2)),
    ),
    "likelihoods": (jsubspace.Likelihood(), NUMBERS[1], (), -NUMBERS[1]),
    "a task of one's own": (Absolute(), NUMBERS[0][0], NUMBERS[1:], np.abs(NUMBERS[0][0] - NUMBERS[1]) + np.log(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_mean_of_the_formula(name):
    task, outputs, targets, expected = CASES[name]
    network = Network(None, lambda point, x, key, train: jax.tree.map(lambda leaf: point * leaf, outputs))
    loss_fn = task_loss(network, task)
    batch = np.zeros((5, 1), np.float32), *targets
    of_point = jax.jit(jax.value_and_grad(lambda point: loss_fn(point, batch, None), has_aux=True))
    (loss, scores), slope = of_point(jnp.float32(1))
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-5)
    assert list(scores) == (["accuracy"] if isinstance(task, jsubspace.Classification) else [])
    step = 1e-2
    beside = [float(of_point(jnp.float32(1 + sign * step))[0][0]) for sign in (-1, 1)]
    assert float(slope) == pytest.approx((beside[1] - beside[0]) / 2 / step, abs=2e-3)


def test_a_label_that_is_no_token_stops_training():
    labels = TOKENS[1].copy()
    labels[2, 1] = 3
    losses = jsubspace.Tokens().losses(TOKENS[0], labels)
    assert np.flatnonzero(np.isnan(losses)).tolist() == [2]


def test_only_training_smooths_labels():
    task = jsubspace.Classification(label_smoothing=0.2)
    plain = jsubspace.Classification().losses(LOGITS, LABELS)
    np.testing.assert_array_equal(task.unregularized.losses(LOGITS, LABELS), plain)
    assert jsubspace.Tokens().unregularized == jsubspace.Tokens()
