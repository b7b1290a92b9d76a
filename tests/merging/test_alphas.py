"""fit_alpha: planted positions are recovered, the gain is about unseen examples, and "no gain" is an answer."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jsubspace
from experiments import coverage
from jsubspace.merging import descent, domains, folds, gains

LINE, CURVE, TRIANGLE = jsubspace.Line(), jsubspace.Curve(), jsubspace.Simplex(3)


def logits_fn(point, x):
    return x @ point["a"]["w"] + point["b"]["w"]


def log_prob_fn(point, x, targets):
    """The expected log-probability of labels that a planted network draws, so the planted network is the best one."""
    return jnp.sum(targets * jax.nn.log_softmax(logits_fn(point, x)), axis=-1)


def planted(subspace, alpha, n=60):
    """Endpoints, and batches in which a point of the subspace is the best network."""
    m = subspace.num_endpoints
    rng = np.random.default_rng(m)
    endpoints = {
        "a": {"w": jnp.asarray(rng.normal(size=(m, 5, 4)), jnp.float32)},
        "b": {"w": jnp.asarray(rng.normal(size=(m, 4)), jnp.float32)},
    }
    best = jsubspace.interpolate(endpoints, alpha, subspace)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    targets = np.asarray(jax.nn.softmax(logits_fn(best, x)))
    return endpoints, [(x[:40], targets[:40]), (x[40:], targets[40:])]


@pytest.mark.parametrize(
    ("subspace", "alpha"),
    [(LINE, 0.23), (CURVE, 0.8), (TRIANGLE, [0.1, 0.6, 0.3]), (TRIANGLE, [0.0, 0.0, 1.0])],
    ids=["line", "curve", "simplex", "corner"],
)
def test_a_planted_alpha_is_recovered(subspace, alpha):
    endpoints, batches = planted(subspace, jnp.asarray(alpha))
    found = jsubspace.fit_alpha(log_prob_fn, endpoints, subspace, iter(batches))
    np.testing.assert_allclose(found.alpha, alpha, atol=2e-3)
    assert found.is_done
    assert found.gain.verdict == "gain"
    assert found.loss < found.loss_at_center
    assert found.fold_alphas.shape == (5, 1, *subspace.alpha_shape)
    for leaf, other in zip(
        jax.tree.leaves(found.network),
        jax.tree.leaves(jsubspace.interpolate(endpoints, found.alpha, subspace)),
        strict=True,
    ):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)
    assert "gain: +" in found.table()


def test_every_layer_has_its_own_alpha():
    layers = jsubspace.layers({"a": {"w": 0.0}, "b": {"w": 0.0}})
    endpoints, batches = planted(LINE, {"a": {"w": jnp.float32(0.9)}, "b": {"w": jnp.float32(0.2)}})
    for by in ("layer", layers, ["a"]):
        found = jsubspace.fit_alpha(log_prob_fn, endpoints, LINE, batches, by=by)
        assert abs(found.alpha["a"]["w"] - 0.9) < 2e-3
        assert abs(found.alpha["b"]["w"] - 0.2) < 2e-3
    assert set(found.by_part) == {"a", "other leaves"}


@pytest.mark.parametrize(("subspace", "alpha"), [(LINE, 0.25), (CURVE, 0.75), (TRIANGLE, [0.25, 0.5, 0.25])])
def test_the_grid_finds_the_planted_point_of_the_grid(subspace, alpha):
    endpoints, batches = planted(subspace, jnp.asarray(alpha))
    found = jsubspace.fit_alpha(log_prob_fn, endpoints, subspace, batches, method="grid", num_points=5)
    np.testing.assert_allclose(found.alpha, alpha, atol=1e-6)
    assert found.gain.verdict == "gain"


def hidden_log_prob(point, x, y):
    return -((jnp.tanh(x @ point["a"]["w"]) @ point["b"]["w"] - y) ** 2)


def independent(m, seed):
    """Networks with barriers between them, and data of another network."""
    rng = np.random.default_rng(seed)
    endpoints = {"a": {"w": 2 * rng.normal(size=(m, 2, 3))}, "b": {"w": 2 * rng.normal(size=(m, 3))}}
    x = rng.normal(size=(40, 2))
    y = np.tanh(x @ rng.normal(size=(2, 3))) @ rng.normal(size=3)
    return jax.tree.map(np.float32, endpoints), [(x.astype(np.float32), y.astype(np.float32))]


def on_data(subspace, endpoints, batch, alphas):
    """The losses ``[s, n]`` at alphas."""
    points = [jsubspace.interpolate(endpoints, jnp.asarray(alpha, jnp.float32), subspace) for alpha in alphas]
    return np.stack([-hidden_log_prob(point, *batch) for point in points])


@pytest.mark.parametrize(
    ("subspace", "by"),
    [(LINE, None), (LINE, "layer"), (CURVE, None), (TRIANGLE, None), (jsubspace.Simplex(4), "layer")],
    ids=str,
)
def test_a_fit_is_never_worse_than_its_starts(subspace, by):
    """A descent from the center alone ends at a worse place than an end or a point of the grid in some of these cases."""
    for seed in (0, 1, 2):
        endpoints, batches = independent(subspace.num_endpoints, seed)
        found = jsubspace.fit_alpha(hidden_log_prob, endpoints, subspace, batches, by=by)
        starts = [subspace.center, *subspace.ends, *subspace.grid(11)]
        of_starts = on_data(subspace, endpoints, batches[0], starts)
        assert found.loss <= of_starts.mean(-1).min() + 1e-5
        assert found.loss_at_center == pytest.approx(of_starts[0].mean(), rel=1e-5)
        if by is None:
            of_folds = on_data(subspace, endpoints, batches[0], found.fold_alphas[:, 0])
            for weights, losses in zip(folds.folds(40).weights[1:], of_folds, strict=True):
                assert weights @ losses <= (of_starts @ weights).min() + 1e-5


def test_the_top_of_a_barrier_is_no_optimum():
    """Both ends have the loss 0, and the center is the top between them, where the slope is 0."""
    x = jnp.linspace(-1, 1, 50)
    networks, batches = [jnp.array([2.0, 1.0]), jnp.array([-2.0, -1.0])], [(x, jnp.tanh(2 * x))]

    def double(point, x, y):
        return -((y - jnp.tanh(x * point[0]) * point[1]) ** 2)

    found = jsubspace.fit_alpha(double, jsubspace.stack(networks), LINE, batches)
    assert (found.alpha in (0, 1), found.loss, found.gain.verdict) == (True, pytest.approx(0, abs=1e-12), "gain")
    report = jsubspace.soup(double, networks, batches, how="fitted").report
    assert (report.loss, report.over_center.verdict) == (pytest.approx(0, abs=1e-12), "gain")


def test_a_fit_chooses_its_start_without_its_fold():
    """Other labels in fold 0 change the other fits, and not the fit without fold 0."""
    endpoints, [(x, y)] = independent(2, 0)
    other = np.where(folds.folds(40).fold == 0, y + 30, y).astype(np.float32)
    one, two = (jsubspace.fit_alpha(hidden_log_prob, endpoints, LINE, [(x, each)]).fold_alphas for each in (y, other))
    np.testing.assert_allclose(one[0], two[0], atol=1e-4)
    assert np.abs(one - two).max() > 0.1


@pytest.mark.parametrize("method", ["grid", "gradient"])
@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_a_position_with_a_loss_that_is_not_finite_is_not_chosen(method, broken):
    """One example has no loss at alpha = 1. The fit without it chooses by the other examples alone."""

    def log_prob(point, x):
        return jnp.where((point["w"] == 1) & (x == 7), broken, -((point["w"] - 0.3) ** 2) - 0 * x)

    endpoints, batches = {"w": jnp.array([0.0, 1.0])}, [(jnp.arange(30.0),)]
    found = jsubspace.fit_alpha(log_prob, endpoints, LINE, batches, method=method)
    assert found.alpha == pytest.approx(0.3, abs=1e-4)
    np.testing.assert_allclose(found.fold_alphas, 0.3, atol=1e-4)


def test_no_gain_is_an_answer():
    """Where the center is the best point and labels are drawn, the fit follows noise and gains nothing."""
    endpoints, batches = planted(LINE, jnp.float32(0.5), n=2000)
    rng = np.random.default_rng(0)
    labels = [np.eye(4, dtype=np.float32)[[rng.choice(4, p=p / p.sum()) for p in targets]] for _, targets in batches]
    given = [(np.concatenate([x for x, _ in batches]), np.concatenate(labels))]
    found = jsubspace.fit_alpha(log_prob_fn, endpoints, LINE, given)
    assert found.gain.verdict == "no gain"
    assert found.gain.interval[0] <= 0 <= found.gain.interval[1] < 0.01
    assert found.loss <= found.loss_at_center


def test_the_gain_is_of_examples_that_the_fit_has_not_seen():
    """The gain by hand: every fold is fitted without its examples, on a fine grid in numpy."""
    endpoints, batches = planted(LINE, jnp.float32(0.3))
    rng = np.random.default_rng(0)
    batches = [(x, np.eye(4, dtype=np.float32)[rng.integers(4, size=len(x))]) for x, _ in batches]
    groups = np.arange(60) // 4
    found = jsubspace.fit_alpha(
        log_prob_fn, endpoints, LINE, batches, groups=[f"patient {group}" for group in groups.tolist()]
    )
    x, targets = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    ends = [
        x @ np.asarray(a, np.float64) + np.asarray(b)
        for a, b in zip(endpoints["a"]["w"], endpoints["b"]["w"], strict=True)
    ]
    grid = np.linspace(0, 1, 2001)
    logits = (1 - grid)[:, None, None] * ends[0] + grid[:, None, None] * ends[1]
    table = np.log(np.exp(logits).sum(-1)) - (targets * logits).sum(-1)
    _, group = np.unique([f"patient {group}" for group in groups.tolist()], return_inverse=True)
    split = folds.folds(60, group)
    assert all(len(set(split.fold[group == g])) == 1 for g in range(15))
    differences = np.empty(60)
    for k in range(5):
        inside = split.fold == k
        best = table[:, ~inside].mean(-1).argmin()
        np.testing.assert_allclose(found.fold_alphas[k, 0], grid[best], atol=1e-3)
        differences[inside] = table[1000, inside] - table[best, inside]
    np.testing.assert_allclose(found.gain.value, differences.mean(), atol=2e-4)
    assert np.ptp(found.fold_alphas) > 0.01


def test_groups_widen_the_interval_of_examples_that_repeat():
    """Ten copies of every example are no new information. As groups, they have the interval of the single examples."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=40), rng.normal(size=40) + 0.3
    single = folds.folds(40)
    copied = folds.Folds(single.fold.repeat(10), single.group.repeat(10), 5)
    one = gains.gain(ours, theirs, single, "it", 0.01)
    many = gains.gain(ours.repeat(10), theirs.repeat(10), copied, "it", 0.01)
    np.testing.assert_allclose(one.interval, many.interval, rtol=1e-12)
    alone = gains.gain(ours.repeat(10), theirs.repeat(10), folds.folds(400), "it", 0.01)
    assert np.ptp(alone.interval) < 0.6 * np.ptp(many.interval)


