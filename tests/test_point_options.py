"""What is done at the point: a transformation of the gradient and a step uphill, the same numbers on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import jsubspace
from experiments.lib.collectives import collectives
from jsubspace import Line, Point, Simplex, shares
from jsubspace.algorithm import gradient_at
from jsubspace.objectives import Objective
from jsubspace.shares import Shares

KEY = jax.random.key(3)
AXIS = "batch"


def loss_fn(point, x, y):
    """The scale has five numbers, which eight devices cannot divide. The largest entry of the gradient is the kernel's."""
    return jnp.mean((jnp.tanh(x @ point["kernel"]) * (3 + point["scale"] / 9) - y) ** 2)


def problem(m, n=48):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    return {"kernel": normal(m, 8, 5), "scale": 1 + normal(m, 5)}, (normal(n, 8), normal(n, 5))


def norm(tree):
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def clip(grad):
    """By the norm over both leaves, which is above 0.05 here."""
    return jax.tree.map(lambda leaf: leaf * jnp.minimum(1, 0.05 / norm(grad)), grad)


def close(actual, expected, rtol=1e-10, atol=1e-12):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), actual, expected)


def same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def place(subspace, objective, count, divided, check_vma=False):
    """A jitted ``(alpha, endpoints, batch) -> (value, grads)`` on so many devices."""
    axes = shares.axes_of(jax.eval_shape(lambda: problem(subspace.num_endpoints)[0]), count) if divided else None
    chosen = tuple(range(subspace.num_endpoints))
    grad_fn = gradient_at(loss_fn, subspace, objective, Shares(AXIS, axes))

    def step(alpha, endpoints, batch):
        (value, _), grads = grad_fn(alpha, chosen, endpoints, *batch)
        return value, grads

    split, whole = PartitionSpec(AXIS), PartitionSpec()
    specs = jax.tree.map(lambda axis: whole if axis < 0 else PartitionSpec(*[None] * (axis + 1), AXIS), axes) or whole
    mesh = Mesh(np.array(jax.devices()[:count]), (AXIS,))
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(whole, specs, split), out_specs=(whole, specs), check_vma=check_vma
    )
    return jax.jit(mapped)


def alphas(subspace, objective):
    return subspace.sample(KEY, () if objective.num_samples == 1 else (objective.num_samples,))


DEVICES = [
    (Line(), {"beta": 0.7}),
    (Point(), {}),
    (Simplex(3), {"num_samples": 2, "mask": jsubspace.all_leaves}),
    (Line(), {"num_samples": 3}),
]


def named(value):
    """The name of a case, which is the same in every process."""
    return str(
        {name: getattr(setting, "__name__", setting) for name, setting in value.items()}
        if isinstance(value, dict)
        else value
    )


def test_a_transformation_that_does_nothing_is_the_identity():
    endpoints, batch = problem(2)
    infinite = optax.clip_by_global_norm(1e9)

    def gradient(settings, **more):
        return jax.jit(jsubspace.value_and_grad(loss_fn, Line(), **settings, **more))(KEY, endpoints, *batch)

    for settings in ({}, {"num_samples": 2}, {"num_samples": 4}):
        plain = gradient(settings)
        same(gradient(settings, at_point=lambda grad: grad), plain)
        if not settings:
            same(gradient(settings, at_point=lambda grad: infinite.update(grad, infinite.init(grad))[0]), plain)


@pytest.mark.parametrize("num_samples", [1, 2, 4])
def test_the_gradient_is_clipped_at_the_point_and_then_pulled_back(num_samples, x64):
    """Written out: each position's gradient is clipped alone, and the penalty is not clipped."""
    endpoints, (x, y) = problem(3)
    settings = {"num_samples": num_samples, "all_pairs": True, "at_point": clip}

    @jax.jit
    def found_and_expected(endpoints, x, y):
        (_, info), grads = jsubspace.value_and_grad(loss_fn, Simplex(3), **settings)(KEY, endpoints, x, y)
        expected, lengths = jax.grad(jsubspace.mean_cosine_squared)(endpoints), []
        for s, alpha in enumerate(jnp.reshape(info.alpha, (num_samples, 3))):
            point = jsubspace.interpolate(endpoints, alpha, Simplex(3))
            clipped = clip(jax.grad(loss_fn)(point, x[s::num_samples], y[s::num_samples]))
            lengths.append(norm(clipped))
            pulled = jax.tree.map(lambda g, alpha=alpha: jnp.tensordot(alpha, g[None] / num_samples, 0)[:, 0], clipped)
            expected = jax.tree.map(jnp.add, expected, pulled)
        return grads, expected, lengths

    grads, expected, lengths = found_and_expected(endpoints, x, y)
    np.testing.assert_allclose(lengths, 0.05, rtol=1e-6)
    close(grads, expected)


