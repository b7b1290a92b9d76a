"""What examples say, and what the host makes of it, against scikit-learn, plain loops and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from jsubspace.evaluation import estimates, metrics
from jsubspace.evaluation.metrics import Scores
from jsubspace.evaluation.tasks import Classification


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 97, 5)) * 2
    labels = rng.integers(5, size=97)
    return logits, labels


def probabilities(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def scored(logits, labels):
    return metrics.score(jax.nn.log_softmax(jnp.asarray(logits)), jnp.asarray(labels))


def gap(inside, probs, labels):
    """n_b / n times |mean confidence - accuracy|, of the examples inside a bin."""
    confidence = np.mean([probs[i].max() for i in inside])
    accuracy = np.mean([probs[i].argmax() == labels[i] for i in inside])
    return len(inside) / len(labels) * abs(confidence - accuracy)


def ece_by_loops(probs, labels, num_bins):
    bins = [[i for i, p in enumerate(probs) if b / num_bins < p.max() <= (b + 1) / num_bins] for b in range(num_bins)]
    return sum(gap(inside, probs, labels) for inside in bins if inside)


def adaptive_ece_by_loops(probs, labels, num_bins):
    ordered = sorted(range(len(labels)), key=lambda i: probs[i].max())
    n = len(ordered)
    bins = [[ordered[r] for r in range(n) if r * num_bins // n == b] for b in range(num_bins)]
    return sum(gap(inside, probs, labels) for inside in bins if inside)


def test_against_scikit_learn_and_loops(predictions):
    logits, labels = predictions
    measured = estimates.summarize(scored(logits, labels))
    for i, probs in enumerate(probabilities(logits)):
        assert measured["accuracy"][i] == pytest.approx(accuracy_score(labels, probs.argmax(-1)), abs=1e-6)
        assert measured["nll"][i] == pytest.approx(log_loss(labels, probs), rel=1e-5)
        one_vs_rest = sum(brier_score_loss(labels == k, probs[:, k]) for k in range(5))
        assert measured["brier"][i] == pytest.approx(one_vs_rest, rel=1e-5)
        assert measured["ece"][i] == pytest.approx(ece_by_loops(probs, labels, 20), rel=1e-4)
        assert measured["adaptive_ece"][i] == pytest.approx(adaptive_ece_by_loops(probs, labels, 20), rel=1e-4)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_number_of_bins(predictions, num_bins):
    logits, labels = predictions
    probs, measured = probabilities(logits)[0], estimates.summarize(scored(logits[:1], labels), num_bins)
    assert measured["ece"][0] == pytest.approx(ece_by_loops(probs, labels, num_bins), rel=1e-4)
    assert measured["adaptive_ece"][0] == pytest.approx(adaptive_ece_by_loops(probs, labels, num_bins), rel=1e-4)


def test_certain_and_impossible_predictions():
    log_probs = jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]])
    measured = estimates.summarize(metrics.score(log_probs, jnp.array([0, 0])))
    assert measured == {"accuracy": 1, "nll": 0, "brier": 0, "ece": 0, "ece_debiased": 0, "adaptive_ece": 0}
    wrong = estimates.summarize(metrics.score(log_probs, jnp.array([0, 1])))
    assert wrong["nll"] == np.inf
    assert wrong["ece"] == pytest.approx(0.5)
    assert wrong["brier"] == pytest.approx(1.0)


def test_reliability_by_loops(predictions):
    logits, labels = predictions
    probs = probabilities(logits)[0]
    bins = estimates.reliability(jax.tree.map(lambda x: x[0], scored(logits, labels)), 10)
    assert sum(bins["count"]) == 97
    for b in range(10):
        inside = [i for i, p in enumerate(probs) if b / 10 < p.max() <= (b + 1) / 10]
        assert bins["count"][b] == len(inside)
        if inside:
            assert bins["confidence"][b] == pytest.approx(np.mean([probs[i].max() for i in inside]), rel=1e-5)
            assert bins["accuracy"][b] == pytest.approx(np.mean([probs[i].argmax() == labels[i] for i in inside]))
        else:
            assert bins["confidence"][b] is bins["accuracy"][b] is None


def test_intervals_of_means_are_those_of_the_normal_approximation():
    rng = np.random.default_rng(1)
    n, p = 4000, 0.9
    correct = (rng.uniform(size=n) < p).astype(float)
    nll = rng.exponential(size=n)
    bounds = estimates.intervals(Scores(correct, np.full(n, p), nll, nll), num_resamples=2000)
    for values, name in ((correct, "accuracy"), (nll, "nll")):
        half = 1.96 * values.std() / math.sqrt(n)
        np.testing.assert_allclose(
            bounds[name], [values.mean() - half, values.mean() + half], atol=0.15 * half
        )  # of resampling, and of skewness


def test_intervals_by_resampling_one_at_a_time(predictions):
    logits, labels = predictions
    scores = jax.tree.map(lambda x: np.asarray(x, np.float64), scored(logits, labels))
    counts = estimates.resamples(97, 50)
    assert (counts.sum(-1) == 97).all()
    bounds = estimates.intervals(scores, num_resamples=50)
    for name in ("nll", "brier"):
        of_examples = getattr(scores, name)
        values = [of_examples[:, np.repeat(np.arange(97), row)].mean(-1) for row in counts]
        mean, factor = of_examples.mean(-1)[:, None], stats.t.ppf(0.975, 96) / stats.norm.ppf(0.975) * (97 / 96) ** 0.5
        expected = mean + factor * (np.percentile(values, [2.5, 97.5], axis=0).T - mean)
        np.testing.assert_allclose(bounds[name], expected, rtol=1e-6)


def test_three_networks_disagree_over_all_their_pairs_together():
    """A ratio of sums over pairs and examples, not a mean of three ratios."""
    rng = np.random.default_rng(2)
    probs, labels = probabilities(rng.normal(size=(3, 30, 4))), rng.integers(4, size=30)
    classes = probs.argmax(-1)
    cases = [(i, j, n) for i in range(3) for j in range(i) for n in range(30) if labels[n] in classes[[i, j], n]]
    logits = jnp.log(probs)
    outcomes = Classification().outcomes((logits, None), (jnp.asarray(labels),), ((0, 1, 2),))
    (found,) = Classification().differences(outcomes.differences)
    expected = np.mean([classes[i, n] != classes[j, n] for i, j, n in cases])
    assert found["disagreement_where_one_is_right"] == pytest.approx(expected, rel=1e-6)


def test_difference_against_loops():
    rng = np.random.default_rng(1)
    p, q = probabilities(rng.normal(size=(2, 20, 4)))
    f, g = rng.normal(size=(2, 20, 6))
    labels = rng.integers(4, size=20)
    measured = estimates.summarize_difference(
        metrics.difference((jnp.log(p), jnp.log(q)), (jnp.asarray(f), jnp.asarray(g)), labels)
    )
    every = range(20)
    right = [i for i in every if labels[i] in (p[i].argmax(), q[i].argmax())]
    assert 0 < len(right) < 20
    expected = {
        "disagreement": np.mean([p[i].argmax() != q[i].argmax() for i in every]),
        "disagreement_where_one_is_right": np.mean([p[i].argmax() != q[i].argmax() for i in right]),
        "tv_distance": np.mean([np.abs(p[i] - q[i]).sum() / 2 for i in every]),
        "feature_cosine_squared": np.mean([(f[i] @ g[i]) ** 2 / (f[i] @ f[i]) / (g[i] @ g[i]) for i in every]),
    }
    assert measured == pytest.approx(expected, rel=1e-5)


def test_networks_that_agree_dead_features_and_none_right():
    log_probs = jax.nn.log_softmax(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
    features = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    measured = estimates.summarize_difference(
        metrics.difference((log_probs, log_probs), (features, 3 * features), jnp.array([1, 0]))
    )
    assert measured["tv_distance"] == 0
    assert measured["disagreement"] == 0
    assert measured["disagreement_where_one_is_right"] == 0
    assert measured["feature_cosine_squared"] == pytest.approx(0.5)  # one along, one without direction
