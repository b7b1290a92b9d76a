"""Stacked-axis arithmetic: exact at corners, adjoint to each other, and the same as numpy in between."""

import equinox
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import inner_products, layer_names, leaf_kinds, tree

DTYPES = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64]


def random_endpoints(m, dtype=jnp.float32, seed=0):
    """Leaves over many orders of magnitude, where a rounding would show."""
    rng = np.random.default_rng(seed)

    def leaf(*shape):
        return jnp.asarray(rng.normal(size=(m, *shape)) * 10.0 ** rng.integers(-3, 3, size=(m, *shape)), dtype)

    return {"conv": {"kernel": leaf(3, 3, 2, 5)}, "norm": [leaf(5), leaf(5)], "scalar": leaf()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 5])
def test_corners_are_the_endpoints_bit_for_bit(m, dtype, x64):
    endpoints = random_endpoints(m, dtype)
    contract = jax.jit(tree.contract)
    for i in range(m):
        corner = contract(endpoints, np.eye(m, dtype=np.float32)[i])
        for actual, leaf in zip(jax.tree.leaves(corner), jax.tree.leaves(endpoints), strict=True):
            assert actual.dtype == dtype
            assert actual.tobytes() == np.asarray(leaf)[i].tobytes()


def test_contract_and_spread_use_no_matrix_unit():
    """A dot may round its float32 inputs to bfloat16 or TF32 on accelerators, and P(corner) with them."""
    endpoints, weights = random_endpoints(3), jnp.ones(3) / 3
    point = tree.contract(endpoints, weights)
    mask = jax.tree.map(lambda _: True, point)
    programs = [
        jax.make_jaxpr(tree.contract)(endpoints, weights),
        jax.make_jaxpr(tree.pull_back)(point, weights),
        jax.make_jaxpr(lambda a, b: inner_products.inner(a, b, mask))(point, point),
    ]
    for program in programs:
        assert "mul" in str(program)
        assert "dot_general" not in str(program)


@pytest.mark.parametrize("dtype", DTYPES)
def test_contract_against_numpy(dtype, x64):
    """Accumulated in float32 or wider and rounded once."""
    endpoints, weights = random_endpoints(3, dtype), jnp.array([0.2, -0.3, 1.1])
    with jax.numpy_dtype_promotion("strict"):
        point = tree.contract(endpoints, weights)
    tolerance = 2 * float(jnp.finfo(dtype).eps)
    for leaf, actual in zip(jax.tree.leaves(endpoints), jax.tree.leaves(point), strict=True):
        assert actual.dtype == dtype
        wide = np.asarray(leaf, np.float64)
        expected = np.einsum("m,m...->...", np.asarray(weights), wide)
        magnitude = np.einsum("m,m...->...", np.abs(weights), np.abs(wide))
        assert np.all(np.abs(np.asarray(actual, np.float64) - expected) <= tolerance * magnitude)


def test_a_layerwise_tree_of_weights_reaches_its_own_leaf():
    endpoints = random_endpoints(2)
    picks = {"conv": {"kernel": 0}, "norm": [1, 0], "scalar": 1}
    point = tree.contract(endpoints, jax.tree.map(lambda i: jnp.eye(2)[i], picks))
    expected = jax.tree.map(lambda leaf, i: leaf[i], endpoints, picks)
    jax.tree.map(np.testing.assert_array_equal, point, expected)
    back = tree.pull_back(point, jax.tree.map(lambda i: jnp.eye(2)[i], picks))
    jax.tree.map(lambda b, p, i: np.testing.assert_array_equal(b[i], p), back, point, picks)
    jax.tree.map(lambda b, i: np.testing.assert_array_equal(b[1 - i], 0), back, picks)


def test_spread_is_the_transpose_of_contract(x64):
    endpoints, weights = random_endpoints(3, jnp.float64), jnp.array([0.2, 0.3, 0.5])
    point, pull_back = jax.vjp(lambda e: tree.contract(e, weights), endpoints)
    direction = jax.tree.map(lambda leaf: leaf + 1.0, point)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-15),
        tree.pull_back(direction, weights),
        pull_back(direction)[0],
    )


def test_inner_products_are_those_of_one_vector(x64):
    a, b, c = tree.unstack(random_endpoints(3, jnp.float64))
    mask = {"conv": {"kernel": True}, "norm": [False, True], "scalar": False}

    def vector(network):
        return np.concatenate([np.ravel(network["conv"]["kernel"]), np.ravel(network["norm"][1])])

    np.testing.assert_allclose(inner_products.inner(a, b, mask), vector(a) @ vector(b), rtol=1e-12)
    vectors = np.stack([vector(network) for network in (a, b, c)])
    gram = inner_products.gram([a, b, c], mask)
    np.testing.assert_allclose(gram, vectors @ vectors.T, rtol=1e-12)
    np.testing.assert_array_equal(gram, gram.T)


def test_inner_products_of_bfloat16_are_taken_in_float32():
    ones = {"kernel": jnp.ones((300, 10), jnp.bfloat16)}  # bfloat16 counts to 256
    product = inner_products.inner(ones, ones, {"kernel": True})
    assert product.dtype == jnp.float32
    assert product == 3000


