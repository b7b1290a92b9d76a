"""Leaves with one row: all endpoints share them, they are trained, and nothing else sees them.

The reference is the same tree with m equal rows in the place of the one row. There the point is the same, and the rows of the
gradient sum to the gradient at the point, because the weights of the endpoints sum to 1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import jsubspace
from jsubspace import Curve, Line, Simplex, penalties, shares, tree
from jsubspace.algorithm import random_gradient
from jsubspace.objectives import Objective
from jsubspace.shares import Shares

KEY = jax.random.key(5)
SHARED = {"embedding": True, "hidden": {"bias": True, "kernel": False}, "head": {"kernel": False}}
MASK = {"embedding": False, "hidden": {"bias": False, "kernel": True}, "head": {"kernel": True}}


def predict_fn(point, x):
    return (
        jnp.tanh(x @ point["embedding"] @ point["hidden"]["kernel"] + point["hidden"]["bias"]) @ point["head"]["kernel"]
    )


def loss_fn(point, x, y):
    return jnp.mean((predict_fn(point, x) - y) ** 2)


def init_fn(key):
    keys = jax.random.split(key, 4)
    return {
        "embedding": jax.random.normal(keys[0], (8, 8)),
        "hidden": {"bias": jax.random.normal(keys[1], (5,)), "kernel": jax.random.normal(keys[2], (8, 5))},
        "head": {"kernel": jax.random.normal(keys[3], (5, 3))},
    }


def with_shared(subspace):
    return jax.jit(lambda: jsubspace.init_endpoints(KEY, init_fn, subspace, shared=SHARED))()


def with_rows(endpoints):
    """The reference: m equal rows in the place of one."""
    m = tree.num_endpoints(endpoints)
    return jax.tree.map(lambda leaf: jnp.asarray(np.broadcast_to(leaf, (m, *leaf.shape[1:]))), endpoints)


def with_sums(grads):
    """The gradient of the shared leaves from the gradient of the reference."""
    return jax.tree.map(lambda g, shared: np.sum(g, 0, keepdims=True) if shared else g, grads, SHARED)


def batch(n=48):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(n, k)), jnp.result_type(float)) for k in (8, 3))


def close(actual, expected, rtol=1e-11, atol=1e-13):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), actual, expected)


def clip(grad):
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grad)))
    return jax.tree.map(lambda leaf: leaf * jnp.minimum(1, 0.05 / norm), grad)


OPTIONS = {
    "plain": {},
    "no penalty": {"beta": 0.0},
    "layerwise": {"layerwise": True},
    "two positions": {"num_samples": 2},
    "more positions than endpoints": {"num_samples": 4},
    "layerwise positions": {"num_samples": 2, "layerwise": True},
    "all pairs": {"all_pairs": True},
    "clipped": {"at_point": clip},
    "uphill": {"sam_rho": 0.1, "num_samples": 2},
}


# One more instance each of a kind that the other cases have too.
MORE = [(Line(), name) for name in ("plain", "no penalty", "layerwise", "two positions", "clipped")]
CASES = [
    *((Line(), name) for name in OPTIONS if (Line(), name) not in MORE),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE),
    (Curve(), "layerwise"),
    (Simplex(4), "plain"),
    (Simplex(4), "two positions"),
    (Simplex(4), "clipped"),
]


@pytest.mark.parametrize(("subspace", "name"), CASES, ids=str)
def test_its_gradient_is_the_gradient_at_the_point(subspace, name, x64):
    endpoints, settings = with_shared(subspace), OPTIONS[name]
    ours = jsubspace.value_and_grad(loss_fn, subspace, **settings, mask=jsubspace.all_leaves)
    reference = jsubspace.value_and_grad(loss_fn, subspace, **settings, mask=MASK)
    (value, info), grads = jax.jit(ours)(KEY, endpoints, *batch())
    (expected, known), of_rows = jax.jit(reference)(KEY, with_rows(endpoints), *batch())
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, endpoints)
    close((value, info.loss, info.penalty, grads), (expected, known.loss, known.penalty, with_sums(of_rows)))
    assert np.abs(grads["embedding"]).max() > 1e-4


def test_the_gradient_at_the_point_by_autodiff(x64):
    endpoints = with_shared(Line())

    @jax.jit
    def gradients(endpoints):
        (_, info), grads = jsubspace.value_and_grad(loss_fn, Line())(KEY, endpoints, *batch())
        return grads, jax.grad(loss_fn)(jsubspace.interpolate(endpoints, info.alpha, Line()), *batch())

    grads, at_point = gradients(endpoints)
    close(grads["embedding"][0], at_point["embedding"])
    close(grads["hidden"]["bias"][0], at_point["hidden"]["bias"])


def test_task_vectors_and_alpha_with_shared_leaves(x64):
    origin = jax.jit(init_fn)(jax.random.key(9))
    endpoints = with_shared(Simplex(3))

    def conditional(point, alpha, x, y):
        return loss_fn(point, x, y) * (1 + alpha[0])

    settings = {
        "origin": origin,
        "pass_alpha": True,
        "beta": jnp.asarray(0.3),
        "batch_argnums": (0, 1),
        "num_samples": 2,
    }
    results = [
        jax.jit(jsubspace.value_and_grad(conditional, Simplex(3), **settings, mask=mask))(KEY, start, *batch())
        for start, mask in ((endpoints, jsubspace.kernels), (with_rows(endpoints), MASK))
    ]
    close(results[0][0][0], results[1][0][0])
    close(results[0][1], with_sums(results[1][1]))


@pytest.mark.parametrize(
    ("name", "divided"),
    [
        ("more positions than endpoints", False),
        ("more positions than endpoints", True),
        ("uphill", True),
        pytest.param("uphill", False, marks=pytest.mark.slow),
    ],
)
def test_devices(name, divided, x64):
    """Eight devices, with whole and with divided endpoints. The bias of five numbers cannot be divided."""
    subspace, endpoints = Simplex(3), with_shared(Simplex(3))
    axes = shares.axes_of(endpoints, 8) if divided else None
    grad_fn = random_gradient(loss_fn, subspace, Objective(**OPTIONS[name]), Shares("batch", axes))
    split, whole = PartitionSpec("batch"), PartitionSpec()
    specs = (
        jax.tree.map(lambda axis: whole if axis < 0 else PartitionSpec(*[None] * (axis + 1), "batch"), axes) or whole
    )
    mapped = jax.shard_map(
        lambda endpoints, *arrays: grad_fn(KEY, endpoints, *arrays)[1],
        mesh=Mesh(np.array(jax.devices()[:8]), ("batch",)),
        in_specs=(specs, split, split),
        out_specs=specs,
        check_vma=False,
    )
    n = 8 * OPTIONS[name].get("num_samples", 1) * 2
    _, expected = jax.jit(jsubspace.value_and_grad(loss_fn, subspace, **OPTIONS[name]))(KEY, endpoints, *batch(n))
    close(jax.jit(mapped)(endpoints, *batch(n)), expected, rtol=1e-10)


def test_no_measure_of_distance_sees_it():
    endpoints = with_shared(Simplex(3))
    own = {"hidden": endpoints["hidden"]["kernel"], "head": endpoints["head"]["kernel"]}
    masks = (None, jsubspace.all_leaves, jax.tree.map(lambda _: True, SHARED))

    def measures(endpoints, mask):
        return (
            jsubspace.cosines_squared(endpoints, mask),
            jsubspace.cosine_squared(endpoints, 0, 2, mask),
            jsubspace.distances(endpoints, mask),
            penalties.geometry(endpoints, mask),
        )

    found = jax.jit(lambda endpoints: [measures(endpoints, mask) for mask in masks])(endpoints)
    expected = jax.jit(lambda own: measures(own, jsubspace.all_leaves))(own)
    for each in found:
        close(each, expected, rtol=1e-6)


def test_every_point_has_it_as_it_is():
    endpoints = with_shared(Line())

    @jax.jit
    def points(endpoints):
        chosen = (jsubspace.interpolate(endpoints, alpha) for alpha in (0.25, -3.0, 7.5))
        return *chosen, jsubspace.midpoint(endpoints), *jsubspace.unstack(endpoints)

    for point in points(endpoints):
        np.testing.assert_array_equal(point["embedding"], endpoints["embedding"][0])
        assert jax.tree.map(jnp.shape, point) == jax.tree.map(lambda leaf: leaf.shape[1:], endpoints)


def test_its_row_is_the_first_initialisation():
    subspace = Simplex(3)
    endpoints, separate = with_shared(subspace), jax.jit(lambda: jsubspace.init_endpoints(KEY, init_fn, subspace))()
    np.testing.assert_array_equal(endpoints["embedding"], separate["embedding"][:1])
    np.testing.assert_array_equal(endpoints["head"]["kernel"], separate["head"]["kernel"])

    def shapes(endpoints=subspace, **options):
        made = jax.eval_shape(lambda: jsubspace.init_endpoints(KEY, init_fn, endpoints, **options))
        return jax.tree.map(lambda leaf: leaf.shape, made, is_leaf=lambda leaf: hasattr(leaf, "shape"))

    function = shapes(shared=lambda endpoints: jax.tree.map(lambda leaf: leaf.ndim < 3, endpoints))
    assert function["hidden"]["bias"] == (1, 5)
    assert function["embedding"] == (3, 8, 8)
    common = shapes(common_start=True, shared=SHARED)
    assert (common["embedding"], common["head"]["kernel"]) == ((1, 8, 8), (3, 5, 3))
    assert shapes(1, shared=SHARED)["embedding"] == (1, 8, 8)


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (True, "common_start=True"),
        (False, "names leaves, by a tree of bools"),
        ({"embedding": True}, "argument shared has the structure"),
        (jax.tree.map(int, SHARED), "of the argument shared is 1. It must be a Python bool"),
        (lambda endpoints: jax.tree.map(lambda _: True, endpoints), "every leaf is shared"),
    ],
)
def test_what_cannot_be_shared(shared, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.init_endpoints(KEY, init_fn, Line(), shared=shared)


def test_a_penalty_needs_leaves_that_are_not_shared():
    endpoints = {"kernel": jnp.ones((1, 3, 3)), "bias": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match="counts leaves that all endpoints share, and no other leaf"):
        jsubspace.mean_cosine_squared(endpoints)


def test_describe_lists_it():
    described = jsubspace.describe(with_shared(Line()))
    assert [row.shared for row in described.rows] == [True, False, True, False]
    assert [row.counts for row in described.rows] == [False, True, False, True]
    assert str(described).splitlines()[1].split() == ["['embedding']", "[8,", "8]", "shared"]
    assert str(described).endswith("All endpoints share 69 of them, which are kept once.")


@pytest.mark.parametrize("subspace", [pytest.param(Line(), marks=pytest.mark.slow), Simplex(3)], ids=repr)
def test_measure(subspace):
    """All kinds of points, drawn ones too, are those of the reference."""
    x = batch()[0]
    labels, endpoints = np.argmax(np.asarray(x)[:, :3], axis=-1), with_shared(subspace)
    kinds = ("layerwise", "weightwise", "gaussian")
    reports = [
        jsubspace.measure(
            predict_fn,
            start,
            subspace,
            [(x, labels)],
            num_points=3,
            num_random_points=2,
            random_points=kinds,
            num_resamples=0,
        )
        for start in (endpoints, with_rows(endpoints))
    ]
    found, expected = ([(row.name, row.nll, row.accuracy) for row in report.points] for report in reports)
    assert [row[0] for row in found] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1:] for row in found], [row[1:] for row in expected], rtol=2e-5)


def test_training_in_both_trees_of_an_optimizer():
    """The shared leaves are clipped and decayed alone, as a network of their own, and the loss falls."""
    endpoints, arrays = with_shared(Line()), batch()
    optimizer = jsubspace.per_endpoint(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)))
    grad_fn = jsubspace.value_and_grad(loss_fn, Line(), beta=0.1)

    def step(carry, number):
        endpoints, state = carry
        (_, info), grads = grad_fn(jax.random.fold_in(KEY, number), endpoints, *arrays)
        updates, state = optimizer.update(grads, state, endpoints)
        return (optax.apply_updates(endpoints, updates), state), info.loss

    @jax.jit
    def trained(start):
        (endpoints, _), losses = jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(60))
        return endpoints, losses

    start, (endpoints, losses) = endpoints, trained(endpoints)
    assert losses[-1] < losses[0] / 3
    assert jax.tree.map(jnp.shape, endpoints) == jax.tree.map(jnp.shape, start)
    assert not np.allclose(endpoints["embedding"], start["embedding"])
