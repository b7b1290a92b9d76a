"""The penalty: cos^2 of whole vectors, its closed-form gradient, and which pairs are drawn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import leaf_kinds, penalties

COUNTING = [None, jsubspace.all_leaves, {"a": {"kernel": False, "bias": True}, "b": {"kernel": True}}]


def random_endpoints(m, dtype=jnp.float64):
    """Correlated endpoints whose leaves differ in size and scale: a mean over leaves is not the whole vector's."""
    rng = np.random.default_rng(m)

    def leaf(scale, *shape):
        return jnp.asarray(scale * (0.5 * rng.normal(size=shape) + rng.normal(size=(m, *shape))), dtype)

    return {"a": {"kernel": leaf(1.0, 4, 3), "bias": leaf(2.0, 3)}, "b": {"kernel": leaf(0.3, 3, 5)}}


def vectors(endpoints, mask):
    """``[m, n]``: the counting leaves of each endpoint as one numpy vector."""
    leaves = {"ak": endpoints["a"]["kernel"], "ab": endpoints["a"]["bias"], "bk": endpoints["b"]["kernel"]}
    names = {None: ("ak", "bk"), jsubspace.all_leaves: ("ak", "ab", "bk")}.get(
        mask if mask is None or callable(mask) else 0, ("ab", "bk")
    )
    return np.concatenate([np.asarray(leaves[n], np.float64).reshape(len(leaves[n]), -1) for n in names], axis=1)


@pytest.mark.parametrize("mask", COUNTING)
@pytest.mark.parametrize("m", [2, 3, 4])
def test_cosines_and_distances_against_numpy(m, mask, x64):
    endpoints = random_endpoints(m)
    flat = vectors(endpoints, mask)
    norms = np.linalg.norm(flat, axis=1)
    cosines = (flat @ flat.T / np.outer(norms, norms)) ** 2
    rows = list(itertools.permutations(range(m), 2))[-6:]

    @jax.jit
    def measures(endpoints):
        return (
            jsubspace.cosines_squared(endpoints, mask),
            jsubspace.mean_cosine_squared(endpoints, mask),
            [jsubspace.cosine_squared(endpoints, j, k, mask) for j, k in rows],
            jsubspace.distances(endpoints, mask),
        )

    found, mean, of_rows, found_distances = measures(endpoints)
    np.testing.assert_allclose(found, cosines, rtol=1e-12)
    above = np.triu_indices(m, 1)
    np.testing.assert_allclose(mean, cosines[above].mean(), rtol=1e-12)
    np.testing.assert_allclose(of_rows, [cosines[pair] for pair in rows], rtol=1e-12)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.testing.assert_allclose(found_distances, distances, rtol=1e-12)


def test_cosine_with_traced_rows():
    endpoints = random_endpoints(3, jnp.float32)
    traced = jax.jit(jsubspace.cosine_squared)
    known = jax.jit(lambda endpoints: jsubspace.cosine_squared(endpoints, 2, 0))(endpoints)
    np.testing.assert_allclose(traced(endpoints, 2, 0), known, rtol=1e-6)
    for missing in (-1, 3):  # jax would silently use the last or the first row.
        assert np.isnan(traced(endpoints, 0, missing))


def test_distances_of_close_endpoints_do_not_cancel():
    """|a|^2 + |b|^2 - 2<a, b> in float32 has an error of 1e-7 |a|^2 = 0.1 here."""
    a = np.full((1000, 1), 32.0, np.float32)
    endpoints = {"kernel": jnp.asarray(np.stack([a, a + np.float32(2.0**-10)]))}
    np.testing.assert_allclose(jax.jit(jsubspace.distances)(endpoints)[0, 1], 2.0**-10 * 1000**0.5, rtol=1e-6)


def test_an_endpoint_has_no_distance_from_itself_whatever_it_holds():
    found = jsubspace.distances({"kernel": jnp.array([[[jnp.nan]], [[1.0]], [[jnp.inf]]])})
    np.testing.assert_array_equal(jnp.diagonal(found), 0)
    assert not np.isfinite(found[~np.eye(3, dtype=bool)]).any()


def test_bfloat16_endpoints_are_compared_in_float32():
    signs = np.ones((2, 4000, 1), np.float32)
    signs[1, :1000] = -1
    endpoints = {"kernel": jnp.asarray(signs.astype(jnp.bfloat16))}
    with jax.numpy_dtype_promotion("strict"):
        cosine, distances = jax.jit(lambda e: (jsubspace.cosine_squared(e, 0, 1), jsubspace.distances(e)))(endpoints)
    np.testing.assert_allclose(cosine, 0.25, rtol=1e-6)
    np.testing.assert_allclose(distances[0, 1], 4000**0.5, rtol=1e-6)
    assert distances.dtype == jnp.float32