@pytest.mark.parametrize(("subspace", "settings"), DEVICES, ids=named)
def test_clipping_is_the_same_on_devices(subspace, settings, x64):
    """One and eight devices, with whole and with divided endpoints. The mean over devices is clipped, not each device's own."""
    objective = Objective(**settings, at_point=clip)
    arguments = (alphas(subspace, objective), *problem(subspace.num_endpoints))
    expected = place(subspace, objective, 1, divided=False)(*arguments)
    for divided in (False, True):
        close(place(subspace, objective, 8, divided)(*arguments), expected)
    close(place(subspace, objective, 8, divided=False, check_vma=True)(*arguments), expected)
    if subspace == Point():
        unclipped = place(subspace, Objective(**settings), 8, divided=True)(*arguments)
        assert not np.allclose(unclipped[1]["scale"], expected[1]["scale"])


def test_one_network_travels_whatever_m():
    """The gradient at the point is added up once, also if endpoints are divided: each device then cuts its share."""
    for m in (2, 3):
        objective, batch = Objective(beta=0.0, at_point=clip), problem(m)
        step = place(Simplex(m), objective, 8, divided=False)
        text = step.lower(alphas(Simplex(m), objective), *batch).compile().as_text()
        assert sum(collective.numbers for collective in collectives(text)) == 8 * 5 + 5 + 1


def test_what_is_no_transformation():
    endpoints, batch = problem(2)
    for at_point in (optax.clip_by_global_norm(1.0), 1.0):
        with pytest.raises(ValueError, match=r"at_point is .*must be a function .*lambda grad: tx.update"):
            jsubspace.value_and_grad(loss_fn, Line(), at_point=at_point)
    for at_point, message in (
        (lambda grad: (grad, None), "at_point returned the structure .*Return a gradient of the same network"),
        (lambda grad: None, "at_point returned the structure"),
        (norm, "at_point returned the structure"),
        (lambda grad: jax.tree.map(jnp.sum, grad), r"at_point returned leaf \['kernel'\] of shape \[\], .* \[8, 5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            jsubspace.value_and_grad(loss_fn, Line(), at_point=at_point)(KEY, endpoints, *batch)


# Sharpness-aware minimisation at the point.


def sharpness_aware(subspace, alpha, rho, endpoints, x, y):
    """The formula: the gradient at theta + rho g / |g|, with rho g / |g| a constant, as the gradient of the endpoints."""
    point = jsubspace.interpolate(endpoints, alpha, subspace)
    grad = jax.grad(loss_fn)(point, x, y)
    step = jax.tree.map(lambda leaf: rho * leaf / norm(grad), grad)

    def objective(endpoints):
        point = jsubspace.interpolate(endpoints, alpha, subspace)
        return loss_fn(jax.tree.map(jnp.add, point, step), x, y)

    return loss_fn(point, x, y), jax.grad(objective)(endpoints)


@pytest.mark.parametrize(
    ("subspace", "num_samples"), [(Point(), 1), (Line(), 1), (Simplex(3), 2), (Line(), 3)], ids=str
)
def test_a_step_uphill_by_its_formula(subspace, num_samples, x64):
    endpoints, (x, y) = problem(subspace.num_endpoints)
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, num_samples=num_samples, beta=0.0, sam_rho=0.3)
    plain_fn = jsubspace.value_and_grad(loss_fn, subspace, num_samples=num_samples, beta=0.0)

    @jax.jit
    def found_and_expected(endpoints, x, y):
        (value, info), grads = grad_fn(KEY, endpoints, x, y)
        each = [
            sharpness_aware(subspace, alpha, 0.3, endpoints, x[s::num_samples], y[s::num_samples])
            for s, alpha in enumerate(jnp.reshape(info.alpha, (num_samples, *subspace.alpha_shape)))
        ]
        expected = jax.tree.map(lambda *leaves: sum(leaves) / num_samples, *each)
        return (value, grads), expected, plain_fn(KEY, endpoints, x, y)[1]

    found, expected, ordinary = found_and_expected(endpoints, x, y)
    close(found, expected)
    assert not np.allclose(found[1]["kernel"], ordinary["kernel"], rtol=1e-2)


def test_a_step_of_no_length_is_the_ordinary_gradient(x64):
    endpoints, batch = problem(2)
    settings = {"num_samples": 2, "beta": 0.5}

    def gradient(rho):
        return jsubspace.value_and_grad(loss_fn, Line(), sam_rho=rho, **settings)(KEY, endpoints, *batch)

    plain = jax.jit(jsubspace.value_and_grad(loss_fn, Line(), **settings))(KEY, endpoints, *batch)
    same(jax.jit(lambda: gradient(0.0))(), plain)
    tiny, uphill = jax.jit(lambda: (gradient(1e-12), gradient(0.2)))()
    close(tiny, plain)
    traced = jax.jit(gradient)
    close(traced(0.0), plain)
    close(traced(0.2), uphill)
    assert traced._cache_size() == 1


def test_a_gradient_of_zero_has_no_direction():
    endpoints, _ = problem(2)
    still = jsubspace.value_and_grad(lambda point: 0 * jnp.sum(point["kernel"]), Line(), beta=0.0, sam_rho=0.1)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(still(KEY, endpoints)[1]))


