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
    """The scale has five numbers, which no number of devices divides."""
    return jnp.mean((jnp.tanh(x @ point["kernel"]) * point["scale"] - y) ** 2)


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


def test_a_transformation_that_does_nothing_is_the_identity():
    endpoints, batch = problem(2)
    for settings in ({}, {"num_samples": 2}, {"num_samples": 4}):
        plain, options = (
            jsubspace.value_and_grad(loss_fn, Line(), **settings, **more)(KEY, endpoints, *batch)
            for more in ({}, {"at_point": lambda grad: grad})
        )
        same(options, plain)
    infinite = optax.clip_by_global_norm(1e9)
    clipped = jsubspace.value_and_grad(loss_fn, Line(), at_point=lambda grad: infinite.update(grad, infinite.init(grad))[0])
    same(clipped(KEY, endpoints, *batch), jsubspace.value_and_grad(loss_fn, Line())(KEY, endpoints, *batch))


@pytest.mark.parametrize("num_samples", [1, 2, 4])
def test_the_gradient_is_clipped_at_the_point_and_then_pulled_back(num_samples, x64):
    """Written out: each position's gradient is clipped alone, and the penalty is not clipped."""
    endpoints, (x, y) = problem(3)
    settings = {"num_samples": num_samples, "all_pairs": True, "at_point": clip}
    (_, info), grads = jsubspace.value_and_grad(loss_fn, Simplex(3), **settings)(KEY, endpoints, x, y)
    expected = jax.grad(jsubspace.mean_cosine_squared)(endpoints)
    for s, alpha in enumerate(np.reshape(info.alpha, (num_samples, 3))):
        point = jsubspace.interpolate(endpoints, alpha, Simplex(3))
        clipped = clip(jax.grad(loss_fn)(point, x[s::num_samples], y[s::num_samples]))
        assert norm(clipped) == pytest.approx(0.05)
        pulled = jax.tree.map(lambda g, alpha=alpha: jnp.tensordot(alpha, g[None] / num_samples, 0)[:, 0], clipped)
        expected = jax.tree.map(jnp.add, expected, pulled)
    close(grads, expected)


@pytest.mark.parametrize(("subspace", "settings"), DEVICES, ids=str)
def test_clipping_is_the_same_on_devices(subspace, settings, x64):
    """One and eight devices, with whole and with divided endpoints. The mean over devices is clipped, not each device's own."""
    objective = Objective(**settings, at_point=clip)
    arguments = (alphas(subspace, objective), *problem(subspace.num_endpoints))
    expected = place(subspace, objective, 1, divided=False)(*arguments)
    for divided in (False, True):
        close(place(subspace, objective, 8, divided)(*arguments), expected)
    close(place(subspace, objective, 8, divided=False, check_vma=True)(*arguments), expected)
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
