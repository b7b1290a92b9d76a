"""Networks from modules and functions: parameters, modes, dropout, and statistics of the batch alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jsubspace.models import adapters, batch_alone, leaf_names
from jsubspace.runs import problem_checks
from jsubspace.training.parallel import AXIS, DataParallel

X = np.random.default_rng(0).normal(2.0, 3.0, size=(64, 4)).astype(np.float32)
KEY = jax.random.key(0)


class Linen(nn.Module):
    momentum: float = 0.9
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum, axis_name=self.axis_name)(x)
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs, momentum=0.9):
        self.norm, self.dropout = nnx.BatchNorm(4, momentum=momentum, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(self.norm(x)))


def with_batch_norm(kind, momentum=0.9):
    if kind == "linen":
        return adapters.from_linen(Linen(momentum), X[:1])
    return adapters.from_nnx(lambda rngs: Nnx(rngs, momentum))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_statistics_are_those_of_the_batch_alone(kind, momentum):
    """Whatever the scale of the inputs is. A running average after one batch would be 1 - momentum of them."""
    network = with_batch_norm(kind, momentum)
    point = network.init(KEY)
    stats_of = jax.jit(network.stats)
    for scale in (1e-8, 1.0, 1e3, 1e6):
        x = np.float32(scale) * X
        mean, var = (np.ravel(leaf) for leaf in jax.tree.leaves(stats_of(point, x, key=KEY)))
        np.testing.assert_allclose(mean, x.mean(0), rtol=1e-3, atol=1e-4 * scale)
        np.testing.assert_allclose(var, x.var(0), rtol=1e-3)


def test_statistics_of_constant_inputs_are_0_where_the_batchs_are():
    network = with_batch_norm("linen")
    stats = jax.jit(network.stats)(network.init(KEY), np.zeros_like(X), key=KEY)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(stats))


def test_statistics_that_never_change_are_nan_and_counters_are_kept():
    like = {"mean": jax.ShapeDtypeStruct((2,), jnp.float32), "count": jax.ShapeDtypeStruct((), jnp.int32)}
    found = batch_alone.statistics(lambda old: {"mean": 1.0 * old["mean"], "count": old["count"] + 1}, like)
    assert np.isnan(found["mean"]).all()
    assert found["count"] == 1


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_batch_norm_that_never_updates_its_statistics_is_refused(kind):
    """Their statistics would be 0/0, and every prediction NaN."""

    class Frozen(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(2)(nn.BatchNorm(use_running_average=True)(x))

    class NnxFrozen(Nnx):
        def __call__(self, x):
            return self.head(self.norm(x, use_running_average=True))

    network = adapters.from_linen(Frozen(), X[:1]) if kind == "linen" else adapters.from_nnx(NnxFrozen)
    with pytest.raises(ValueError, match=r"does not update its statistics.*use_running_average=False"):
        network.stats(network.init(KEY), X)


def test_a_known_momentum_takes_one_pass():
    known = adapters.from_linen(Linen(0.75), X[:1], momentum=0.75)
    found = with_batch_norm("linen", 0.75)
    point = known.init(KEY)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4),
        known.stats(point, X, key=KEY),
        found.stats(point, X, key=KEY),
    )


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_the_modes(kind):
    network = with_batch_norm(kind)
    point = network.init(KEY)
    stats = network.stats(point, X, key=KEY)
    rest = network.apply(point, X, stats=stats)
    np.testing.assert_array_equal(rest, network.apply(point, X, stats=stats))
    np.testing.assert_allclose(np.mean(rest, 0), 0, atol=1e-4)  # It is normalised, and the head has no bias yet.
    one, same, other = (network.apply(point, X, key=jax.random.key(seed), train=True) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    grads = jax.grad(lambda point: jnp.sum(network.apply(point, X, key=KEY, train=True) ** 2))(point)
    assert jax.tree.structure(grads) == jax.tree.structure(point)
    assert not any(name in str(jax.tree_util.tree_leaves_with_path(point)) for name in ("mean", "var", "rngs"))


def test_another_key_is_another_network():
    for kind in ("linen", "nnx"):
        network = with_batch_norm(kind)
        one, other = network.init(jax.random.key(0)), network.init(jax.random.key(1))
        assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)) > 0.1


def test_a_network_without_collectives():
    network = adapters.from_linen(Linen(axis_name=AXIS), X[:1])
    point = network.init(KEY)
    with pytest.raises(NameError, match="unbound axis name"):
        network.apply(point, X, key=KEY, train=True)
    assert network.on_one_device.apply(point, X, key=KEY, train=True).shape == (64, 2)
    assert network.on_one_device.on_one_device is network.on_one_device


def test_equinox_modules_see_one_example_or_a_batch():
    eqx = pytest.importorskip("equinox")

    def make(key):
        return eqx.nn.Sequential([eqx.nn.Linear(4, 3, key=key), eqx.nn.Dropout(0.5)])

    network = adapters.from_equinox(make)
    point = network.init(KEY)
    assert jax.tree.map(np.shape, point) == {"layers": {"0": {"bias": (3,), "weight": (3, 4)}}}
    expected = X @ point["layers"]["0"]["weight"].T + point["layers"]["0"]["bias"]
    np.testing.assert_allclose(network.apply(point, X), expected, rtol=1e-4, atol=1e-5)
    dropped = network.apply(point, X, key=KEY, train=True)
    assert 0.3 < np.mean(dropped == 0) < 0.7
    assert len({tuple(row) for row in np.asarray(dropped == 0)}) > 2  # Every example has a key of its own.
    batched = adapters.from_equinox(lambda key: jax.vmap(eqx.nn.Linear(4, 3, key=key)), batched=True)
    with pytest.raises(ValueError, match=r"make\(key\) returned a tuple"):
        adapters.from_equinox(lambda key: eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch"))
    assert batched is not network


def test_other_variables_are_refused():
    class Cached(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("cache", "seen", jnp.zeros, ())
            return nn.Dense(2)(x)

    class NnxCached(nnx.Module):
        def __init__(self, rngs):
            self.cache, self.head = nnx.Cache(jnp.zeros(2)), nnx.Linear(4, 2, rngs=rngs)

    with pytest.raises(ValueError, match="variables of the collections cache"):
        adapters.from_linen(Cached(), X[:1])
    with pytest.raises(ValueError, match=r"a variable at \['cache'\]"):
        adapters.from_nnx(NnxCached)


def test_functions_get_the_keywords_that_they_take():
    got = {}

    def apply_fn(point, x, stats=None, train=False):
        got.update(stats=stats, train=train)
        return x

    network = adapters.from_functions(lambda key: {}, apply_fn, lambda point, x: x.mean(0))
    network.apply({}, X, stats=1, key=KEY, train=True)
    assert got == {"stats": 1, "train": True}
    np.testing.assert_array_equal(network.stats({}, X, key=KEY), X.mean(0))


@pytest.mark.parametrize(
    "name", ["train", "training", "is_training", "is_train", "deterministic", "inference", "eval_mode"]
)
def test_the_mode_has_many_names(name):
    """A mode that is never switched would be dropout that never runs."""
    of_train = name in ("train", "training", "is_training", "is_train")
    scope = {"nn": nn, "nnx": nnx}
    exec(f"def apply_fn(point, x, {name}=None): return {name}", scope)
    exec(f"class Module(nn.Module):\n  def __call__(self, x, {name}=None): return {name}", scope)
    exec(f"class Other(nnx.Module):\n  def __call__(self, x, {name}=None): return {name}", scope)
    for network in (
        adapters.from_functions(lambda key: {}, scope["apply_fn"]),
        adapters.from_linen(scope["Module"](), X[:1], outputs=lambda mode: mode),
        adapters.from_nnx(lambda rngs: scope["Other"]()),
    ):
        assert [network.apply({}, X, key=KEY, train=train) is of_train for train in (True, False)] == [True, False]


@pytest.mark.parametrize("name", ["is_train_mode", "is_eval", "testing", "not_deterministic", "use_inference"])
def test_a_mode_that_nobody_would_set_is_refused(name):
    scope = {"nn": nn, "nnx": nnx}
    exec(f"def apply_fn(point, x, {name}=False): return x", scope)
    exec(f"class Module(nn.Module):\n  def __call__(self, x, {name}=False): return x", scope)
    exec(f"class Other(nnx.Module):\n  def __call__(self, x, {name}=False): return x", scope)
    for make in (
        lambda: adapters.from_functions(lambda key: {}, scope["apply_fn"]),
        lambda: adapters.from_linen(scope["Module"](), X[:1]),
        lambda: adapters.from_nnx(lambda rngs: scope["Other"]()),
    ):
        with pytest.raises(
            ValueError, match=rf"takes {name}, which nobody would set.* Name it train or deterministic."
        ):
            make()


@pytest.mark.parametrize("name", ["rng", "rngs", "dropout_rng", "prng_key", "dropout_key"])
def test_a_key_that_nobody_would_give_is_refused(name):
    scope = {}
    exec(f"def apply_fn(point, x, {name}=None): return x", scope)
    with pytest.raises(ValueError, match=rf"apply_fn takes {name}, which nobody would set.* Name it key."):
        adapters.from_functions(lambda key: {}, scope["apply_fn"])


def test_other_arguments_with_a_default_are_left_alone():
    def apply_fn(point, x, key=None, rng_of_noise=None, dropout_rate=0.1, num_tests=3, strain=False, **more):
        return x

    adapters.from_functions(lambda key: {}, apply_fn)


def test_names_of_axes_in_a_linen_module_are_dropped():
    """A run divides arrays by itself, and its mesh lacks these axes."""
    kernel_init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
    network = adapters.from_linen(nn.Dense(2, kernel_init=kernel_init), X[:1])
    point = network.init(KEY)
    assert {name: type(leaf).__name__ for name, leaf in point.items()} == dict.fromkeys(("kernel", "bias"), "ArrayImpl")
    assert network.apply(point, X).shape == (64, 2)


def test_a_module_in_the_place_of_a_function_is_told():
    with pytest.raises(ValueError, match=r"from_nnx got a module, a Nnx.*from_nnx\(lambda rngs: Nnx\(rngs=rngs\)\)"):
        adapters.from_nnx(Nnx(nnx.Rngs(0)))


@pytest.mark.parametrize(("count", "warns"), [(1, False), (2, True)])
def test_batch_norm_of_parts_is_told(count, warns, caplog):
    """Without an axis name, BatchNorm sees one device's part of a batch, and the number of devices changes the results."""
    devices = DataParallel(tuple(jax.devices()[:count]))
    together = adapters.from_linen(Linen(axis_name=AXIS), X[:1])
    for network in (together, adapters.from_linen(nn.Dense(2), X[:1])):
        problem_checks.warn_of_parts(network, devices)
    assert not caplog.records
    problem_checks.warn_of_parts(with_batch_norm("nnx"), devices)
    assert [f"each of the {count} devices alone" in record.getMessage() for record in caplog.records] == [True] * warns


def test_names_of_leaves_and_back():
    tree = [{"a": 1, "b": (2, 3)}, *({"c": i} for i in range(12))]
    named = leaf_names.as_dictionary(tree)
    assert named["0"] == {"a": 1, "b": {"0": 2, "1": 3}}
    assert leaf_names.from_dictionary(named, tree) == tree


def test_an_update_of_many_leaves():
    like = {"mean": jax.ShapeDtypeStruct((2,), jnp.float32), "count": jax.ShapeDtypeStruct((), jnp.float32)}
    batch = {"mean": jnp.array([1.0, -2.0]), "count": jnp.array(4.0)}
    momenta = {"mean": 0.9, "count": 0.5}

    def updated(old):
        return jax.tree.map(lambda old, batch, m: m * old + (1 - m) * batch, old, batch, momenta)

    found = batch_alone.statistics(updated, like)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, batch)