@pytest.mark.parametrize(
    ("subspace", "settings"),
    [*DEVICES[::2], *(pytest.param(*case, marks=pytest.mark.slow) for case in DEVICES[1::2])],
    ids=named,
)
def test_a_step_uphill_is_the_same_on_devices(subspace, settings, x64):
    objective = Objective(**settings, sam_rho=0.3)
    arguments = (alphas(subspace, objective), *problem(subspace.num_endpoints))
    expected = place(subspace, objective, 1, divided=False)(*arguments)
    for divided in (False, True):
        close(place(subspace, objective, 8, divided)(*arguments), expected)
    close(place(subspace, objective, 8, divided=False, check_vma=True)(*arguments), expected)


def test_both_options_clip_the_second_gradient_on_devices(x64):
    objective = Objective(beta=0.0, sam_rho=0.3, at_point=clip)
    endpoints, batch = problem(2)
    expected = jax.jit(lambda: clip(jax.grad(loss_fn)(uphill_of(endpoints, batch), *batch)))()
    for divided in (False, True):
        _, grads = place(Line(), objective, 8, divided)(jnp.asarray(0.5), endpoints, batch)
        close(grads, jax.tree.map(lambda leaf: np.stack([leaf, leaf]) / 2, expected))


def uphill_of(endpoints, batch):
    middle = jsubspace.midpoint(endpoints)
    grad = jax.grad(loss_fn)(middle, *batch)
    return jax.tree.map(lambda leaf, g: leaf + 0.3 * g / norm(grad), middle, grad)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_two_gradients_whatever_m(m):
    """The products with kernels in the step: forwards and backwards, twice. And two networks travel, as for any m."""
    endpoints, batch = problem(m)
    subspace = Simplex(m)

    def products(**options):
        grad_fn = jsubspace.value_and_grad(loss_fn, subspace, beta=0.0, **options)
        return str(jax.make_jaxpr(grad_fn)(KEY, endpoints, *batch)).count("dot_general")

    assert products(sam_rho=0.1) == 2 * products()
    step = place(subspace, Objective(beta=0.0, sam_rho=0.1), 8, divided=False)
    text = step.lower(subspace.center, endpoints, batch).compile().as_text()
    assert sum(collective.numbers for collective in collectives(text)) == 2 * (8 * 5 + 5) + 1


@pytest.mark.parametrize("rho", [-0.1, float("nan"), None])
def test_what_is_no_length(rho):
    with pytest.raises(ValueError, match=f"sam_rho is {rho}, but the length of a step uphill is finite and at least 0"):
        jsubspace.value_and_grad(loss_fn, Line(), sam_rho=rho)


def test_an_origin_is_divided_as_the_endpoints_are(x64):
    endpoints, batch = problem(3)
    origin = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[0] / 2), endpoints)
    for mask, ways in ((None, (True,)), (jsubspace.all_leaves, (False, True))):
        objective = Objective(beta=0.7, mask=mask, origin=origin)
        arguments = (alphas(Simplex(3), objective), endpoints, batch)
        expected = place(Simplex(3), objective, 1, divided=False)(*arguments)
        for divided in ways:
            close(place(Simplex(3), objective, 8, divided)(*arguments), expected)