def test_stack_and_unstack_are_inverse():
    endpoints = random_endpoints(3)
    jax.tree.map(np.testing.assert_array_equal, tree.stack(tree.unstack(endpoints)), endpoints)
    assert len(tree.unstack(endpoints)) == tree.num_endpoints(endpoints) == 3
    networks = [{"w": jnp.full(2, i, jnp.bfloat16)} for i in range(4)]
    assert tree.stack(networks)["w"].dtype == jnp.bfloat16
    assert [n["w"].tolist() for n in tree.unstack(tree.stack(networks))] == [[i, i] for i in range(4)]


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ([], "stack: no networks were given"),
        (
            [{"a": jnp.ones(2)}, {"b": jnp.ones(2)}],
            r"stack: network 1 has the structure of another network than network 0: it lacks leaf \['a'\]",
        ),
        (
            [{"a": jnp.ones(2)}, {"a": jnp.ones(2)}, {"a": jnp.ones(3)}],
            r"leaf \['a'\] is float32\[2\] in network 0 but float32\[3\] in network 2",
        ),
        (
            [{"a": jnp.ones(2)}, {"a": jnp.ones(2, jnp.bfloat16)}],
            r"leaf \['a'\] is float32\[2\] in network 0 but bfloat16\[2\] in network 1",
        ),
    ],
)
def test_networks_that_do_not_stack(networks, message):
    with pytest.raises(ValueError, match=message):
        tree.stack(networks)


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        ({}, "the endpoints have no leaves"),
        ({"a": jnp.ones(2), "b": jnp.ones(())}, r"leaf \['b'\] is a scalar without an endpoint axis"),
        (jnp.ones(()), r"leaf \(the array itself\) is a scalar"),
        ({"a": jnp.ones((0, 2))}, "the endpoint axis has length 0"),
        ({"a": jnp.ones(2), "n": jnp.arange(2)}, r"leaf \['n'\] has dtype int32, and only floating-point leaves"),
        (
            {"conv1": {"kernel": jnp.ones((3, 4))}, "head": {"bias": jnp.ones(2)}},
            r"leaf \['conv1'\]\['kernel'\] has 3 endpoints but \['head'\]\['bias'\] has 2. Stack the same number",
        ),
    ],
)
def test_trees_that_are_no_endpoints(endpoints, message):
    with pytest.raises(ValueError, match=message):
        tree.num_endpoints(endpoints)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.Dense(2, name="dense")(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dense = nnx.Linear(2, 2, rngs=rngs)


class Equinox(equinox.Module):
    conv: equinox.nn.Conv2d
    norm: equinox.nn.GroupNorm
    dense: equinox.nn.Linear

    def __init__(self, key):
        self.conv = equinox.nn.Conv2d(1, 2, 3, key=key)
        self.norm = equinox.nn.GroupNorm(1, 2)
        self.dense = equinox.nn.Linear(2, 2, key=key)


def linen(key):
    return Linen().init(key, jnp.ones((1, 4, 4, 1)))["params"]


def nnx_state(key):
    return nnx.state(Nnx(nnx.Rngs(key)), nnx.Param)


def equinox_arrays(key):
    return equinox.filter(Equinox(key), equinox.is_inexact_array)


@pytest.mark.parametrize("init", [linen, nnx_state, equinox_arrays])
def test_layers_and_kernels_of_other_libraries(init):
    """A convolution and its normalisation are two layers, their own parameters share one; only kernels count."""
    endpoints = jsubspace.init_endpoints(jax.random.key(0), init, 2)
    layers = jax.tree_util.tree_leaves_with_path(layer_names.layers(endpoints))
    owners = [next(n for n in ("conv", "norm", "dense") if n in jax.tree_util.keystr(path)) for path, _ in layers]
    names = [name for _, name in layers]
    assert len(names) == 6
    assert len(set(names)) == 3
    assert len(set(zip(owners, names, strict=True))) == 3  # one name an owner, one owner a name
    counting = [
        jax.tree_util.keystr(path)
        for path, counts in jax.tree_util.tree_leaves_with_path(leaf_kinds.kernels(endpoints))
        if counts
    ]
    assert len(counting) == 2
    assert all("kernel" in path or "weight" in path for path in counting)


def test_kernels_and_all_leaves():
    endpoints = {"embedding": jnp.ones((2, 7, 3)), "scale": jnp.ones((2, 3, 3)), "bias": jnp.ones((2, 3, 1, 1))}
    assert leaf_kinds.kernels(endpoints) == {"embedding": True, "scale": False, "bias": False}
    assert leaf_kinds.all_leaves(endpoints) == {"embedding": True, "scale": True, "bias": True}
    assert leaf_kinds.kernels(jnp.ones((2, 3, 3))) is True


def test_resolve_mask():
    endpoints = {"kernel": jnp.ones((2, 3, 3)), "bias": jnp.ones((2, 3))}
    assert leaf_kinds.resolve_mask(None, endpoints) == {"kernel": True, "bias": False}
    assert leaf_kinds.resolve_mask(leaf_kinds.all_leaves, endpoints) == {"kernel": True, "bias": True}
    only_bias = {"kernel": False, "bias": True}
    assert leaf_kinds.resolve_mask(only_bias, endpoints) == only_bias
    with pytest.raises(
        ValueError,
        match=r"the mask has the structure of another tree than the endpoints: it lacks leaf .* one bool per leaf",
    ):
        leaf_kinds.resolve_mask({"kernel": True}, endpoints)
    with pytest.raises(ValueError, match=r"the mask leaves out every leaf.*mask=jsubspace.all_leaves"):
        leaf_kinds.resolve_mask(None, {"bias": jnp.ones((2, 3))})
