"""Metrics against scikit-learn and plain loops over examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from jsubspace import metrics


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 97, 5)) * 2
    labels = rng.integers(5, size=97)
    return logits, labels


def probabilities(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def summarized(logits, labels, mask=None, num_bins=20):
    mask = np.ones(len(labels), bool) if mask is None else mask
    sums = metrics.classification(jax.nn.log_softmax(jnp.asarray(logits)), jnp.asarray(labels), mask, num_bins)
    return metrics.summarize(sums)


def ece_by_loops(probs, labels, num_bins):
    total = 0.0
    for b in range(num_bins):
        inside = [i for i, p in enumerate(probs) if b / num_bins < p.max() <= (b + 1) / num_bins]
        if inside:
            confidence = np.mean([probs[i].max() for i in inside])
            accuracy = np.mean([probs[i].argmax() == labels[i] for i in inside])
            total += len(inside) / len(labels) * abs(confidence - accuracy)
    return total


def test_against_scikit_learn_and_loops(predictions):
    logits, labels = predictions
    measured = summarized(logits, labels)
    for i, probs in enumerate(probabilities(logits)):
        assert measured["accuracy"][i] == pytest.approx(accuracy_score(labels, probs.argmax(-1)), abs=1e-6)
        assert measured["nll"][i] == pytest.approx(log_loss(labels, probs), rel=1e-5)
        one_vs_rest = sum(brier_score_loss(labels == k, probs[:, k]) for k in range(5))
        assert measured["brier"][i] == pytest.approx(one_vs_rest, rel=1e-5)
        assert measured["ece"][i] == pytest.approx(ece_by_loops(probs, labels, 20), rel=1e-4)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_number_of_bins(predictions, num_bins):
    logits, labels = predictions
    expected = ece_by_loops(probabilities(logits)[0], labels, num_bins)
    assert summarized(logits[:1], labels, num_bins=num_bins)["ece"][0] == pytest.approx(expected, rel=1e-4)


def test_batches_add_up_and_padding_does_not_count(predictions):
    logits, labels = predictions
    log_probs = jax.nn.log_softmax(jnp.asarray(logits))
    whole = metrics.classification(log_probs, labels, np.ones(97, bool))
    mask = np.arange(64) < 33
    padded = jnp.full((2, 64, 5), jnp.nan).at[:, :33].set(log_probs[:, 64:])
    first = metrics.classification(log_probs[:, :64], labels[:64], np.ones(64, bool))
    last = metrics.classification(padded, np.r_[labels[64:], np.zeros(31, int)], mask)
    for total, a, b in zip(whole, first, last, strict=True):
        np.testing.assert_allclose(a + b, total, rtol=1e-5)


def test_certain_and_impossible_predictions():
    log_probs = jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]])
    measured = metrics.summarize(metrics.classification(log_probs, jnp.array([0, 0]), np.ones(2, bool)))
    assert measured == {"accuracy": 1, "nll": 0, "brier": 0, "ece": 0}
    wrong = metrics.summarize(metrics.classification(log_probs, jnp.array([0, 1]), np.ones(2, bool)))
    assert wrong["nll"] == np.inf
    assert wrong["ece"] == pytest.approx(0.5)
    assert wrong["brier"] == pytest.approx(1.0)


def test_difference_against_loops():
    rng = np.random.default_rng(1)
    p, q = probabilities(rng.normal(size=(2, 20, 4)))
    f, g = rng.normal(size=(2, 20, 6))
    mask = np.arange(20) < 15
    sums = metrics.difference((jnp.log(p), jnp.log(q)), (jnp.asarray(f), jnp.asarray(g)), mask)
    measured = metrics.summarize_difference(sums)
    counted = range(15)
    tv = np.mean([np.abs(p[i] - q[i]).sum() / 2 for i in counted])
    disagreement = np.mean([p[i].argmax() != q[i].argmax() for i in counted])
    cosine = np.mean([(f[i] @ g[i]) ** 2 / (f[i] @ f[i]) / (g[i] @ g[i]) for i in counted])
    assert measured["tv_distance"] == pytest.approx(tv, rel=1e-5)
    assert measured["disagreement"] == pytest.approx(disagreement)
    assert measured["feature_cosine_squared"] == pytest.approx(cosine, rel=1e-5)


def test_networks_that_agree_and_dead_features():
    log_probs = jax.nn.log_softmax(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
    features = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    measured = metrics.summarize_difference(
        metrics.difference((log_probs, log_probs), (features, 3 * features), np.ones(2, bool))
    )
    assert measured["tv_distance"] == 0
    assert measured["disagreement"] == 0
    assert measured["feature_cosine_squared"] == pytest.approx(0.5)  # one along, one without direction