def test_limits():
    cosines_squared = jax.jit(jsubspace.cosines_squared)
    direction = np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32)
    parallel = {"kernel": jnp.asarray(np.stack([direction, -3 * direction, np.float32(0.1) * direction]))}
    np.testing.assert_allclose(cosines_squared(parallel), 1.0, rtol=1e-5)
    orthogonal = {"kernel": jnp.asarray(np.eye(2, dtype=np.float32)[:, None])}
    np.testing.assert_array_equal(cosines_squared(orthogonal), np.eye(2))
    np.testing.assert_array_equal(jax.jit(jsubspace.distances)({"kernel": np.ones((1, 2, 2), np.float32)}), [[0.0]])


@pytest.mark.parametrize("zeros", [(0,), (0, 1), (0, 1, 2)])
def test_zero_vectors_are_orthogonal_to_everything_and_have_no_gradient(zeros):
    kept = np.array([i not in zeros for i in range(3)])
    endpoints = jax.tree.map(
        lambda leaf: jnp.asarray(np.where(kept.reshape(3, *(1,) * (leaf.ndim - 1)), leaf, np.float32(0))),
        random_endpoints(3, jnp.float32),
    )
    cosines, by_jax = cosines_and_gradient(endpoints)
    assert np.all(np.asarray(cosines)[list(zeros)] == 0)
    for grads in (by_jax, closed_form_of_all(endpoints)):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
        assert all(np.all(np.asarray(leaf)[list(zeros)] == 0) for leaf in jax.tree.leaves(grads))


@jax.jit
def cosines_and_gradient(endpoints):
    return jsubspace.cosines_squared(endpoints), jax.grad(jsubspace.mean_cosine_squared)(endpoints)


@jax.jit
def closed_form_of_all(endpoints):
    return closed_form(endpoints, (0, 1, 2), leaf_kinds.kernels(endpoints))


def closed_form(endpoints, chosen, mask, beta=1.0):
    nothing = jax.tree.map(jnp.zeros_like, endpoints)
    return penalties.penalty(endpoints, chosen, mask).add_gradient(nothing, endpoints, beta)


@pytest.mark.parametrize("mask", COUNTING)
@pytest.mark.parametrize("m", [2, 3, 5, 8, 9, 20])
def test_closed_form_gradient_is_the_derivative(m, mask, x64):
    endpoints = random_endpoints(m)
    counts = leaf_kinds.resolve_mask(mask, endpoints)
    mean = jax.jit(lambda e: jsubspace.mean_cosine_squared(e, mask))

    @jax.jit
    def gradients(endpoints):
        return closed_form(endpoints, tuple(range(m)), counts), jax.grad(mean)(endpoints)

    grads, expected = gradients(endpoints)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-15), grads, expected)

    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), endpoints)

    def along(t):
        return float(mean(jax.tree.map(lambda e, d: np.asarray(e) + t * d, endpoints, direction)))

    slope = sum(float(np.vdot(g, d)) for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True))
    np.testing.assert_allclose(slope, (along(1e-5) - along(-1e-5)) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize("traced", [False, True])
def test_gradient_of_one_pair(traced, x64):
    endpoints = random_endpoints(4)
    counts = leaf_kinds.kernels(endpoints)

    @jax.jit
    def gradients(endpoints, row, other):
        pair = (row, other) if traced else (3, 1)
        by_jax = jax.grad(lambda e: 2.0 * jsubspace.cosine_squared(e, 3, 1))(endpoints)
        return closed_form(endpoints, pair, counts, beta=2.0), by_jax

    grads, expected = gradients(endpoints, 3, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-16), grads, expected)
    for leaf in jax.tree.leaves(grads):
        np.testing.assert_array_equal(np.asarray(leaf)[[0, 2]], 0)  # the others feel nothing
    np.testing.assert_array_equal(grads["a"]["bias"], 0)  # the mask is heeded


