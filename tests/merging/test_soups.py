"""Soups against definitions written out, and what a soup refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.merging import folds, stock

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)).astype(np.float32)
TRUTH = RNG.normal(size=6).astype(np.float32)
Y = X @ TRUTH + RNG.normal(size=80).astype(np.float32)
BATCHES = [(X[:50], Y[:50]), (X[50:], Y[50:])]

ORIGIN = {"body": {"w": TRUTH[:4] + np.float32(1)}, "head": {"w": TRUTH[4:] - np.float32(1)}}
AWAY = {"a": 0.3, "b": 0.4, "c": 1.5, "d": 0.5}
RUNS = {
    name: {
        "body": {"w": TRUTH[:4] + RNG.normal(size=4).astype(np.float32) * scale},
        "head": {"w": TRUTH[4:] + RNG.normal(size=2).astype(np.float32) * scale},
    }
    for name, scale in AWAY.items()
}


def log_prob_fn(point, x, y):
    return -((x[:, :4] @ point["body"]["w"] + x[:, 4:] @ point["head"]["w"] - y) ** 2) / 2


def loss(*networks_of_parts):
    """The mean loss of averages, one list of names per part, in numpy."""
    of = [
        np.mean([RUNS[name][part]["w"] for name in names], 0)
        for part, names in zip(("body", "head"), networks_of_parts, strict=True)
    ]
    return float((((X @ np.concatenate(of)) - Y) ** 2).mean() / 2)


def greedy(parts):
    """The greedy soup by its definition: the names of each part, and the tries."""
    order = sorted(RUNS, key=lambda name: loss([name], [name]))
    chosen, tries = [[order[0]] for _ in range(2)], []
    for name in order[1:]:
        for part in parts:
            tried = [[*names, name] if i in part else names for i, names in enumerate(chosen)]
            tries.append((name, loss(*tried) <= loss(*chosen)))
            chosen = tried if tries[-1][1] else chosen
    return chosen, tries


@pytest.mark.parametrize(("by", "parts"), [(None, [(0, 1)]), ("layer", [(0,), (1,)])], ids=["whole", "by layer"])
def test_the_greedy_soup_is_its_definition(by, parts):
    weights, network, report = jsubspace.soup(log_prob_fn, RUNS, BATCHES, how="greedy", by=by)
    chosen, tries = greedy(parts)
    assert [(step.network, step.is_kept) for step in report.steps] == tries
    assert {True, False} <= {step.is_kept for step in report.steps}
    assert report.loss == pytest.approx(loss(*chosen), abs=1e-6)
    for part, names in zip(("body", "head"), chosen, strict=True):
        of_part = weights if by is None else weights[f"['{part}']"]
        assert of_part == pytest.approx({name: (name in names) / len(names) for name in RUNS})
        np.testing.assert_allclose(network[part]["w"], np.mean([RUNS[name][part]["w"] for name in names], 0), rtol=1e-5)
    first = report.steps[0]
    assert first.interval[0] < first.change < first.interval[1]
    assert report.losses == pytest.approx({name: loss([name], [name]) for name in RUNS}, abs=1e-6)
    assert "stays: loss" in report.table()
    assert "over the best network" in report.table()


def test_the_uniform_soup_is_the_mean_and_needs_no_data():
    weights, network, report = jsubspace.soup(None, list(RUNS.values()))
    assert weights == {f"network {i}": 0.25 for i in range(4)}
    np.testing.assert_allclose(network["head"]["w"], np.mean([run["head"]["w"] for run in RUNS.values()], 0), rtol=1e-6)
    assert report.loss is report.over_best is None
    measured = jsubspace.soup(log_prob_fn, RUNS, BATCHES).report
    assert measured.loss == pytest.approx(loss([*RUNS], [*RUNS]), abs=1e-6)
    assert measured.over_center is None
    assert measured.over_best.over == "the best network"


def test_the_fitted_soup_is_the_best_of_the_simplex():
    weights, _, report = jsubspace.soup(log_prob_fn, RUNS, BATCHES, how="fitted")
    flat = np.stack([np.concatenate([run["body"]["w"], run["head"]["w"]]) for run in RUNS.values()])
    mesh = np.array([c for c in itertools.product(range(41), repeat=4) if sum(c) == 40]) / 40
    losses = (((mesh @ flat) @ X.T - Y) ** 2).mean(-1) / 2
    assert report.loss <= losses.min() + 1e-6
    assert sum(weights.values()) == pytest.approx(1)
    np.testing.assert_allclose([*weights.values()], mesh[losses.argmin()], atol=0.05)
    assert report.loss < min(report.losses.values())


def angle_by_hand(part, names):
    deltas = [RUNS[name][part]["w"] - ORIGIN[part]["w"] for name in names]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(deltas, 2)]
    return np.mean(cosines)


def test_model_stock_is_its_formula():
    names = "a", "b", "d"
    runs = {name: RUNS[name] for name in names}
    weights, network, report = jsubspace.soup(None, runs, how="stock", origin=ORIGIN, by="leaf")
    for part in ("body", "head"):
        cosine = angle_by_hand(part, names)
        t = 3 * cosine / (1 + 2 * cosine)
        mean = np.mean([run[part]["w"] for run in runs.values()], 0)
        np.testing.assert_allclose(network[part]["w"], t * mean + (1 - t) * ORIGIN[part]["w"], rtol=1e-5)
        assert report.cosines[f"['{part}']['w']"] == pytest.approx(cosine, abs=1e-6)
        assert weights[f"['{part}']['w']"] == pytest.approx({"origin": 1 - t, **dict.fromkeys(names, t / 3)}, abs=1e-6)
    scored = jsubspace.soup(log_prob_fn, runs, BATCHES, how="stock", origin=ORIGIN).report
    assert set(scored.losses) == {"origin", *names}
    assert scored.over_center.value == pytest.approx(loss([*runs], [*runs]) - scored.loss, abs=1e-5)
    fold = folds.folds(80).fold  # The best network is chosen without the fold in which it is compared.
    of_examples = {n: ((X @ np.concatenate([RUNS[n]["body"]["w"], RUNS[n]["head"]["w"]])) - Y) ** 2 / 2 for n in names}
    best = [min(names, key=lambda n: of_examples[n][fold != k].mean()) for k in range(5)]
    value = np.mean([of_examples[best[k]][i] for i, k in enumerate(fold)]) - scored.loss
    assert scored.over_best.value == pytest.approx(value, abs=1e-5)


def test_the_edges_of_model_stock():
    """Equal networks are taken as they are, opposite ones stop at the origin, and a leaf that no run changed stays."""
    one = np.ones((2, 2))
    found, _ = stock.weights(np.stack([one, 2 * np.eye(2) - one, np.zeros((2, 2))]))
    np.testing.assert_allclose(found, [[0, 0.5, 0.5], [1, 0, 0], [0, 0.5, 0.5]])
    tiny = {name: {"w": np.array([1.0, delta], np.float32) * np.float32(1e-30)} for name, delta in (("a", 0), ("b", 1))}
    origin = {"w": np.zeros(2, np.float32)}
    cosines = jsubspace.soup(None, tiny, how="stock", origin=origin).report.cosines
    assert cosines["whole"] == pytest.approx(0.5**0.5, abs=1e-6)  # The squares of 1e-30 are no float32.


def test_a_soup_has_the_places_and_dtypes_of_its_networks():
    place = NamedSharding(Mesh(np.array(jax.devices()[:4]), ("x",)), PartitionSpec("x"))
    networks = [{"w": jax.device_put(jnp.full((8, 2), value, jnp.bfloat16), place)} for value in (256.0, 1.0, 1.0)]
    with pytest.warns(UserWarning, match="same arrays"):
        network = jsubspace.soup(None, [*networks, networks[1]]).network["w"]
    assert network.dtype == jnp.bfloat16
    assert network.sharding.is_equivalent_to(place, 2)
    assert float(network[0, 0]) == float(jnp.bfloat16((256 + 3) / 4))
    batches = [(np.ones(6, np.float32),)]
    fitted = jsubspace.soup(
        lambda point, x: -x * point["w"].astype(jnp.float32).sum(), networks, batches, how="fitted", num_steps=3
    )
    assert fitted.network["w"].sharding.is_equivalent_to(place, 2)


WRONG = [
    ({"how": "best"}, 'how is \'best\', but it must be "uniform" or "greedy" or "fitted" or "stock"'),
    ({"how": "greedy", "validation_batches": None}, 'how is "greedy", which chooses weights on data'),
    ({"log_prob_fn": None}, "log_prob_fn is None, but it must be a function"),
    ({"how": "stock"}, "it is the pretrained network. Give it"),
    ({"origin": ORIGIN}, "it is the pretrained network. Leave it out"),
    ({"how": "stock", "origin": {"body": ORIGIN["body"]}}, r"soup: the origin has the structure of another network than a"),
    ({"by": "layer"}, 'by has no effect on how="uniform"'),
    ({"networks": [ORIGIN]}, "1 network was given"),
    ({"num_steps": 1}, "num_steps is 1"),
    ({"validation_batches": [(X[:4], Y[:4])]}, "there are 4 examples, but 5 folds need at least 5"),
    ({"how": "greedy", "log_prob_fn": lambda point, x, y: jnp.log(-jnp.ones(len(x))) * point["head"]["w"][0]}, "loss at a is nan"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_wrong_arguments_are_refused(changed, message):
    right = {"log_prob_fn": log_prob_fn, "networks": RUNS, "validation_batches": BATCHES}
    with pytest.raises(UsageError, match=message):
        jsubspace.soup(**right | changed)


def test_a_network_without_finite_losses_is_left_out():
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, 1e38), ORIGIN)
    weights, _, report = jsubspace.soup(log_prob_fn, RUNS | {"broken": broken}, BATCHES, how="greedy")
    assert weights["broken"] == 0
    assert not report.steps[-1].is_kept
    assert report.over_center.value == np.inf
    assert report.over_center.verdict == "undecided"
