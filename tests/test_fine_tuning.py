"""Deltas are endpoints around a base: they start as the base, train as whole weights around an origin, and decay to the base."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jsubspace
from jsubspace import Line, Simplex

KEY = jax.random.key(7)


def base_network(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        "kernel": jnp.asarray(rng.normal(size=(8, 5)), dtype),
        "scale": jnp.asarray(1 + rng.normal(size=5), dtype),
        "bias": jnp.zeros(5, dtype),
    }


def loss_fn(point, x, y):
    return jnp.mean((jnp.tanh(x @ point["kernel"] + point["bias"]) * point["scale"] - y) ** 2)


def loss_of_delta(delta, base, x, y):
    return loss_fn(jax.tree.map(jnp.add, base, delta), x, y)


def batch(n=24):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(n, 8)), float), jnp.asarray(rng.normal(size=(n, 5)), float)


def close(actual, expected, rtol=1e-10, atol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


@pytest.mark.parametrize("subspace", [1, Line(), Simplex(3), 4], ids=repr)
def test_every_endpoint_starts_as_the_base(subspace):
    base = base_network()
    start = jsubspace.deltas(base, subspace)
    m = subspace if isinstance(subspace, int) else subspace.num_endpoints
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(lambda leaf: (m, *leaf.shape), base)
    close(jsubspace.midpoint(start), jax.tree.map(jnp.zeros_like, base), atol=0)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_deltas_train_as_whole_weights_around_an_origin(num_samples, x64):
    """The steps of Adam from random deltas, and from whole weights with an origin, reach the same networks."""
    base, data, subspace = base_network(float), batch(), Simplex(3)
    of_delta = jsubspace.value_and_grad(
        loss_of_delta, subspace, num_samples=num_samples, batch_argnums=(1, 2), all_pairs=True
    )
    of_whole = jsubspace.value_and_grad(
        loss_fn, subspace, num_samples=num_samples, origin=base, all_pairs=True, mask=jsubspace.kernels
    )
    tx = optax.adam(0.05)

    @jax.jit
    def train(base):
        delta = jsubspace.deltas(base, subspace, key=KEY, scale=0.1)
        whole = jax.tree.map(jnp.add, delta, base)

        def step(carry, number):
            delta, whole, states = carry
            key = jax.random.fold_in(KEY, number)
            for_delta = of_delta(key, delta, base, *data)[1]
            update, first = tx.update(for_delta, states[0])
            delta = optax.apply_updates(delta, update)
            update, second = tx.update(of_whole(key, whole, *data)[1], states[1])
            return (delta, optax.apply_updates(whole, update), (first, second)), None

        start = delta, whole, (tx.init(delta), tx.init(whole))
        trained, expected, _ = jax.lax.scan(step, start, jnp.arange(5))[0]
        return delta, jax.tree.map(jnp.add, trained, base), expected, trained

    delta, trained_whole, expected, trained = train(base)
    close(trained_whole, expected, rtol=1e-8, atol=1e-9)
    assert np.abs(trained["kernel"] - delta["kernel"]).max() > 0.1


def test_decay_pulls_to_the_base():
    """Without a gradient, the decay of AdamW shrinks the deltas. It would shrink whole weights to zero."""
    base = base_network()
    tx = optax.adamw(0.1, weight_decay=1.0)

    @jax.jit
    def found_and_expected(base):
        delta = jsubspace.deltas(base, Line(), key=KEY, scale=0.1)
        update, _ = tx.update(jax.tree.map(jnp.zeros_like, delta), tx.init(delta), delta)
        network = jax.tree.map(jnp.add, jsubspace.midpoint(optax.apply_updates(delta, update)), base)
        return network, jax.tree.map(lambda b, d: b + 0.9 * d, base, jsubspace.midpoint(delta))

    close(*found_and_expected(base), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("start", [{}, {"key": KEY, "scale": 0.01}], ids=["zeros", "random"])
def test_the_penalty_acts_on_random_deltas_alone(start):
    """Zeros have no direction. The penalty's value and gradient are zero there, and not NaN."""
    base, data = base_network(), batch()

    @jax.jit
    def with_and_without_penalty(base):
        delta = jsubspace.deltas(base, Line(), **start)
        at = jsubspace.value_and_grad_at
        return [at(loss_of_delta, Line(), beta=beta)(0.5, (0, 1), delta, base, *data) for beta in (1.0, 0)]

    ((_, info), grads), (_, task) = with_and_without_penalty(base)
    assert (float(info.penalty) > 0) == bool(start)
    assert (np.abs(grads["kernel"] - task["kernel"]).max() > 0) == bool(start)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def test_random_deltas_have_a_part_of_the_norm_of_every_leaf():
    values = {"small": np.full((60, 50), 1e-3), "large": np.full((60, 50), 7.0), "zeros": np.zeros(50)}
    base = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), values)
    delta = jax.device_get(jax.jit(lambda base: jsubspace.deltas(base, Simplex(3), key=KEY, scale=0.02))(base))
    for name, size in (("small", 2e-5), ("large", 0.14), ("zeros", 0.0)):
        np.testing.assert_allclose(np.std(delta[name], axis=tuple(range(1, delta[name].ndim))), size, rtol=0.05)
        np.testing.assert_allclose(np.mean(delta[name]), 0, atol=size / 20)
    cosines = np.asarray(jax.jit(jsubspace.cosines_squared)(delta))
    np.testing.assert_array_less(cosines[np.triu_indices(3, 1)], 0.005)  # 20 / n is 0.0033
    assert not np.allclose(delta["small"][0] / 2e-5, delta["large"][0] / 0.14, atol=0.1)