SIZES = {
    "equal": [4] * 40,
    "one is half": [120] + [4] * 30,
    "two are two thirds": [112] * 2 + [4] * 28,
    "falling": [max(240 // k, 1) for k in range(1, 61)],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_the_interval_holds_the_truth_for_groups_of_unequal_sizes(sizes, alike):
    """600 simulations: 0.93 of them for every share of the variance that examples of a group have in common."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    split, rng = folds.folds(len(group), group), np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        common, own = rng.normal(size=len(sizes))[group], rng.normal(size=len(group))
        differences = alike**0.5 * common + (1 - alike) ** 0.5 * own
        low, high = gains.gain(np.zeros(len(group)), differences, split, "it", 0.01).interval
        covered += low <= 0 <= high
    assert covered / 600 >= 0.93


def test_the_jackknife_and_the_effective_number_of_groups():
    """A group as large as all others together leaves three effective groups, by hand, and three decide nothing."""
    sizes = np.array([40] + [1] * 40)
    group, rng = np.repeat(np.arange(41), sizes), np.random.default_rng(0)
    differences = 5 + rng.normal(size=80)
    split = folds.Folds(np.arange(80) % 5, group, 5)
    found = gains.gain(np.zeros(80), differences, split, "it", 0.01)
    left_out = [differences[group != g].mean() for g in range(41)]
    error = np.sqrt(40 / 41 * np.sum((left_out - differences.mean()) ** 2))
    effective = int(80**2 / (sizes**2).sum())
    assert effective == 3
    assert found.interval[1] - found.value == pytest.approx(stats.t.ppf(0.975, effective - 1) * error, rel=1e-5)
    assert (found.interval[0] > 0, found.verdict) == (True, "undecided")


@pytest.mark.parametrize(("n", "verdict"), [(5, "undecided"), (29, "undecided"), (30, "gain")])
def test_a_few_examples_show_no_gain(n, verdict):
    """Five equal gains have an interval without width."""
    assert gains.gain(np.zeros(n), np.full(n, 0.5), folds.folds(n), "it", 0.01).verdict == verdict


def test_the_entropy_needs_no_labels():
    endpoints, batches = planted(LINE, jnp.float32(0.3))
    inputs = [(x,) for x, _ in batches]
    found = jsubspace.fit_alpha(logits_fn, endpoints, LINE, inputs, objective="entropy", method="grid")
    x = np.concatenate([x for x, _ in batches])

    def entropy(alpha):
        log_p = jax.nn.log_softmax(logits_fn(jsubspace.interpolate(endpoints, float(alpha), LINE), x))
        return float(-(jnp.exp(log_p) * log_p).sum(-1).mean())

    values = [entropy(alpha) for alpha in np.linspace(0, 1, 21)]
    assert found.alpha == pytest.approx(np.argmin(values) / 20, abs=1e-6)
    assert found.loss == pytest.approx(min(values), abs=1e-5)


def test_validation_examples_among_the_training_examples_are_warned_of():
    endpoints, batches = planted(LINE, jnp.float32(0.3))
    (x, _), other = batches
    mixed = [(np.concatenate([x[5:8], x[5:8] + 1]), np.zeros(6))]
    with pytest.warns(UserWarning, match="fit_alpha: 3 of 60 validation examples are training examples"):
        jsubspace.fit_alpha(log_prob_fn, endpoints, LINE, batches, training_batches=mixed, num_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = [(other[0] + 1, other[1])]
        jsubspace.fit_alpha(log_prob_fn, endpoints, LINE, batches, training_batches=new, num_steps=2)


@pytest.mark.parametrize(("ours", "theirs"), [(np.float32, np.float64), (np.float64, np.float32), (np.int32, np.int64)])
def test_overlap_does_not_depend_on_the_dtype(ours, theirs):
    """jax makes float32 of float64, and of the last batch that it pads."""
    x = (np.random.default_rng(0).normal(size=(60, 5)) * 100).astype(np.int32 if ours is np.int32 else np.float64)
    endpoints, given = planted(LINE, jnp.float32(0.3))
    batches = [(x[:40].astype(ours), given[0][1]), (x[40:].astype(ours), given[1][1])]
    training = [(x[:50].astype(theirs),), (x[50:].tolist(),)]
    with pytest.warns(UserWarning, match="60 of 60 validation examples are training examples"):
        jsubspace.fit_alpha(log_prob_fn, endpoints, LINE, batches, training_batches=training, num_steps=2)


WRONG = [
    ({"objective": "loss"}, 'objective is \'loss\', but it must be "log_prob" or "entropy"'),
    ({"method": "newton"}, "method is 'newton'"),
    ({"method": "grid", "by": "layer"}, "method is \"grid\", which fits one position"),
    ({"num_folds": 2}, "num_folds is 2, but it must be at least 5"),
    ({"num_steps": 1}, "num_steps is 1 and num_points is 21. Each must be at least 2"),
    ({"num_steps": 2.0}, "num_steps is 2.0, but it must be an integer"),
    ({"tolerance": -1}, "tolerance is -1"),
    ({"groups": [0, 1]}, r"groups is a list .*one label per example, \[60\]"),
    ({"groups": np.r_[np.arange(30.0), [np.nan] * 30]}, "groups holds nan for 30 of 60 examples, the first of them example 30"),
    ({"groups": ["a"] * 59 + [float("nan")]}, "groups holds nan for 1 of 60 examples, the first of them example 59"),
    ({"groups": np.array(["NaT"] + ["2020-01-01"] * 59, "M8[D]")}, "groups holds NaT for 1 of 60"),
    ({"groups": [0] * 60}, "there are 1 groups, but 5 folds need at least 5"),
    ({"training_batches": 3}, "training_batches is 3, but it must be a list of batches"),
    ({"subspace": TRIANGLE}, r"Simplex\(num_endpoints=3\) has 3 endpoints but 2 were given"),
    ({"batches": [(np.ones((3, 5), np.float32), np.ones((3, 4), np.float32))]}, "there are 3 examples, but 5 folds"),
    ({"log_prob_fn": lambda point, x, y: jnp.log(-(x[:, 0] ** 2)) * point["b"]["w"][0]}, "the loss at the center is nan"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_wrong_arguments_are_refused(changed, message):
    endpoints, batches = planted(LINE, jnp.float32(0.3))
    right = {"log_prob_fn": log_prob_fn, "endpoints": endpoints, "subspace": LINE, "batches": batches}
    with pytest.raises(ValueError, match=message):
        jsubspace.fit_alpha(**right | changed)


def test_domains_of_subspaces():
    rng = np.random.default_rng(0)
    given = rng.normal(size=(50, 4))
    found = domains.onto_simplex(given)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert found.min() >= 0
    others = rng.dirichlet(np.ones(4), size=200)  # No other point is nearer.
    nearest = np.linalg.norm(given[:, None] - others, axis=-1).min(-1)
    assert (np.linalg.norm(given - found, axis=-1) <= nearest + 1e-12).all()
    assert domains.projection(CURVE)(np.array([-1, 0.5, 2])).tolist() == [0, 0.5, 1]
    np.testing.assert_array_equal(domains.projection(TRIANGLE)(given[:, :3]), domains.onto_simplex(given[:, :3]))


def test_a_fit_never_gets_worse_and_meets_the_bounds():
    """A bowl with curvatures 1 and 300: the minimum on the simplex is at its corner, or inside, and both are found."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3)) * np.array([1, 4, 17])
    targets = np.array([[0.2, 0.5, 0.3], [3.0, -1.0, -1.0]])
    seen = []

    def slopes(x):
        away = (x[:, 0] - targets) @ root
        seen.append(0.5 * (away**2).sum(-1))
        return seen[-1], (away @ root.T)[:, None]

    found = descent.minimised(slopes, np.full((2, 1, 3), 1 / 3), domains.onto_simplex, 400, 1e-12)
    np.testing.assert_allclose(found.positions[0, 0], targets[0], atol=1e-5)
    mesh = rng.dirichlet(np.ones(3) * 0.3, size=20_000)
    lowest = (0.5 * (((mesh - targets[1]) @ root) ** 2).sum(-1)).min()
    assert found.losses[1] <= lowest + 1e-9
    assert (found.losses <= np.min(seen, axis=0) + 1e-12).all()


def test_the_interval_of_the_gain_holds_the_truth_with_the_fit_included():
    rows = list(coverage.gains_of_fits(40, sizes=(100,)))
    assert len(rows) >= 4
    assert not [row for row in rows if row.covered < 0.75]
    assert np.mean([row.covered for row in rows]) > 0.9
