"""Points of a subspace: what interpolate, midpoint, init_endpoints and sample_alpha return."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import Curve, Line, Point, Simplex, positions

SUBSPACES = [Point(), Line(), Curve(), Curve(2), Simplex(2), Simplex(3)]


def random_endpoints(m, dtype=jnp.float32):
    rng = np.random.default_rng(m)
    return {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(m, 3, 2)), dtype)},
        "norm": {name: jnp.asarray(rng.normal(size=(m, 2)), dtype) for name in ("scale", "bias")},
    }


def init_fn(key):
    return {"kernel": jax.random.normal(key, (3, 2)), "scale": jnp.ones(2), "temperature": jax.random.normal(key)}


def test_endpoints_are_independent_initialisations():
    endpoints = jsubspace.init_endpoints(jax.random.key(5), init_fn, 3)
    assert {k: v.shape for k, v in endpoints.items()} == {"kernel": (3, 3, 2), "scale": (3, 2), "temperature": (3,)}
    for i, key in enumerate(jax.random.split(jax.random.key(5), 3)):
        np.testing.assert_allclose(endpoints["kernel"][i], init_fn(key)["kernel"], rtol=1e-6)
    assert len(np.unique(endpoints["kernel"])) == 18


def test_a_common_start():
    endpoints = jsubspace.init_endpoints(jax.random.key(5), init_fn, 3, common_start=True)
    assert {k: v.shape for k, v in endpoints.items()} == {"kernel": (3, 3, 2), "scale": (3, 2), "temperature": (3,)}
    for leaf in endpoints.values():
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    other = jsubspace.init_endpoints(jax.random.key(6), init_fn, 3, common_start=True)
    assert not np.any(other["kernel"] == endpoints["kernel"])


@pytest.mark.parametrize("common_start", [False, True])
def test_what_cannot_be_initialised(common_start):
    with pytest.raises(ValueError, match=r"num_endpoints is 0. A subspace has at least one endpoint"):
        jsubspace.init_endpoints(jax.random.key(0), init_fn, 0, common_start=common_start)
    with pytest.raises(ValueError, match=r"leaf \['step'\] has dtype int32, and only floating-point"):
        jsubspace.init_endpoints(
            jax.random.key(0), lambda key: {"step": jnp.zeros((), jnp.int32)}, 2, common_start=common_start
        )


@pytest.mark.parametrize("subspace", SUBSPACES, ids=repr)
@pytest.mark.parametrize("layerwise", [False, True])
def test_interpolate_against_numpy(subspace, layerwise, x64):
    endpoints = random_endpoints(subspace.num_endpoints, jnp.float64)
    alpha = positions.sample_alpha(jax.random.key(0), subspace, jsubspace.layers(endpoints) if layerwise else None)
    network = jsubspace.interpolate(endpoints, alpha, subspace)
    alphas = alpha if layerwise else jax.tree.map(lambda _: alpha, endpoints)

    def check(leaf, alpha, actual):
        weights = np.asarray(subspace.coefficients(alpha))
        np.testing.assert_allclose(actual, np.einsum("m,m...->...", weights, np.asarray(leaf)), rtol=1e-13)

    jax.tree.map(check, endpoints, alphas, network)


def test_two_argument_interpolate_on_a_line():
    endpoints = {"w": jnp.array([[0.0, 10.0], [1.0, 20.0]])}
    for alpha in (0, 0.25, 1, -0.05, 1.05, jnp.float32(0.25), np.float64(0.25), jnp.bfloat16(0.25)):
        expected = (1 - float(alpha)) * np.array([0.0, 10.0]) + float(alpha) * np.array([1.0, 20.0])
        network = jsubspace.interpolate(endpoints, alpha)
        np.testing.assert_allclose(network["w"], expected, rtol=1e-6)
        assert network["w"].dtype == jnp.float32
        assert not network["w"].weak_type


def test_two_argument_interpolate_with_weights():
    endpoints = {"w": jnp.array([[1.0], [10.0], [100.0]])}
    np.testing.assert_allclose(jsubspace.interpolate(endpoints, jnp.array([0.5, 0.3, 0.2]))["w"], [23.5], rtol=1e-6)
    np.testing.assert_allclose(jsubspace.interpolate(endpoints, [0, 0, 1])["w"], [100.0])
    line = {"w": jnp.array([[1.0], [10.0]])}
    np.testing.assert_allclose(jsubspace.interpolate(line, [0.75, 0.25])["w"], [3.25])


def test_an_array_alone_is_a_network():
    np.testing.assert_allclose(jsubspace.interpolate(jnp.array([[0.0, 2.0], [1.0, 4.0]]), 0.5), [0.5, 3.0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize(("subspace", "corners"), [(Line(), [0, 1]), (Curve(), [0, 1]), (Simplex(3), np.eye(3))])
def test_corners_are_the_endpoints_in_every_dtype(dtype, subspace, corners, x64):
    endpoints = random_endpoints(subspace.num_endpoints, dtype)
    interpolate = jax.jit(jsubspace.interpolate, static_argnums=2)
    with jax.numpy_dtype_promotion("strict"):
        networks = [interpolate(endpoints, jnp.asarray(alpha, jnp.float32), subspace) for alpha in corners]
    for i, network in enumerate(networks):
        for actual, leaf in zip(jax.tree.leaves(network), jax.tree.leaves(endpoints), strict=True):
            assert actual.dtype == dtype
            assert actual.tobytes() == np.asarray(leaf)[i].tobytes()


def test_alpha_is_not_rounded_to_a_narrow_leaf():
    """(1 - a) + a = 1 in float32; with alpha in bfloat16 the two weights of 0.001 would not add up."""
    endpoints = {"w": jnp.full((2, 4), 3.0, jnp.bfloat16)}
    np.testing.assert_array_equal(jsubspace.interpolate(endpoints, 0.001)["w"].astype(jnp.float32), 3.0)
    apart = {"w": jnp.array([[0.0], [256.0]], jnp.bfloat16)}
    assert jsubspace.interpolate(apart, 0.99)["w"].astype(jnp.float32).item() == 253.0  # 253.44; bfloat16(0.99): 254


@pytest.mark.parametrize(
    ("m", "alpha", "subspace", "message"),
    [
        (3, 0.5, None, r"alpha of shape \[\] does not say where in a subspace with 3 endpoints.*Curve\(\)"),
        (3, [0.5, 0.5], None, r"alpha of shape \[2\] does not say where.* of shape \[3\]"),
        (1, 0.5, None, "alpha of shape .* with 1 endpoints"),
        (2, [0.5, 0.5], Line(), r"alpha has shape \[2\] but Line\(\) takes \[\]"),
        (3, 0.5, Simplex(3), r"alpha has shape \[\] but Simplex\(num_endpoints=3\) takes \[3\]"),
        (2, 0.5, Curve(), r"Curve\(num_bends=1\) has 3 endpoints but the parameters have 2"),
        (2, {"w": 0.5}, None, "alpha is a dict .* a tree like the endpoints with one alpha per leaf .*it lacks leaf"),
    ],
)
def test_alphas_that_do_not_fit(m, alpha, subspace, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.interpolate(random_endpoints(m), alpha if isinstance(alpha, dict) else jnp.array(alpha), subspace)


def test_midpoint():
    endpoints = {"w": jnp.array([[1.0], [10.0], [100.0]])}
    np.testing.assert_allclose(jsubspace.midpoint(endpoints)["w"], [37.0], rtol=1e-6)
    np.testing.assert_allclose(jsubspace.midpoint(endpoints, Curve())["w"], [0.25 + 2.5 + 50.0], rtol=1e-6)
    np.testing.assert_allclose(jsubspace.midpoint({"w": jnp.array([[1.0], [10.0]])})["w"], [5.5])
    np.testing.assert_array_equal(jsubspace.midpoint({"w": jnp.array([[7.0]])}, Point())["w"], [7.0])
    with pytest.raises(ValueError, match=r"Line\(\) has 2 endpoints but the parameters have 3"):
        jsubspace.midpoint(endpoints, Line())


@pytest.mark.parametrize("subspace", SUBSPACES, ids=repr)
@pytest.mark.parametrize("num_samples", [None, 1, 4])
def test_shapes_of_alpha(subspace, num_samples):
    leading = () if num_samples is None else (num_samples,)
    endpoints = random_endpoints(subspace.num_endpoints)
    layers = jsubspace.layers(endpoints)
    shape = (*leading, *subspace.alpha_shape)
    assert positions.sample_alpha(jax.random.key(0), subspace, num_samples=num_samples).shape == shape
    layerwise = positions.sample_alpha(jax.random.key(0), subspace, layers, num_samples)
    assert jax.tree.structure(layerwise) == jax.tree.structure(endpoints)
    assert all(leaf.shape == shape for leaf in jax.tree.leaves(layerwise))


def test_leaves_of_a_layer_share_their_alpha_and_layers_do_not():
    layers = jsubspace.layers(random_endpoints(2))
    sample = jax.jit(lambda key: positions.sample_alpha(key, Line(), layers))
    alphas = jax.vmap(sample)(jax.random.split(jax.random.key(0), 20_000))
    conv, scale, bias = alphas["conv"]["kernel"], alphas["norm"]["scale"], alphas["norm"]["bias"]
    np.testing.assert_array_equal(scale, bias)
    assert abs(np.corrcoef(conv, scale)[0, 1]) < 0.03  # independent
    for draws in (conv, scale):
        np.testing.assert_allclose([np.mean(draws), np.var(draws)], [1 / 2, 1 / 12], atol=0.01)


def test_samples_of_a_step_are_independent():
    a, b = jax.vmap(lambda key: positions.sample_alpha(key, Line(), num_samples=2))(
        jax.random.split(jax.random.key(0), 20_000)
    ).T
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03


def test_a_new_alpha_is_not_a_new_trace():
    traces = []

    @jax.jit
    def network(endpoints, alpha):
        traces.append(alpha)
        return jsubspace.interpolate(endpoints, alpha)

    endpoints = random_endpoints(2)
    for alpha in jnp.linspace(-0.05, 1.05, 4):
        network(endpoints, alpha)
    assert len(traces) == 1


@pytest.mark.parametrize("weights", [[0.5, 0.2], [1.0, 1.0], [0.0, 0.0], [float("nan"), 1.0], [0.333, 0.666]])
def test_weights_that_do_not_sum_to_one_are_refused(weights):
    endpoints = {"kernel": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match=r"the weights of the endpoints must sum to 1, but .*Divide them by their sum"):
        jsubspace.interpolate(endpoints, jnp.array(weights))
    jsubspace.interpolate(endpoints, jnp.array([1.5, -0.5]))  # extrapolates
    jsubspace.interpolate(endpoints, jnp.array([0.333, 0.667], jnp.bfloat16))  # 1.002, as exact as bfloat16 is


@pytest.mark.parametrize("subspace", SUBSPACES, ids=repr)
def test_extrapolated_weights_still_sum_to_one(subspace):
    endpoints = {"kernel": jnp.ones((subspace.num_endpoints, 3))}
    for distance in (-3.0, 30.0):
        alpha = subspace.center * (1 - distance) + distance * subspace.sample(jax.random.key(0))
        np.testing.assert_allclose(jsubspace.interpolate(endpoints, alpha, subspace)["kernel"], 1, rtol=2e-3)


def test_a_subspace_of_a_users_own_is_checked_too():
    class Twice(jsubspace.Line):
        def coefficients(self, alpha):
            return 2 * super().coefficients(alpha)

    with pytest.raises(ValueError, match=r"Twice\(\) the weights \[1.0, 1.0\] sum to 2"):
        jsubspace.interpolate({"kernel": jnp.ones((2, 3))}, 0.5, Twice())


def test_a_subspace_says_how_many_endpoints():
    by_number = jsubspace.init_endpoints(jax.random.key(5), init_fn, 3)
    jax.tree.map(
        np.testing.assert_array_equal, by_number, jsubspace.init_endpoints(jax.random.key(5), init_fn, Curve())
    )


@pytest.mark.parametrize(("old", "new"), [("num_endpoints", "called subspace"), ("x", "argument x")])
def test_old_names_of_arguments_are_refused(old, new):
    with pytest.raises(TypeError, match=new):
        jsubspace.init_endpoints(jax.random.key(0), init_fn, 2, **{old: 2})