def test_pairs_average_to_the_exact_mean(x64):
    """Equation 5 is the expectation of Algorithm 1's one pair, in value and in gradient."""
    endpoints = random_endpoints(4)
    counts = leaf_kinds.kernels(endpoints)
    pairs = list(itertools.combinations(range(4), 2))

    @jax.jit
    def value_and_gradient(endpoints, *chosen):
        return penalties.penalty(endpoints, chosen, counts).value, closed_form(endpoints, chosen, counts)

    exact, exact_grads = value_and_gradient(endpoints, 0, 1, 2, 3)
    each = [value_and_gradient(endpoints, *pair) for pair in pairs]
    np.testing.assert_allclose(np.mean([value for value, _ in each]), exact, rtol=1e-12)
    mean_of_grads = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *[grads for _, grads in each])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-15), mean_of_grads, exact_grads)


def test_the_penalty_turns_and_does_not_stretch(x64):
    """cos^2 does not depend on lengths: the gradient is orthogonal to each endpoint."""
    endpoints = random_endpoints(3)
    grads, endpoints = jax.device_get((closed_form_of_all(endpoints), endpoints))
    for i in range(3):
        dots = [float(np.vdot(g[i], e[i])) for g, e in zip(*map(jax.tree.leaves, (grads, endpoints)), strict=True)]
        assert abs(sum(dots)) < 1e-14
        assert max(map(abs, dots)) > 1e-4  # not leaf by leaf


def test_gradient_is_added_in_the_gradients_dtype():
    endpoints = random_endpoints(2, jnp.bfloat16)

    def gradient(endpoints):
        return jax.jit(lambda e: closed_form(e, (0, 1), leaf_kinds.kernels(e)))(endpoints)

    with jax.numpy_dtype_promotion("strict"):
        grads = gradient(endpoints)
    exact = gradient(jax.tree.map(lambda e: np.asarray(e, np.float32), endpoints))
    for actual, expected in zip(jax.tree.leaves(grads), jax.tree.leaves(exact), strict=True):
        assert actual.dtype == jnp.bfloat16
        np.testing.assert_array_equal(actual, np.asarray(expected).astype(jnp.bfloat16))  # rounded once


@pytest.mark.parametrize("m", [3, 4, 6])
def test_pairs_are_uniform_over_unordered_pairs(m):
    n = 30_000
    keys = jax.random.split(jax.random.key(0), n)
    j, k = map(np.asarray, jax.jit(jax.vmap(lambda key: penalties.sample_pair(key, m)))(keys))
    assert not np.any(j == k)
    assert j.min() >= 0
    assert max(j.max(), k.max()) < m
    pairs, counts = np.unique(np.sort(np.stack([j, k]), axis=0), axis=1, return_counts=True)
    num_pairs = m * (m - 1) // 2
    assert pairs.shape[1] == num_pairs
    np.testing.assert_allclose(counts / n, 1 / num_pairs, atol=5 * (1 / num_pairs / n) ** 0.5)


@pytest.mark.parametrize("m", [3, 7, 40])
def test_pairs_are_those_of_a_list_of_all_pairs(m):
    """One draw numbers the pairs of `itertools.combinations`, so that a key gives the pair that it always gave."""
    pairs = np.array(list(itertools.combinations(range(m), 2)))

    @jax.jit
    @jax.vmap
    def drawn(key):
        return jnp.stack(penalties.sample_pair(key, m)), jax.random.randint(key, (), 0, len(pairs))

    found, numbers = drawn(jax.random.split(jax.random.key(1), 500))
    np.testing.assert_array_equal(found, pairs[numbers])


def test_the_penalty_on_all_pairs_of_many_endpoints_is_a_small_program():
    """Its size grows with m. A program with a sum for every pair would grow with m^2."""

    def size(m):
        endpoints = jax.eval_shape(lambda: random_endpoints(m, jnp.float32))
        lower = jax.jit(lambda e: closed_form(e, tuple(range(m)), leaf_kinds.kernels(e))).lower(endpoints)
        return len(lower.as_text().splitlines())

    assert size(64) < 2.5 * size(32)


def test_two_endpoints_have_one_pair_and_draw_nothing():
    assert penalties.sample_pair(jax.random.key(0), 2) == (0, 1)


def test_penalties_that_do_not_exist():
    with pytest.raises(ValueError, match="sample_pair: 1 endpoint has no pair"):
        penalties.sample_pair(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="one endpoint has no pair, and the penalty needs two endpoints"):
        jsubspace.mean_cosine_squared({"kernel": jnp.ones((1, 2, 2))})
    with pytest.raises(ValueError, match="the mask has the structure"):
        jsubspace.cosine_squared(random_endpoints(2, jnp.float32), 0, 1, {"a": True})
    with pytest.raises(ValueError, match="the mask leaves out every leaf"):
        jsubspace.distances({"bias": jnp.ones((2, 3))})
