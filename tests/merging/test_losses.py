"""Losses of points example by example, and slopes along the coefficients against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import points, positions
from jsubspace.errors import UsageError
from jsubspace.merging import losses, parts

SIZES = 4, 1, 3  # Two batches are padded.


def log_prob_fn(point, x, y):
    """A scanned stack of two layers, a head, and a bias that all endpoints share."""
    for layer in point["blocks"]["w"]:
        x = jnp.tanh(x @ layer)
    return -((x @ point["head"]["w"] + point["bias"] - y) ** 2)


def problem(m):
    rng = np.random.default_rng(m)
    values = {
        "bias": rng.normal(size=1),
        "blocks": {"w": rng.normal(size=(m, 2, 3, 3))},
        "head": {"w": rng.normal(size=(m, 3))},
    }
    endpoints = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), values)
    return endpoints, [(rng.normal(size=(n, 3)), rng.normal(size=n)) for n in SIZES]


@pytest.mark.parametrize(
    ("subspace", "by"),
    [(jsubspace.Simplex(3), None), (jsubspace.Curve(), None), (jsubspace.Line(), "scanned"), (jsubspace.Simplex(3), "head")],
    ids=["simplex", "curve", "line by scanned layers", "simplex by pattern"],
)  # fmt: skip
def test_slopes_equal_automatic_differentiation(x64, subspace, by):
    endpoints, batches = problem(subspace.num_endpoints)
    part = parts.parts_of(endpoints, jsubspace.layers(endpoints, scanned="blocks") if by == "scanned" else by)
    rng = np.random.default_rng(1)
    shape = (2, len(part.names), *subspace.alpha_shape)
    at = rng.dirichlet(np.ones(3), shape[:2]) if subspace.alpha_shape else rng.uniform(size=shape)
    weights = rng.uniform(size=(2, sum(SIZES)))
    weights[0, :2] = 0
    found = losses.Losses(losses.loss_function(log_prob_fn), endpoints, subspace, part, batches, "batches")
    values, slopes = found.slopes(at, weights)
    x, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def loss(position, of_example):
        c = positions.coefficients(endpoints, part.alpha(position), subspace)
        return -jnp.sum(of_example * log_prob_fn(jsubspace.tree.contract(endpoints, c), x, y))

    wanted, wanted_slopes = loss(at, weights)
    np.testing.assert_allclose(values, wanted, rtol=1e-12)
    np.testing.assert_allclose(slopes, wanted_slopes, rtol=1e-12, atol=1e-12)
    assert np.abs(slopes).min(initial=np.inf, where=slopes != 0) > 1e-6
    scored = found.per_example(at)
    assert scored.shape == (2, found.num_examples) == (2, 8)

    @jax.jit
    def scored_alone(alpha):
        point = points.interpolate(endpoints, alpha, subspace)
        return point, log_prob_fn(point, x, y)

    point, scores = scored_alone(jax.tree.map(jnp.asarray, part.alpha(at[1])))
    np.testing.assert_allclose(scored[1], -np.asarray(scores), rtol=1e-12)
    for leaf, other in zip(jax.tree.leaves(found.point(at[1])), jax.tree.leaves(point), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-12)


def test_scanned_layers_are_parts_of_their_own():
    endpoints, _ = problem(2)
    part = parts.parts_of(endpoints, jsubspace.layers(endpoints, scanned="blocks"))
    assert part.names == ("", "['blocks'][0]", "['blocks'][1]", "['head']")
    assert [part.leaves(i) for i in range(4)] == [[0], [1], [1], [2]]
    assert part.alpha(jnp.arange(4.0))["blocks"]["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (None, ("whole",)),
        ("layer", ("", "['blocks']", "['head']")),
        ("leaf", ("['bias']", "['blocks']['w']", "['head']['w']")),
        (["head/w", "b*"], ("b*", "head/w")),
        ("w", ("other leaves", "w")),
        ({"bias": "x", "blocks": {"w": "y"}, "head": {"w": "x"}}, ("x", "y")),
    ],
)
def test_what_gets_weights_of_its_own(by, names):
    endpoints, _ = problem(2)
    part = parts.parts_of(endpoints, by)
    assert part.names == names
    assert sorted(leaf for i in range(len(names)) for leaf in part.leaves(i)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("heads", "soup: by names 'heads', but no leaf of its own has this name.*bias, blocks/w, head/w"),
        (["b*", "bias"], "by names 'bias', but no leaf of its own"),
        (3, "by is 3, but it must be None for the whole network"),
        ([], "by is a list without leaves"),
        ({"bias": 0.5, "blocks": {"w": "y"}, "head": {"w": "x"}}, r"leaf \['bias'\] of by is 0.5"),
        ({"bias": "x"}, "by is a dict with leaf"),
    ],
)
def test_wrong_parts_are_refused(by, message):
    with pytest.raises(UsageError, match=message):
        parts.parts_of(problem(2)[0], by)


def test_the_entropy_is_of_the_predictions():
    logits = np.array([[0.0, 0.0], [2.0, -1.0]], np.float32)
    loss = losses.loss_function(lambda point, x: point * x, losses.ENTROPY)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(loss(2.0, logits / 2), -(p * np.log(p)).sum(-1), rtol=1e-6)
    tokens = loss(2.0, np.stack([logits, logits[::-1]]) / 2)
    np.testing.assert_allclose(tokens, np.full(2, -(p * np.log(p)).sum(-1).mean()), rtol=1e-6)
    with pytest.raises(UsageError, match=r"predict_fn returned float32\[2\].*classes as the last axis"):
        loss(1.0, jnp.zeros(2))


@pytest.mark.parametrize(
    ("fn", "batches", "message"),
    [
        (log_prob_fn, [], "soup: batches holds no batch"),
        (log_prob_fn, [3], "soup: batches: batch 0 is a int"),
        (log_prob_fn, [(np.zeros(3), np.zeros(2))], "soup: batches: the arrays of batch 0"),
        (lambda point, x: x[:2], [(np.zeros(3, np.float32),)], r"returned \[2\] for a batch of 3 examples"),
        (lambda point, x: x.mean(), [(np.zeros(3, np.float32),)], r"log_prob_fn returned float32\[\]"),
    ],
)
def test_wrong_batches_and_functions_are_refused(fn, batches, message):
    endpoints, _ = problem(2)
    line = jsubspace.Line()
    with pytest.raises(ValueError, match=message):
        losses.Losses(
            losses.loss_function(fn), endpoints, line, parts.parts_of(endpoints), batches, "soup: batches"
        ).per_example(np.zeros((1, 1)))