def test_dtypes():
    base = base_network(jnp.bfloat16)
    for dtype, expected in ((None, jnp.bfloat16), (jnp.float32, jnp.float32), ("float16", jnp.float16)):
        for start in ({}, {"key": KEY, "scale": 0.1}):
            with jax.numpy_dtype_promotion("strict"):
                delta = jax.eval_shape(lambda base: jsubspace.deltas(base, Line(), dtype=dtype, **start), base)  # noqa: B023
            assert {leaf.dtype for leaf in jax.tree.leaves(delta)} == {jnp.dtype(expected)}


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit], ids=str)
def test_deltas_are_divided_as_the_base_is(kind):
    mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(kind, kind))
    spec = {"kernel": ("fsdp", None), "scale": (None,), "bias": (None,)}
    base = {
        name: jax.device_put(leaf, jax.NamedSharding(mesh, jax.P(*spec[name]))) for name, leaf in base_network().items()
    }
    for start in ({}, {"key": KEY, "scale": 0.1}):
        delta = jsubspace.deltas(base, Line(), **start)
        for name, leaf in delta.items():
            expected = jax.NamedSharding(mesh, jax.P(None, *spec[name]))
            assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), (name, leaf.sharding)
    alone = jsubspace.deltas(base_network(), Line(), key=KEY, scale=0.1)
    close(delta, alone, rtol=1e-5, atol=1e-7)
    other = jax.device_put(base_network(), jax.devices()[3])
    assert {d for leaf in jax.tree.leaves(jsubspace.deltas(other, 2)) for d in leaf.devices()} == {jax.devices()[3]}


def test_modules_and_names_of_axes():
    """A module of nnx is a base as it is, and its names for sharding get the endpoint axis."""
    from flax import nnx

    kernel = nnx.with_metadata(nnx.initializers.ones, out_sharding=("embed", "mlp"), eager_sharding=False)
    base = nnx.Linear(4, 3, kernel_init=kernel, rngs=nnx.Rngs(0))
    delta = jsubspace.deltas(base, Line())
    assert delta.kernel.get_metadata()["out_sharding"] == (None, "embed", "mlp")
    assert base.kernel.get_metadata()["out_sharding"] == ("embed", "mlp")
    network = jax.tree.map(jnp.add, base, jsubspace.midpoint(delta))
    assert network(jnp.ones((2, 4))).tolist() == [[4.0] * 3] * 2


@pytest.mark.parametrize(
    ("base", "subspace", "options", "message"),
    [
        (base_network(), Line, {}, r"Line is a class.*Write Line\(\)"),
        (base_network(), 0, {}, "deltas: num_endpoints is 0"),
        (base_network(), 2.0, {}, "deltas: the number of endpoints is 2.0, but it must be an integer"),
        ({}, 2, {}, "the base has no leaves. Give the parameters"),
        ({"n": jnp.ones(3, int)}, 2, {}, r"leaf \['n'\] of the base has dtype int32, and only floating-point"),
        ({"apply": jnp.tanh, "w": jnp.ones(3)}, 2, {}, r"leaf \['apply'\] is a .* and no array"),
        ({"params": base_network(), "batch_stats": {"mean": jnp.ones(3)}}, 2, {}, "linen's collection 'batch_stats' beside"),
        (jsubspace.deltas(base_network(), 2), 2, {}, r"all leaves .* length 2, .*stacked endpoints.*unstack.*jnp.zeros\(\(2,"),
        (base_network() | {"scale": jnp.array([1, jnp.nan])}, 2, {}, r"leaf \['scale'\] of the base holds NaN or an infinity"),
        (base_network() | {"bias": np.full(5, -np.inf)}, 2, {"key": KEY, "scale": 0.1}, r"leaf \['bias'\] of the base holds"),
        (base_network(), 2, {"key": KEY}, "takes key and scale together"),
        (base_network(), 2, {"scale": 0.1}, "takes key and scale together"),
        (base_network(), 2, {"key": KEY, "scale": -1.0}, "scale is -1.0, but the size of the deltas is finite and at least"),
        (base_network(), 2, {"key": 0, "scale": 0.1}, "deltas: key is 0, but it must be one PRNG key"),
        (base_network(), 2, {"dtype": "flot"}, "dtype is 'flot', but deltas are floating-point numbers"),
        (base_network(), 2, {"dtype": int}, "dtype is int64, but deltas are floating-point"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:30],
)  # fmt: skip
def test_what_is_no_base_is_refused(base, subspace, options, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.deltas(base, subspace, **options)


def test_a_base_is_checked_where_its_numbers_are_known():
    """A base that is a constant of a compiled function has numbers, and an argument has none."""
    base = base_network() | {"scale": jnp.array([1, jnp.nan])}
    start = jax.jit(lambda base: jsubspace.deltas(base, 2, key=KEY, scale=0.1))(base)
    assert np.isnan(start["scale"]).all()
    with pytest.raises(ValueError, match="holds NaN or an infinity"):
        jax.jit(lambda key: jsubspace.deltas(base, 2, key=key, scale=0.1))(KEY)
    good = base_network()
    within = jax.jit(lambda key: jsubspace.deltas(good, 2, key=key, scale=0.1))(KEY)
    close(within, jsubspace.deltas(good, 2, key=KEY, scale=0.1), rtol=1e-5, atol=1e-7)
