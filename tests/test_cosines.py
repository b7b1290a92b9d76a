"""cos^2 and its gradient over the whole range of float32, against float64 (property tests over random endpoints)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jsubspace
from jsubspace import leaf_kinds, penalties

MANY = settings(max_examples=60, deadline=None, derandomize=True)
NORMS = st.floats(-18.9, 19.1)  # log10: the square of the norm is a normal float32
SHAPE = (5, 3)


def endpoints_of(seed, logs):
    """Correlated endpoints ``[m, 5, 3]`` of the norms 10^logs, as float32 and as float64."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=SHAPE) + rng.normal(size=(len(logs), *SHAPE))
    norms = np.linalg.norm(vectors.reshape(len(logs), -1), axis=1)
    exact = vectors / norms[:, None, None] * 10.0 ** np.asarray(logs)[:, None, None]
    narrow = exact.astype(np.float32)
    return {"kernel": jnp.asarray(narrow)}, narrow.astype(np.float64)


def reference(exact, pairs):
    """The mean of cos^2 over the pairs, and its gradient, in float64."""
    flat = exact.reshape(len(exact), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    units, gradient, value = flat / norms, np.zeros_like(flat), 0.0
    for j, k in pairs:
        cosine = units[j] @ units[k]
        value += cosine**2 / len(pairs)
        gradient[j] += 2 * cosine * (units[k] - cosine * units[j]) / norms[j] / len(pairs)
        gradient[k] += 2 * cosine * (units[j] - cosine * units[k]) / norms[k] / len(pairs)
    return value, gradient.reshape(exact.shape)


def close(value, grads, exact, pairs, scale=1.0):
    expected, gradient = reference(exact, pairs)
    assert 0 <= float(value) <= 1
    np.testing.assert_allclose(value, expected, rtol=3e-5, atol=1e-7)
    for actual, right in zip(np.asarray(grads, np.float64), gradient, strict=True):  # each endpoint on its own scale
        np.testing.assert_allclose(actual / np.abs(right).max(), scale * right / np.abs(right).max(), atol=3e-5)


@jax.jit
def of_all(endpoints):
    return jax.value_and_grad(jsubspace.mean_cosine_squared)(endpoints)


cosines_squared = jax.jit(jsubspace.cosines_squared)


@jax.jit
def closed_form(endpoints, pair):
    nothing = jax.tree.map(jnp.zeros_like, endpoints)
    found = penalties.penalty(endpoints, tuple(pair), leaf_kinds.all_leaves(endpoints))
    return found.value, found.add_gradient(nothing, endpoints, 1.0)


@MANY
@given(seed=st.integers(0, 10**6), logs=st.tuples(NORMS, NORMS))
def test_a_pair_of_any_norms(seed, logs):
    endpoints, exact = endpoints_of(seed, logs)
    for value, grads in (of_all(endpoints), closed_form(endpoints, (0, 1))):
        close(value, grads["kernel"], exact, [(0, 1)])


@MANY
@given(seed=st.integers(0, 10**6), logs=st.tuples(NORMS, NORMS, NORMS))
def test_a_pair_among_three_of_any_norms(seed, logs):
    endpoints, exact = endpoints_of(seed, logs)
    value, grads = closed_form(endpoints, (2, 0))
    assert not np.any(grads["kernel"][1])
    close(value, np.asarray(grads["kernel"])[[2, 0]], exact[[2, 0]], [(0, 1)])
    close(*[x["kernel"] if isinstance(x, dict) else x for x in of_all(endpoints)], exact, [(0, 1), (0, 2), (1, 2)])
    close(
        *[x["kernel"] if isinstance(x, dict) else x for x in closed_form(endpoints, (0, 1, 2))],
        exact,
        [(0, 1), (0, 2), (1, 2)],
    )


@MANY
@given(seed=st.integers(0, 10**6), logs=st.tuples(NORMS, NORMS), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_value_that_is_not_finite_is_never_a_number(seed, logs, bad):
    endpoints, _ = endpoints_of(seed, logs)
    kernel = np.array(endpoints["kernel"])
    kernel[1, 2, 1] = bad
    endpoints = {"kernel": kernel}
    cosines = np.asarray(cosines_squared(endpoints))
    for value in (of_all(endpoints)[0], closed_form(endpoints, (0, 1))[0], cosines[0, 1], cosines[1, 1]):
        assert np.isnan(value)


@MANY
@given(seed=st.integers(0, 10**6), log=NORMS, factor=st.floats(0.01, 100.0), sign=st.sampled_from([-1, 1]))
def test_parallel_endpoints_have_a_cosine_of_at_most_one(seed, log, factor, sign):
    endpoints, _ = endpoints_of(seed, (min(log, 17.0),))
    kernel = np.asarray(endpoints["kernel"])[0]
    found = np.asarray(cosines_squared({"kernel": np.stack([kernel, sign * np.float32(factor) * kernel])}))
    assert np.all(found <= 1)
    np.testing.assert_allclose(found, 1, rtol=1e-6)


def test_the_diagonal_is_not_differentiated():
    """The gradient of the whole matrix is twice the gradient of its upper triangle, also beside a zero vector."""
    kernel = np.zeros((3, 4, 2), np.float32)
    kernel[:2] = np.random.default_rng(0).standard_normal((2, 4, 2))

    @jax.jit
    def gradients(kernel):
        functions = (
            lambda k: jnp.sum(jsubspace.cosines_squared({"kernel": k})),
            lambda k: 6 * jsubspace.mean_cosine_squared({"kernel": k}),
            lambda k: jnp.trace(jsubspace.cosines_squared({"kernel": k})),
        )
        return [jax.grad(function)(kernel) for function in functions]

    np.testing.assert_array_equal(np.diagonal(cosines_squared({"kernel": kernel})), [1, 1, 0])
    grads, expected, diagonal = gradients(kernel)
    np.testing.assert_allclose(grads, expected, rtol=1e-5)
    np.testing.assert_array_equal(diagonal, 0)


def test_distances_have_a_gradient_also_where_they_vanish():
    gradient = jax.jit(jax.value_and_grad(lambda e: jnp.sum(jsubspace.distances(e))))
    for scale in (1.0, 1e-15, 1e15):
        kernel = np.float32(scale) * np.float32([[[3.0, 0.0]], [[0.0, 4.0]], [[3.0, 0.0]]])
        value, grads = gradient({"kernel": kernel})
        np.testing.assert_allclose(value, 20 * scale, rtol=1e-6)
        np.testing.assert_allclose(grads["kernel"][:, 0], [[1.2, -1.6], [-2.4, 3.2], [1.2, -1.6]], rtol=1e-5)


def test_a_head_of_zeros_survives_its_warm_up():
    """A zero-initialised head, slow steps: cos^2 and its gradient are finite from the first step on."""
    x = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)

    def loss_fn(point):
        return jnp.mean((x @ point["kernel"] - x[:, :5]) ** 2)

    endpoints = {"kernel": np.zeros((2, 16, 5), np.float32)}
    grad_fn = jax.jit(jsubspace.value_and_grad(loss_fn, jsubspace.Line()))
    for i in range(5):
        (value, _), grads = grad_fn(jax.random.key(i), endpoints)
        assert np.isfinite(value)
        assert np.all(np.isfinite(grads["kernel"]))
        endpoints = jax.tree.map(lambda e, g: e - np.float32(1e-6) * np.asarray(g), endpoints, grads)


@pytest.mark.parametrize("subspace", [jsubspace.Line(), jsubspace.Simplex(3)])
def test_the_gradient_can_be_differentiated_inside_jit(subspace):
    """A user differentiates the loss and penalty of a step, as an outer loop of meta-learning does."""
    rng = np.random.default_rng(0)
    endpoints = {"kernel": jnp.asarray(rng.normal(size=(subspace.num_endpoints, 4, 3)), jnp.float32)}

    def loss_fn(point, x):
        return jnp.sum(jnp.tanh(x @ point["kernel"]) ** 2)

    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, beta=1.0)

    def value(endpoints):
        return grad_fn(jax.random.key(0), endpoints, jnp.ones((2, 4)))[0][0]

    found = jax.jit(jax.grad(value))(endpoints)["kernel"]
    assert np.all(np.isfinite(found))
    assert np.abs(found).max() > 0
