"""Options that train the center faster: exact identities, on one device and on eight, and where they are refused."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from own_subspaces import Patch, Ring

import jsubspace
from jsubspace import Chain, Curve, Line, Simplex, centers, shares
from jsubspace.algorithm import random_gradient
from jsubspace.objectives import Objective
from jsubspace.shares import Shares

KEY = jax.random.key(2)
SUBSPACES = [Line(), Simplex(2), Simplex(4), Curve()]


def init_fn(key):
    kernel, head = jax.random.split(key)
    return {
        "kernel": jax.random.normal(kernel, (8, 16)) / 3,
        "bias": jnp.zeros(16),
        "head": jax.random.normal(head, (16, 3)),
    }


def loss_fn(point, x, y):
    logits = jnp.tanh(x @ point["kernel"] + point["bias"]) @ point["head"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def start_of(subspace):
    """What `init_endpoints` returns, made by one program."""
    return jax.jit(lambda: jsubspace.init_endpoints(KEY, init_fn, subspace))()


def batches(steps, n=32):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((steps, n, 8))
    labels = np.argmax(x[..., :3] + rng.standard_normal((steps, n, 3)), axis=-1)
    return jnp.asarray(x, jnp.result_type(float)), jnp.asarray(labels)


def batch():
    return [array[0] for array in batches(1)]


def optimizer():
    return optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9))


def close(actual, expected, atol=1e-12, rtol=0.0):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), actual, expected)


def trained(gradient, start, x, y):
    """One step of SGD with momentum and decay per batch, in one compiled program. ``gradient(params, key, x, y)``."""
    tx = optimizer()

    def step(carry, inputs):
        params, state = carry
        number, *batch = inputs
        updates, state = tx.update(gradient(params, jax.random.fold_in(KEY, number), *batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (start, tx.init(start)), (jnp.arange(len(x)), x, y))[0][0]


def specs_of(axes):
    whole = PartitionSpec()
    return jax.tree.map(lambda axis: whole if axis < 0 else PartitionSpec(*[None] * (axis + 1), "batch"), axes) or whole


def on_devices(subspace, objective, count, divided):
    """A function from the endpoints and the batches to the midpoint of the trained endpoints."""
    start = jax.eval_shape(lambda: jsubspace.init_endpoints(KEY, init_fn, subspace))
    axes = shares.axes_of(start, count) if divided else None
    grad_fn = random_gradient(loss_fn, subspace, objective, Shares("batch", axes))
    mesh = Mesh(np.array(jax.devices()[:count]), ("batch",))
    mapped = jax.shard_map(
        lambda key, endpoints, x, y: grad_fn(key, endpoints, x, y)[1],
        mesh=mesh,
        in_specs=(PartitionSpec(), specs_of(axes), PartitionSpec("batch"), PartitionSpec("batch")),
        out_specs=specs_of(axes),
        check_vma=False,
    )

    @jax.jit
    def midpoint(start, x, y):
        ends = trained(lambda params, key, x, y: mapped(key, params, x, y), start, x, y)
        return jsubspace.midpoint(ends, subspace)

    return midpoint


@jax.jit
def standard_training(start, x, y):
    return trained(lambda params, _, x, y: jax.grad(loss_fn)(params, x, y), start, x, y)


PLACES = [(1, False), (8, False), (8, True)]
CASES = [(Simplex(2), 1, False), *((each, *place) for each in (Line(), Simplex(4), Curve()) for place in PLACES)]


@pytest.mark.parametrize(("subspace", "count", "divided"), CASES, ids=str)
def test_at_the_center_the_midpoint_is_standard_training(subspace, count, divided, x64):
    """With the spread 0 and no penalty: 200 steps with momentum and decay, on the same batches."""
    endpoints, data = start_of(subspace), batches(200)
    centered = on_devices(subspace, Objective(beta=0.0, pull_back="center", spread=0.0), count, divided)
    start = jax.jit(lambda endpoints: jsubspace.midpoint(endpoints, subspace))(endpoints)
    expected = standard_training(start, *data)
    close(centered(endpoints, *data), expected)
    assert np.abs(expected["kernel"] - start["kernel"]).max() > 0.1
    if count == 1:  # The plain pull-back is another training.
        plain = on_devices(subspace, Objective(beta=0.0, spread=0.0), count, divided)(endpoints, *data)
        assert not np.allclose(plain["kernel"], expected["kernel"], atol=1e-3)


@pytest.mark.parametrize("subspace", [Line(), Simplex(3), Curve()], ids=repr)
def test_the_penalty_is_the_only_difference(subspace, x64):
    """With beta > 0, a step of the midpoint differs by -eta beta sum_i c*_i d cos^2 / d omega_i."""
    beta, rate = 0.7, 0.1
    settings = {"beta": beta, "pull_back": "center", "spread": 0.0, "all_pairs": True}
    center = centers.center_coefficients(subspace)

    @jax.jit
    def steps(endpoints, x, y):
        """A step of the midpoint, of standard training, and of standard training with the penalty's push."""
        _, grads = jsubspace.value_and_grad(loss_fn, subspace, **settings)(KEY, endpoints, x, y)
        moved = jax.tree.map(lambda leaf, g: leaf - rate * g, endpoints, grads)
        start = jsubspace.midpoint(endpoints, subspace)
        standard = jax.tree.map(lambda leaf, g: leaf - rate * g, start, jax.grad(loss_fn)(start, x, y))
        pushed = jax.grad(jsubspace.mean_cosine_squared)(endpoints)
        expected = jax.tree.map(
            lambda leaf, push: leaf - rate * beta * jnp.tensordot(jnp.asarray(center), push, 1), standard, pushed
        )
        return jsubspace.midpoint(moved, subspace), standard, expected

    ours, standard, expected = steps(start_of(subspace), *batch())
    close(ours, expected, atol=1e-14)
    assert not np.allclose(standard["kernel"], expected["kernel"], atol=1e-9)


