"""Perplexity and bits per byte against sums by hand, and sequences as the units of every interval."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.evaluation import networks
from jsubspace.evaluation.batches import padded
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.survey import survey

V, T = 5, 7
LINE = jsubspace.Line()


def predict_fn(point, tokens):
    return point["table"][tokens]


def tables(seed=0):
    return {"table": jnp.asarray(np.random.default_rng(seed).normal(size=(2, V, V)), jnp.float32)}


def texts(n=30, seed=0):
    tokens = np.random.default_rng(seed).integers(V, size=(n, T + 1))
    return tokens[:, :-1], tokens[:, 1:].copy()


def cut(arrays, size):
    return [tuple(array[i : i + size] for array in arrays) for i in range(0, len(arrays[0]), size)]


def probabilities(table, tokens):
    """``[n, T, V]`` in float64."""
    logits = np.asarray(table, np.float64)[tokens]
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def by_hand(probs, labels, counts, sizes):
    """The three scores from probabilities, one token after the other."""
    nats, tokens, size = 0.0, 0, 0.0
    for i, t in zip(*np.nonzero(counts), strict=True):
        nats -= np.log(probs[i, t, labels[i, t]])
        tokens, size = tokens + 1, size + sizes[labels[i, t]]
    return {"nll": nats / tokens, "perplexity": np.exp(nats / tokens), "bits_per_byte": nats / np.log(2) / size}


@pytest.mark.parametrize("masked", [False, True])
def test_scores_of_points_and_ensembles_by_hand(masked):
    endpoints, (tokens, labels) = tables(), texts()
    sizes, rng = [1.0, 2.0, 1.0, 3.0, 4.0], np.random.default_rng(1)
    counts = rng.uniform(size=labels.shape) < 0.6
    counts[:, 0] = True
    if masked:
        labels[~counts] = 99  # padding that is no token
        arrays = (tokens, labels, counts)
    else:
        labels[~counts] = -100
        arrays = (tokens, labels)
    task = jsubspace.Tokens(token_bytes=sizes, masked=masked)
    report = jsubspace.measure(predict_fn, endpoints, LINE, cut(arrays, 8), task=task, num_points=3, num_resamples=20)
    first, second = (probabilities(table, tokens) for table in endpoints["table"])
    middle = probabilities(endpoints["table"].mean(0), tokens)
    ensemble = report.ensemble(0, 1)
    for row, probs in ((report.at(0), first), (report.center, middle), (ensemble, (first + second) / 2)):
        expected = by_hand(probs, labels, counts, sizes)
        assert dict(row.scores) == pytest.approx(expected, rel=1e-5)
        for name, (low, high) in row.intervals.items():
            assert low < row.scores[name] < high
    assert ensemble.nll <= (report.at(0).nll + report.at(1).nll) / 2
    assert report.connector["mean_of_ends"] == pytest.approx((report.at(0).nll + report.at(1).nll) / 2)
    assert report.connector["score"] == "nll"


def test_a_certain_and_an_undecided_model_have_known_perplexities():
    tokens, labels = texts()
    ends = {"table": jnp.zeros((2, V, V))}
    report = jsubspace.measure(predict_fn, ends, LINE, [(tokens, labels)], task=jsubspace.Tokens(token_bytes=1))
    assert report.center.perplexity == pytest.approx(V)
    assert report.center.bits_per_byte == pytest.approx(np.log2(V))
    cycle = np.tile(np.arange(T + 1) % V, (4, 1))
    ends = {"table": jnp.stack([100 * jnp.roll(jnp.eye(V), 1, axis=1)] * 2)}
    report = jsubspace.measure(predict_fn, ends, LINE, [(cycle[:, :-1], cycle[:, 1:])], task=jsubspace.Tokens())
    assert report.center.perplexity == pytest.approx(1)


def test_intervals_draw_sequences_and_never_tokens():
    """The tokens of a sequence have one loss here. Draws of tokens would give an interval that is ten times too short."""
    n, length = 200, 100
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=n)

    def predict(point, loss, same):  # The label 0 has exactly this loss.
        other = jnp.log(jnp.expm1(loss)) + 0 * point["shift"]
        return jnp.stack([jnp.zeros_like(other), other], axis=-1)[:, None] * jnp.ones((1, length, 1))

    labels = np.zeros((n, length), int)
    report = jsubspace.measure(
        predict, {"shift": jnp.zeros(2)}, LINE, [(losses, losses, labels)], task=jsubspace.Tokens(), num_points=3
    )
    assert report.center.nll == pytest.approx(losses.mean(), rel=1e-5)
    low, high = report.center.intervals["nll"]
    error = losses.std() / np.sqrt(n)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert high - low > 5 * (2 * 1.96 * error / np.sqrt(length))  # what draws of tokens would say


def test_a_long_sequence_weighs_more_and_its_weight_is_drawn_with_it():
    """The interval of a ratio of two sums, against the delta method."""
    rng, n = np.random.default_rng(0), 400
    lengths = rng.integers(1, T + 1, size=n)
    tokens, labels = texts(n)
    labels[np.arange(T) >= lengths[:, None]] = -1
    report = jsubspace.measure(predict_fn, tables(), LINE, [(tokens, labels)], task=jsubspace.Tokens(), num_points=3)
    probs = probabilities(tables()["table"][0], tokens)
    nats = np.array([
        -sum(np.log(probs[i, t, labels[i, t]]) for t in range(lengths[i])) for i in range(n)
    ])  # fmt: skip
    ratio = nats.sum() / lengths.sum()
    error = np.std(nats - ratio * lengths, ddof=1) / np.sqrt(n) / lengths.mean()
    low, high = report.at(0).intervals["nll"]
    assert report.at(0).nll == pytest.approx(ratio, rel=1e-5)
    assert (low, high) == pytest.approx((ratio - 1.96 * error, ratio + 1.96 * error), abs=0.2 * error)


def test_sequences_of_several_lengths_are_measured_together():
    endpoints = tables()
    (a, b), (c, d) = texts(8, 0), texts(8, 1)
    report = jsubspace.measure(
        predict_fn, endpoints, LINE, [(a, b), (c[:, :4], d[:, :4])], task=jsubspace.Tokens(), num_points=3
    )
    p, q = (probabilities(endpoints["table"][0], tokens) for tokens in (a, c[:, :4]))
    nats = [-np.log(p[i, t, b[i, t]]) for i in range(8) for t in range(T)]
    nats += [-np.log(q[i, t, d[i, t]]) for i in range(8) for t in range(4)]
    assert report.at(0).nll == pytest.approx(np.mean(nats), rel=1e-5)


def test_the_logits_of_two_points_are_never_held_together():
    vocabulary, n, length = 64, 8, 32
    endpoints = {"table": jnp.zeros((2, vocabulary, vocabulary))}
    plan, task = survey(LINE, 5), jsubspace.Tokens()
    evaluator = Evaluator(networks.from_functions(predict_fn), task, plan)
    tokens = np.zeros((n, length), int)
    (batch,) = padded([(tokens, tokens)], task)
    program = jax.make_jaxpr(evaluator._outcomes_of_batch)(endpoints, (plan.weights, None), batch)
    shapes = [tuple(map(int, shape.split(","))) for shape in re.findall(r"f32\[([\d,]+)\]", str(program))]
    largest = max(shapes, key=np.prod)
    assert largest == (n, length, vocabulary)
    assert (5, n, length) in shapes  # One number per token is kept for all points,
    assert max(np.prod(leaf.shape) for leaf in program.out_avals) == 5 * n  # and a few per sequence leave the device.


A, B = texts(8)
ENDS = tables()


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ((A, B / 2), {}, r"batch 0 is float64\[8, 7\]. It must hold the labels \[n, T\], one integer per token"),
        ((A, B[:, 0]), {}, r"int64\[8\]. It must hold the labels \[n, T\].* For one label per example use Classification"),
        ((A, B, np.ones((8, 6))), {"masked": True}, r"the mask of batch 0 has the shape \[8, 6\], but the labels have \[8, 7\]"),
        ((A, B, np.full((8, 7), 0.5)), {"masked": True}, "values other than 0 and 1"),
        ((A, B, np.arange(8)[:, None] * np.ones((8, 7)) != 3), {"masked": True}, "sequence 3 of batch 0 has no token that counts"),
        ((A, np.full_like(B, -100)), {}, "sequence 0 of batch 0 has no token that counts"),
        ((A, B[:, :0]), {}, "sequence 0 of batch 0 has no token"),
        ((A, B), {"masked": True}, "A batch is a tuple of the network's inputs and, last, the labels and the mask"),
        ((A, B[:, 1:]), {}, r"returned float32\[8, 7, 5\] for labels of the shape \[8, 6\]. For tokens it must return logits"),
        ((A, np.full_like(B, V)), {}, "a label is no token. The labels that count are integers below"),
        ((A, B), {"token_bytes": [1.0, 2.0]}, "token_bytes has 2 numbers, but the logits are of 5 tokens"),
    ],
)  # fmt: skip
def test_bad_input(batch, options, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.measure(predict_fn, ENDS, LINE, [batch], task=jsubspace.Tokens(**options), num_points=3)


@pytest.mark.parametrize("given", [0, -1, [0.0, 0.0], [1.0, -1.0], "1", np.inf, [], [[1.0]]])
def test_bytes_are_positive_numbers(given):
    with pytest.raises(ValueError, match="It must be a positive number of bytes, or one number for every token"):
        jsubspace.Tokens(token_bytes=given)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("empty", [[2], list(range(4))], ids=["one", "all"])
def test_a_sequence_without_a_token_adds_nothing_to_the_training_loss(empty, masked):
    """In a stream or an augmentation nobody can refuse the sequence. The loss is the sum of the others, divided by n."""
    (_, labels), task = texts(4), jsubspace.Tokens(masked=masked)
    counts = np.ones_like(labels)
    counts[empty], counts[0, 3:] = 0, 0
    targets = (labels, counts) if masked else (np.where(counts, labels, -1),)
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, T, V)), jnp.float32)

    def mean(logits, *targets):
        return task.losses(logits, *targets).mean()

    loss, slope = jax.jit(jax.value_and_grad(mean))(logits, *targets)
    full = np.setdiff1d(np.arange(4), empty)
    assert np.isfinite(loss)
    assert not np.asarray(slope)[empty].any()
    if not len(full):
        assert loss == 0
        return
    expected, of_full = jax.value_and_grad(mean)(logits[full], *(target[full] for target in targets))
    assert float(loss) == pytest.approx(float(expected) * len(full) / 4, rel=1e-6)
    np.testing.assert_allclose(np.asarray(slope)[full], np.asarray(of_full) * len(full) / 4, rtol=1e-5, atol=1e-8)
