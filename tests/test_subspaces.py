"""Subspaces as coefficient maps: identities first, then independent formulas, then moments of the samples."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_subspaces import Patch, Ring

import jsubspace
from jsubspace import Chain, Curve, Line, Point, Simplex, subspaces

ALL = [Point(), Line(), Curve(), Curve(2), Curve(4), Chain(), Chain(3), Simplex(1), Simplex(2), Simplex(3), Simplex(6)]
every = pytest.mark.parametrize("subspace", ALL, ids=repr)


@every
def test_the_protocol_holds(subspace):
    assert isinstance(subspace, jsubspace.Subspace)
    m, alpha_shape = subspace.num_endpoints, subspace.alpha_shape
    alphas = subspace.sample(jax.random.key(0), (5, 4))
    assert alphas.shape == (5, 4, *alpha_shape)
    assert subspace.sample(jax.random.key(0)).shape == alpha_shape
    assert subspace.center.shape == alpha_shape
    weights = subspace.coefficients(alphas)
    assert weights.shape == (5, 4, m)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.sum(subspace.coefficients(subspace.center)), 1, rtol=1e-6)
    grid = subspace.grid(5)
    assert grid.shape[1:] == alpha_shape
    assert all(np.shape(end) == alpha_shape for end in subspace.ends)
    for alpha in [*grid, *subspace.ends]:
        np.testing.assert_allclose(np.sum(subspace.coefficients(jnp.asarray(alpha, jnp.float32))), 1, rtol=1e-6)
    for i, j in [(0, 0), (2, 1), (4, 3)]:
        np.testing.assert_array_equal(np.asarray(weights)[i, j], subspace.coefficients(alphas[i, j]))


@every
def test_is_a_value(subspace):
    assert subspace == dataclasses.replace(subspace)
    assert hash(subspace) == hash(dataclasses.replace(subspace))
    assert sum(other == subspace for other in ALL) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        subspace.num_endpoints = 5


@every
def test_samples_are_a_function_of_the_key_and_inside_the_domain(subspace):
    samples = subspace.sample(jax.random.key(3), (1000,))
    np.testing.assert_array_equal(samples, subspace.sample(jax.random.key(3), (1000,)))
    assert np.all(samples >= 0)
    assert np.all(samples <= 1)
    if subspace.num_endpoints > 1:
        assert not np.any(samples == subspace.sample(jax.random.key(4), (1000,)))
        assert len(np.unique(samples, axis=0)) > 990  # float32 has 2^23 numbers: a tie or two may happen


@every
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_coefficients_keep_the_dtype_and_promote_nothing(subspace, dtype):
    with jax.numpy_dtype_promotion("strict"):
        weights = jax.jit(subspace.coefficients)(subspace.sample(jax.random.key(0), (3,)).astype(dtype))
    assert weights.dtype == dtype
    assert not weights.weak_type


@every
def test_float64_where_it_is_switched_on(subspace, x64):
    assert subspace.sample(jax.random.key(0)).dtype == jnp.float64
    assert subspace.coefficients(subspace.center).dtype == jnp.float64
    np.testing.assert_allclose(subspace.coefficients(subspace.center).sum(), 1, rtol=1e-15)


@pytest.mark.parametrize(
    ("subspace", "alpha", "weights"),
    [
        (Point(), 0.3, [1]),
        (Line(), 0, [1, 0]),
        (Line(), 1, [0, 1]),
        (Line(), 0.25, [0.75, 0.25]),
        (Line(), -0.05, [1.05, -0.05]),
        (Line(), 1.05, [-0.05, 1.05]),
        (Curve(), 0, [1, 0, 0]),
        (Curve(), 1, [0, 1, 0]),
        (Curve(), 0.25, [0.5625, 0.0625, 0.375]),  # the bend comes last
        (Curve(), -0.05, [1.1025, 0.0025, -0.105]),
        (Curve(), 1.05, [0.0025, 1.1025, -0.105]),
        (Curve(2), 0, [1, 0, 0, 0]),
        (Curve(2), 1, [0, 1, 0, 0]),
        (Curve(2), 0.25, [27 / 64, 1 / 64, 27 / 64, 9 / 64]),  # omega_3 is the bend next to omega_1
        (Chain(), 0, [1, 0, 0]),
        (Chain(), 1, [0, 1, 0]),
        (Chain(), 0.5, [0, 0, 1]),
        (Chain(), 0.25, [0.5, 0, 0.5]),
        (Chain(), -0.05, [1.1, 0, -0.1]),
        (Chain(), 1.05, [0, 1.1, -0.1]),
        (Chain(3), 0.25, [0, 0, 1, 0, 0]),  # omega_3 is the bend next to omega_1
        (Chain(3), 0.625, [0, 0, 0, 0.5, 0.5]),
        (Simplex(3), [0.5, 0.2, 0.3], [0.5, 0.2, 0.3]),
        (Simplex(3), [1.1, -0.05, -0.05], [1.1, -0.05, -0.05]),
    ],
)
def test_coefficients_by_hand(subspace, alpha, weights):
    actual = subspace.coefficients(jnp.asarray(alpha, jnp.float32))
    exactly = set(np.ravel(weights)) <= {0, 1}
    np.testing.assert_allclose(actual, weights, rtol=0 if exactly else 1e-6, atol=0 if exactly else 1e-7)


@pytest.mark.parametrize("num_bends", [1, 2, 3, 5])
@pytest.mark.parametrize("alpha", [-0.05, 0.0, 0.123, 0.5, 0.9, 1.0, 1.05])
def test_curve_is_de_casteljau(num_bends, alpha, x64):
    omega = np.random.default_rng(num_bends).normal(size=(num_bends + 2, 7))
    points = [omega[0], *omega[2:], omega[1]]  # from omega_1 over the bends to omega_2
    while len(points) > 1:
        points = [(1 - alpha) * a + alpha * b for a, b in itertools.pairwise(points)]
    actual = np.asarray(Curve(num_bends).coefficients(jnp.float64(alpha))) @ omega
    np.testing.assert_allclose(actual, points[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("num_bends", [1, 2, 5])
def test_chain_is_linear_interpolation(num_bends, x64):
    omega = np.random.default_rng(num_bends).normal(size=num_bends + 2)
    points = [omega[0], *omega[2:], omega[1]]
    for alpha in np.linspace(0, 1, 50):
        expected = np.interp(alpha, np.linspace(0, 1, num_bends + 2), points)
        np.testing.assert_allclose(Chain(num_bends).coefficients(jnp.float64(alpha)) @ omega, expected, atol=1e-13)


def test_centers():
    assert Line().center == 0.5
    assert Curve().center == 0.5
    np.testing.assert_array_equal(Line().coefficients(Line().center), [0.5, 0.5])
    np.testing.assert_array_equal(Curve().coefficients(Curve().center), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(Simplex(6).coefficients(Simplex(6).center), 1 / 6, rtol=1e-6)


N = 200_000


@pytest.mark.parametrize("subspace", [Line(), Curve(), Curve(3)], ids=repr)
def test_one_dimensional_samples_are_uniform(subspace):
    samples = np.sort(np.asarray(subspace.sample(jax.random.key(0), (N,)), np.float64))
    assert np.abs(samples - (np.arange(N) + 0.5) / N).max() < 2 / np.sqrt(N)  # Kolmogorov-Smirnov


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
def test_simplex_samples_are_uniform(m):
    """Moments and marginal of Dirichlet(1, ..., 1); normalised *uniform* variables have others (for m > 1)."""
    alpha = np.asarray(Simplex(m).sample(jax.random.key(1), (N,)), np.float64)
    np.testing.assert_allclose(alpha.sum(axis=1), 1, rtol=1e-6)
    tolerance = 5 / np.sqrt(N)
    np.testing.assert_allclose(alpha.mean(axis=0), 1 / m, atol=tolerance)
    second = (1 + np.eye(m)) / (m * (m + 1))
    np.testing.assert_allclose(alpha.T @ alpha / N, second, atol=tolerance / 2)
    np.testing.assert_allclose((alpha**3).mean(axis=0), 6 / (m * (m + 1) * (m + 2)), atol=tolerance / 2)
    if m > 1:
        for i in range(m):  # P(alpha_i > x) = (1 - x)^(m - 1)
            cdf = 1 - (1 - np.sort(alpha[:, i])) ** (m - 1)
            assert np.abs(cdf - (np.arange(N) + 0.5) / N).max() < 2 / np.sqrt(N)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Curve(0),
            r"Curve\(num_bends=0\): a curve has at least one bend and at most 98. Without a bend it is a Line\(\)",
        ),
        (
            lambda: Chain(0),
            r"Chain\(num_bends=0\): a chain has at least one bend and at most 98. Without a bend it is a Line\(\)",
        ),
        (lambda: Simplex(0), r"Simplex\(num_endpoints=0\): a simplex has at least one endpoint"),
        (lambda: Simplex(-2), r"Simplex\(num_endpoints=-2\)"),
    ],
)
def test_impossible_subspaces(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("subspace", [Line(), Curve(), Curve(3), Chain(2)])
def test_a_path_begins_and_ends_with_its_first_two_endpoints(subspace):
    assert subspaces.is_path(subspace)
    grid = subspace.grid(7)
    assert (grid[0], grid[3], grid[-1]) == (*subspace.ends[:1], float(subspace.center), *subspace.ends[1:])
    for row, end in enumerate(subspace.ends):
        expected = np.eye(subspace.num_endpoints)[row]
        np.testing.assert_array_equal(subspace.coefficients(jnp.float32(end)), expected)


def test_the_endpoints_of_a_hull_are_its_ends():
    assert all(map(subspaces.is_hull, [Line(), Simplex(1), Simplex(4), Patch()]))
    assert not any(map(subspaces.is_hull, [Point(), Curve(), Chain(2), Ring()]))
    assert not any(map(subspaces.is_path, [Point(), Simplex(2), Patch(), Ring()]))


@pytest.mark.parametrize("subspace", [Patch(), Ring()], ids=repr)
def test_subspaces_of_a_users_own_keep_the_protocol(subspace):
    test_the_protocol_holds(subspace)
