"""Barriers of known height, intervals that hold, and verdicts on networks that are known to be connected or not."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.evaluation import connectors
from jsubspace.merging import barriers, segments
from jsubspace.merging.barriers import CONNECTED, NOT_CONNECTED, NOT_DECIDED
from jsubspace.merging.clinic import AS_THEY_ARE, BOTH, PERMUTED, STATISTICS, clinic
from jsubspace.merging.connections import connected
from jsubspace.merging.units import Symmetries, permuted

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
BATCHES = [(X[:25],), (X[25:],)]


def double_well(point, x):
    """loss = ((w - 1)(w + 1))² + x, so that the barrier from -1 to 1 is 1 at w = 0."""
    return -((point["w"][0] - 1) ** 2 * (point["w"][0] + 1) ** 2) - jnp.abs(x[:, 0])


def at(*places):
    return [{"w": jnp.array([place], float)} for place in places]


def test_a_barrier_of_known_height_is_found_where_it_is(x64):
    found = connected(double_well, dict(zip("abc", at(-1, 1, 1.5), strict=True)), BATCHES)
    pair = found.pair("a", "b")
    assert (pair.height, pair.at, pair.verdict) == (pytest.approx(1, abs=1e-12), 0.5, NOT_CONNECTED)
    np.testing.assert_allclose(pair.interval, [1, 1], atol=1e-12)
    t = np.linspace(0, 1, 11)
    w = -1 + 2.5 * t
    excess = (w**2 - 1) ** 2 - t * (1.5**2 - 1) ** 2
    other = found.pair(0, 2)
    assert other.height == pytest.approx(excess.max(), abs=1e-12)
    assert other.at == t[excess.argmax()]
    np.testing.assert_allclose(other.losses, (w**2 - 1) ** 2 + np.abs(X[:, 0]).mean(), rtol=1e-12)
    assert found.pair("c", "b").height == 0  # The loss is convex there.
    assert (found.pair("c", "b").verdict, found.verdict, found.worst) == (CONNECTED, NOT_CONNECTED, pair)
    assert found.mean.height == pytest.approx(0.75**2 - (0 + 0 + 1.25**2) / 3, abs=1e-12)
    assert found.groups == (("a",), ("b", "c"))
    assert "Groups with connected pairs alone: a; b, c." in str(found)
    assert found.num_examples == 40


def test_the_mean_of_all_has_a_verdict_of_its_own(x64):
    """All pairs of three corners of a triangle are connected, and their mean is not."""

    def hill(point, x):
        return -jnp.prod(3 * point["w"]) - 0 * x[:, 0]

    corners = [{"w": jnp.asarray(row)} for row in np.eye(3)]
    found = connected(hill, corners, BATCHES)
    assert [pair.verdict for pair in found.pairs] == [CONNECTED] * 3
    assert (found.mean.verdict, found.mean.height, found.verdict) == (NOT_CONNECTED, pytest.approx(1), NOT_CONNECTED)


@pytest.mark.parametrize("truth", [0.0, 0.15])
def test_the_interval_holds_the_largest_true_excess(truth):
    """In simulations with correlated, skewed losses: at least 93 of 100 intervals of 95 %, and not all verdicts are right."""
    positions, n = np.linspace(0, 1, 7), 150
    height = truth * np.sin(np.pi * positions)
    rng = np.random.default_rng(0)
    covered, verdicts = [], []
    for _ in range(400):
        common = rng.exponential(size=(1, n))
        losses = common + height[:, None] + 0.5 * (rng.exponential(size=(7, n)) - 1)
        found = barriers.along(("a", "b"), positions, losses, tolerance=0.1)
        covered.append(found.interval[0] - 1e-9 <= truth <= found.interval[1])
        verdicts.append(found.verdict)
    assert np.mean(covered) >= 0.93
    wrong = NOT_CONNECTED if truth < 0.1 else CONNECTED
    assert np.mean([verdict == wrong for verdict in verdicts]) <= 0.025
    assert {*verdicts} - {wrong, NOT_DECIDED}


def test_the_intervals_of_all_pairs_hold_together():
    """With six networks, sixteen intervals are wider than the interval of one pair."""
    rng = np.random.default_rng(0)
    plan = segments.between(6, 3)
    assert plan.weights.shape == (6 + 15 + 1, 6)
    np.testing.assert_allclose(plan.weights.sum(-1), 1)
    wrong = 0
    for _ in range(200):
        found, mean = plan.judged("abcdef", rng.normal(size=(22, 100)), tolerance=0.02)
        wrong += any(barrier.interval[0] > 1e-9 for barrier in (*found, mean))
    assert wrong / 200 <= 0.06


def test_many_networks_are_judged_without_draws(monkeypatch):
    """The 106 intervals of 15 networks took 22 seconds with draws, and take the largest of nine errors by the union bound."""
    monkeypatch.setattr(connectors.np.random, "default_rng", None)
    plan = segments.between(15, 11)
    losses = RNG.normal(size=(len(plan.weights), 50))
    found, _ = plan.judged([str(i) for i in range(15)], losses, 0.02)
    excess = losses[15:24] - ((1 - plan.positions)[1:-1, None] * losses[0] + plan.positions[1:-1, None] * losses[1])
    tail = 0.05 / 106 / 2
    wide = scipy.stats.t.isf(tail, 49) / scipy.stats.norm.isf(tail) * scipy.stats.sem(excess, axis=-1)
    expected = [
        (excess.mean(-1) - scipy.stats.norm.isf(tail / 9) * wide).max(),
        (excess.mean(-1) + scipy.stats.norm.isf(tail) * wide).max(),
    ]
    np.testing.assert_allclose(found[0].interval, np.maximum(expected, 0), rtol=1e-4)


def test_the_union_bound_is_nearly_the_quantile_of_the_largest_error():
    """Of nine errors that are independent, and of nine that are alike as neighbours on a segment."""
    draws = np.random.default_rng(1).normal(size=(400_000, 9))
    for likeness, slack in ((0.0, 1.01), (0.8, 1.08)):
        covariance = likeness ** np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
        largest = (draws @ np.linalg.cholesky(covariance).T).max(-1)
        ratio = connectors._at_once(covariance, 0.995) / np.quantile(largest, 0.9975)
        assert 0.99 < ratio < slack


def test_few_examples_and_infinite_losses():
    flat = np.ones((3, 29))
    positions = np.linspace(0, 1, 3)
    assert barriers.along("ab", positions, flat, 0.02).verdict == NOT_DECIDED
    assert barriers.along("ab", positions, np.ones((3, 30)), 0.02).verdict == CONNECTED
    flat[1, 4] = np.nan
    found = barriers.along("ab", positions, flat, 0.02)
    assert (found.height, found.verdict, found.at) == (np.inf, NOT_CONNECTED, 0.5)


def network(point, x, stats=None):
    hidden = x @ point["w"]
    mean, var = (hidden.mean(0), hidden.var(0)) if stats is None else (stats["mean"], stats["var"])
    return jnp.tanh((hidden - mean) / jnp.sqrt(var + 1e-5)) @ point["head"]


def stats_fn(point, x):
    hidden = x @ point["w"]
    return {"mean": hidden.mean(0), "var": hidden.var(0)}


POINT = {"w": RNG.normal(size=(3, 8)), "head": RNG.normal(size=(8, 2))}
Y = np.asarray(network(POINT, X))


def log_prob(point, x, y, stats=None):
    return -jnp.sum((network(point, x, stats) - y) ** 2, axis=-1)


def test_a_permuted_copy_comes_out_connected(x64):
    """Its barrier is 0 to 1e-10, and the copy is found again bit by bit."""
    units = ("units", 8)
    by_hand = Symmetries({"head": ((units,), ((None, 2),)), "w": (((None, 3),), (units,))})
    copy = permuted(POINT, by_hand, {"units": np.roll(np.arange(8), 3)})

    def without(point, x, y):
        return -jnp.sum((jnp.tanh(x @ point["w"]) @ point["head"] - y) ** 2, axis=-1)

    y = np.tanh(X @ POINT["w"]) @ POINT["head"]
    found = clinic(without, {"one": POINT, "copy": copy}, iter([(X, y)]), symmetries=by_hand)
    assert (found.before.verdict, found.best) == (NOT_CONNECTED, PERMUTED)
    after = found.treatments[PERMUTED]
    assert (after.verdict, found.before.worst.height > 0.1) == (CONNECTED, True)
    assert after.worst.height <= 1e-10
    jax.tree.map(np.testing.assert_array_equal, found.aligned[1], POINT)
    assert "Best remedy: units permuted." in str(found)
    derived = clinic(without, [POINT, copy], [(X, y)])
    assert derived.treatments[PERMUTED].worst.height <= 1e-10


def test_the_clinic_compares_statistics_that_are_averaged_with_statistics_that_are_estimated(x64):
    """Two networks with hidden layers of opposite sign: the mean of the variances is far from the variance at the mean."""
    other = POINT | {"w": POINT["w"] * np.array([-1.0, 1, 1, 1, 1, 1, 1, 1]), "head": POINT["head"] * 1.0}
    other["head"] = other["head"] * np.array([-1.0, 1, 1, 1, 1, 1, 1, 1])[:, None]
    close = jax.tree.map(lambda a, b: 0.6 * a + 0.4 * b, POINT, other)
    train = [(X[:20],), (X[20:],)]
    found = clinic(
        log_prob, {"one": POINT, "close": close}, [(X, Y)], stats_fn=stats_fn, train_batches=iter(train), num_points=3
    )
    assert list(found.treatments) == [AS_THEY_ARE, STATISTICS, PERMUTED, BOTH]
    middle = jax.tree.map(lambda a, b: (a + b) / 2, POINT, close)
    of = [jsubspace.reestimate_batch_stats(stats_fn, point, train) for point in (POINT, close, middle)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *of[:2])
    for name, stats in ((AS_THEY_ARE, mean), (STATISTICS, of[2])):
        expected = -log_prob(middle, X, Y, stats).mean()
        assert found.treatments[name].pairs[0].losses[1] == pytest.approx(float(expected), rel=1e-9)
        assert found.treatments[name].losses[1] == pytest.approx(-float(log_prob(close, X, Y, of[1]).mean()), rel=1e-9)
    again = connected(log_prob, [POINT, close], [(X, Y)], stats_fn=stats_fn, train_batches=train, num_points=3)
    assert again.pairs[0].losses == pytest.approx(found.treatments[STATISTICS].pairs[0].losses, rel=1e-12)


def test_a_common_start_is_advised_by_cosines():
    rng = np.random.default_rng(1)
    one = {"w": rng.normal(size=(3, 50)), "head": rng.normal(size=(50, 2))}
    other = {"w": one["w"][:, ::-1], "head": one["head"][::-1]}
    near = jax.tree.map(lambda leaf: leaf + 0.01 * rng.normal(size=leaf.shape), one)
    one, other, near = (jax.tree.map(np.float32, each) for each in (one, other, near))
    x = X.astype(np.float32)
    y = network(one, x)
    fixed = Symmetries({"head": (((None, 50),), ((None, 2),)), "w": (((None, 3),), ((None, 50),))})
    options = {"num_points": 3, "symmetries": fixed}
    found = clinic(log_prob, {"one": one, "near": near, "other": other}, [(x, y)], **options)
    assert found.cosines[0, 1] > 0.99 > 0.3 > abs(found.cosines[0, 2])
    assert found.advice.startswith("No remedy lowers the barriers.")
    assert re.search(
        r"The kernels of one and other \(-?0\.\d\d\), near and other .* Start all networks from one", found.advice
    )
    of_origin = clinic(log_prob, {"one": one, "near": near, "other": other}, [(x, y)], origin=one, **options)
    lengths = [
        np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(each.values(), one.values(), strict=True)))
        for each in (near, other)
    ]
    np.testing.assert_allclose(of_origin.distances[1:], lengths, rtol=1e-5)
    assert "other is the farthest from the origin" in of_origin.advice


def test_the_picture_shows_the_matrix_and_the_worst_path(tmp_path):
    found = connected(
        double_well, dict(zip(("a", "b$", "c"), at(-1, 1, 1.2), strict=True)), [(np.float32(X),)], num_points=5
    )
    figure = found.plot(tmp_path / "barriers.png")
    matrix, path = figure.axes[:2]
    heights = matrix.images[0].get_array()
    assert heights[0, 1] == heights[1, 0] == found.pairs[0].height
    assert [text.get_text() for text in matrix.texts][:2] == ["1.00\n✗"] * 2
    np.testing.assert_allclose(path.lines[0].get_ydata(), found.worst.losses)
    assert (tmp_path / "barriers.png").stat().st_size > 1000
    assert found.to_json()["verdict"] == NOT_CONNECTED


def test_what_cannot_be_compared_is_refused():
    good = at(-1, 1)
    x = np.float32(X)
    for arguments, message in (
        ((double_well, good[:1], [(x,)]), "connected: 1 network was given, but at least 2 are needed"),
        ((double_well, [good[0], {"w": jnp.ones(2)}], [(x,)]), "has the shape [2], but in network 0 it is [1]"),
        ((double_well, [good[0], {"w": jnp.array([jnp.nan])}], [(x,)]), "holds NaN"),
        ((lambda point, x: jnp.log(point["w"][0]) * x[:, 0], good, [(x,)]), "connected: network 0 gives 40 of 40 examples a log-probability that is not finite"),
        ((lambda point, x: point["w"], good, [(x,)]), "outputs of the shapes [[1]] for a batch of 40 examples"),
        ((double_well, good, []), "there is no test batch"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(message)):
            connected(*arguments)
    for options, message in (
        ({"num_points": 2}, "a segment needs at least 3 points"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"stats_fn": stats_fn}, "stats_fn and train_batches belong together"),
    ):
        with pytest.raises(ValueError, match=message):
            connected(double_well, good, [(x,)], **options)
        with pytest.raises(ValueError, match=message):
            clinic(double_well, good, [(x,)], **options)
    with pytest.raises(UsageError, match="there is no pair of 0 and 'c'"):
        connected(double_well, good, [(x,)]).pair(0, "c")
    with pytest.raises(UsageError, match=r"there is no pair of -10 and 1\. The networks are network 0, network 1"):
        connected(double_well, good, [(x,)]).pair(-10, 1)
    assert connected(double_well, good, [(x,)]).pair(-2, -1).names == ("network 0", "network 1")
    with pytest.raises(ValueError, match="clinic: batches holds no batch"):
        clinic(double_well, good, [])