@pytest.mark.parametrize("subspace", [*SUBSPACES, Patch()], ids=repr)
def test_the_weights_are_the_nearest_that_move_the_center_like_one_network(subspace, x64):
    """Least squares with one linear condition, solved by the equations of Lagrange."""
    center = centers.center_coefficients(subspace)

    def weights(alpha):
        c = subspace.coefficients(alpha)
        return c, centers.pull_back_weights(subspace, jnp.asarray(c), "center")

    for c, found in zip(*jax.jit(lambda: jax.vmap(weights)(subspace.sample(KEY, (5,))))(), strict=True):
        m = len(c)
        system = np.block([[np.eye(m), center[:, None]], [center[None], np.zeros((1, 1))]])
        np.testing.assert_allclose(found, np.linalg.solve(system, np.append(c, 1))[:m], atol=1e-12)
        assert center @ np.asarray(found) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("settings", [{}, {"layerwise": True}, {"num_samples": 2}, {"num_samples": 4}], ids=str)
def test_the_pull_back_is_that_of_the_weights(settings, x64):
    """Written out by the gradients at the points, for one alpha per layer and for several positions."""
    subspace, (x, y) = Simplex(3), batch()
    settings = settings | {"beta": 0.0}
    samples = settings.get("num_samples", 1)

    @jax.jit
    def found_and_expected(endpoints):
        grad_fn = jsubspace.value_and_grad(loss_fn, subspace, pull_back="center", **settings)
        (_, info), grads = grad_fn(KEY, endpoints, x, y)
        expected = jax.tree.map(jnp.zeros_like, endpoints)
        for s in range(samples):
            alpha = info.alpha if samples == 1 else info.alpha[s]
            g = jax.grad(loss_fn)(jsubspace.interpolate(endpoints, alpha, subspace), x[s::samples], y[s::samples])
            alphas = alpha if settings.get("layerwise") else jax.tree.map(lambda _, alpha=alpha: alpha, g)
            w = jax.tree.map(lambda a: 1 + a - 1 / 3, alphas)
            part = jax.tree.map(lambda w, g: jnp.tensordot(w, g[None], 0)[:, 0] / samples, w, g)
            expected = jax.tree.map(jnp.add, expected, part)
        return grads, expected

    close(*found_and_expected(start_of(subspace)))


def test_a_shared_leaf_gets_the_gradient_at_the_point(x64):
    shared = {"kernel": True, "bias": True, "head": False}
    x, y = batch()

    @jax.jit
    def found_and_expected():
        endpoints = jsubspace.init_endpoints(KEY, init_fn, Simplex(3), shared=shared)
        (_, info), grads = jsubspace.value_and_grad(loss_fn, Simplex(3), pull_back="center")(KEY, endpoints, x, y)
        return grads, jax.grad(loss_fn)(jsubspace.interpolate(endpoints, info.alpha, Simplex(3)), x, y)

    grads, g = found_and_expected()
    close((grads["kernel"][0], grads["bias"][0]), (g["kernel"], g["bias"]))


@pytest.mark.parametrize("subspace", [*SUBSPACES, Simplex(7), Patch()], ids=repr)
def test_a_spread_of_one_changes_no_bit(subspace):
    alpha = jax.jit(lambda: subspace.sample(KEY, (1000,)))()

    @jax.jit
    def with_spreads(alpha, *spreads):
        return [centers.drawn_together(subspace, alpha, spread) for spread in spreads]

    for found in with_spreads(alpha, 1.0, 1, np.float32(1)):
        np.testing.assert_array_equal(found, alpha)


def test_plain_weights_and_a_spread_of_one_are_todays_program():
    endpoints, (x, y) = jax.eval_shape(lambda: jsubspace.init_endpoints(KEY, init_fn, 3)), batch()
    today, same = (
        jax.jit(jsubspace.value_and_grad(loss_fn, Simplex(3), **options)).lower(KEY, endpoints, x, y).as_text()
        for options in ({}, {"pull_back": "plain", "spread": 1.0})
    )
    assert today == same


@pytest.mark.parametrize("subspace", [Line(), Simplex(3)], ids=repr)
def test_positions_lie_within_the_spread(subspace):
    spreads = (0.0, 0.25, 0.8)

    @jax.jit
    def alphas():
        """As drawn, and with every spread."""
        endpoints = jsubspace.init_endpoints(KEY, init_fn, subspace)
        return [
            jsubspace.value_and_grad(loss_fn, subspace, layerwise=True, **options)(KEY, endpoints, *batch())[0][1].alpha
            for options in ({}, *({"spread": spread} for spread in spreads))
        ]

    drawn, *moved = alphas()
    for spread, found in zip(spreads, moved, strict=True):
        expected = jax.tree.map(lambda u, spread=spread: (1 - spread) * subspace.center + spread * np.asarray(u), drawn)
        close(found, expected, atol=1e-6)


def test_a_growing_spread_compiles_once():
    endpoints, x = start_of(Line()), batch()

    @jax.jit
    def alpha(spread):
        return jsubspace.value_and_grad(loss_fn, Line(), spread=spread)(KEY, endpoints, *x)[0][1].alpha

    drawn = [float(alpha(jnp.float32(r))) for r in (0.0, 0.5, 1.0)]
    assert drawn[0] == 0.5
    assert drawn[1] == pytest.approx((drawn[0] + drawn[2]) / 2)
    assert alpha._cache_size() == 1


@pytest.mark.parametrize("option", [{"pull_back": "center"}, {"spread": 0.5}], ids=str)
@pytest.mark.parametrize("subspace", [Chain(), Chain(2), Chain(3), Ring()], ids=repr)
def test_endpoints_without_weight_at_the_center_are_refused(subspace, option):
    with pytest.raises(ValueError, match="would be left behind"):
        jsubspace.value_and_grad(loss_fn, subspace, **option)
    with pytest.raises(ValueError, match="would be left behind"):  # A traced spread may be less than 1.
        jax.eval_shape(lambda r: jsubspace.value_and_grad(loss_fn, subspace, spread=r) and r, jnp.float32(1))


@pytest.mark.parametrize("option", [{"pull_back": "center"}, {"spread": 0.5}], ids=str)
def test_unequal_weights_at_the_center_are_warned_of(option):
    with pytest.warns(UserWarning, match="so the first learns less"):
        jsubspace.value_and_grad(loss_fn, Curve(2), **option)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jsubspace.value_and_grad(loss_fn, Curve(), **option)
        jsubspace.value_and_grad(loss_fn, Chain(2))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pull_back": "centre"}, 'must be "plain" or "center"'),
        ({"spread": 1.5}, "must be between 0"),
        ({"spread": -0.1}, "spread"),
        ({"spread": "half"}, "spread"),
    ],
    ids=str,
)
def test_what_is_no_option(option, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.value_and_grad(loss_fn, Line(), **option)


@pytest.mark.parametrize("subspace", [Line(), Simplex(6), Curve()], ids=repr)
def test_rates_of_the_center(subspace):
    """The rate of SGD is the one that is given, and the angles are those of own draws."""
    plain, center = (jsubspace.rates(subspace, 0.1, 1e-3, pull_back=kind) for kind in ("plain", "center"))
    assert center.sgd.learning_rate == pytest.approx(0.1, rel=1e-5)
    assert center.sgd.decay == pytest.approx(1e-3, rel=1e-5)
    assert 0.9 < center.adam.learning_rate / 0.1 <= 1
    ends = np.eye(subspace.num_endpoints)
    drawn = jax.jit(lambda: subspace.coefficients(subspace.sample(jax.random.key(11), (20_000,))))()
    c, start = np.asarray(drawn) @ ends, centers.center_coefficients(subspace)
    angle = np.mean(1 / np.linalg.norm(c, axis=1)) / np.linalg.norm(start)
    assert center.angle == pytest.approx(angle, rel=0.01)
    assert plain.angle < 1 < center.angle
    if subspace == Line():
        assert center.angle == pytest.approx(2 * np.arcsinh(1), rel=0.01)  # the mean of sqrt(2) / |c| by an integral
    if subspace == Simplex(6):
        assert center.angle == pytest.approx(4.7, abs=0.05)  # as docs/center.md says


@pytest.mark.parametrize("subspace", [Line(), Simplex(4), Curve()], ids=repr)
def test_the_center_starts_with_the_scale_of_one_network(subspace):
    def wide(key):
        return {"kernel": jax.random.normal(key, (300, 300)), "bias": jnp.ones(300)}

    scales = {"network": 1.0, "endpoint": float(np.sum(centers.center_coefficients(subspace) ** 2))}

    @jax.jit
    def midpoints():
        return [
            jsubspace.midpoint(jsubspace.init_endpoints(KEY, wide, subspace, center_scale=scale), subspace)
            for scale in scales
        ]

    for point, variance in zip(midpoints(), scales.values(), strict=True):
        assert np.var(point["kernel"]) == pytest.approx(variance, rel=0.02)
        np.testing.assert_array_equal(point["bias"], 1)
    for options in ({"center_scale": "one"}, {"center_scale": "network", "common_start": True}):
        with pytest.raises(ValueError, match='must be "endpoint"'):
            jsubspace.init_endpoints(KEY, wide, subspace, **options)
