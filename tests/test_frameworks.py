"""Every function of the library takes networks of Flax linen, Flax nnx, Equinox and plain dictionaries (docs/frameworks.md)."""

import equinox
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jsubspace
from jsubspace.exchange import network_files
from jsubspace.models import adapters

WIDTH = 16


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.tanh(nn.Dense(WIDTH)(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.tanh(self.hidden(x)))


def linen():
    return lambda key: Linen().init(key, jnp.ones((1, 2)))["params"], lambda point, x: Linen().apply(
        {"params": point}, x
    )


def flax_nnx():
    graph = nnx.graphdef(Nnx(nnx.Rngs(0)))

    def init_fn(key):
        return nnx.state(Nnx(nnx.Rngs(key)), nnx.Param)

    return init_fn, lambda point, x: nnx.merge(graph, point)(x)


def equinox_mlp():
    def make(key):
        return equinox.partition(
            equinox.nn.MLP(2, 2, WIDTH, depth=1, activation=jnp.tanh, key=key), equinox.is_inexact_array
        )

    static = make(jax.random.key(0))[1]
    return lambda key: make(key)[0], lambda point, x: jax.vmap(equinox.combine(point, static))(x)


def dictionary():
    def init_fn(key):
        hidden_key, head_key = jax.random.split(key)
        return {
            "hidden": {"kernel": jax.random.normal(hidden_key, (2, WIDTH)), "bias": jnp.zeros(WIDTH)},
            "head": {"kernel": 0.2 * jax.random.normal(head_key, (WIDTH, 2))},
        }

    def apply_fn(point, x):
        hidden = jnp.tanh(x @ point["hidden"]["kernel"] + point["hidden"]["bias"])
        return hidden @ point["head"]["kernel"]

    return init_fn, apply_fn


MAKERS = (linen, flax_nnx, equinox_mlp, dictionary)
LINE = jsubspace.Line()
X = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)
Y = (np.sum(X, axis=1) > 0).astype(np.int32)


class Networks:
    """Endpoints of a framework, and the loss of one network."""

    def __init__(self, make):
        self.init, self.apply = make()
        self.endpoints = jax.jit(lambda key: jsubspace.init_endpoints(key, self.init, LINE))(jax.random.key(0))

    def loss(self, point, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(self.apply(point, x), y).mean()


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def networks(request):
    return Networks(request.param)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


def test_endpoints_are_initialisations_stacked(networks):
    alone = jax.jit(lambda key: [networks.init(each) for each in jax.random.split(key, 2)])(jax.random.key(0))
    for i, network in enumerate(alone):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], on_host(networks.endpoints)), network)


def test_the_gradient_is_that_of_the_objective(networks):
    """Loss and penalty written out, and differentiated by jax."""
    gradient = jax.jit(jsubspace.value_and_grad(networks.loss, LINE, beta=0.5))
    (value, info), grads = gradient(jax.random.key(1), networks.endpoints, X, Y)

    def objective(endpoints):
        loss = networks.loss(jsubspace.interpolate(endpoints, info.alpha), X, Y)
        return loss + 0.5 * jsubspace.cosine_squared(endpoints, 0, 1)

    expected, by_jax = jax.jit(jax.value_and_grad(objective))(networks.endpoints)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    close(grads, by_jax)


def test_an_optimizer_sees_each_endpoint_alone(networks):
    """Clipping by the norm of all endpoints together would be different."""
    alone = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0))
    each = jsubspace.per_endpoint(alone)
    sizes = np.float32([1.0, 2.0])
    grads = jax.tree.map(lambda leaf: leaf * sizes.reshape(2, *(1,) * (leaf.ndim - 1)), on_host(networks.endpoints))

    def updates(optimizer):
        return jax.jit(lambda grads: optimizer.update(grads, optimizer.init(grads))[0])

    of_each, of_one = on_host(updates(each)(grads)), updates(alone)
    for i in (0, 1):
        grad = jax.tree.map(lambda leaf, i=i: leaf[i], grads)
        close(jax.tree.map(lambda leaf, i=i: leaf[i], of_each), of_one(grad))


def test_leaves_are_cut_over_devices_under_jit(networks):
    """FSDP: every leaf that eight devices divide is cut, and so is the batch."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def placed(leaf):
        cut = [axis for axis in range(1, leaf.ndim) if leaf.shape[axis] % 8 == 0]
        spec = [None] * cut[0] + ["data"] if cut else []
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    batch = [jax.device_put(array, NamedSharding(mesh, PartitionSpec("data"))) for array in (X, Y)]
    sharded = jax.tree.map(placed, networks.endpoints)
    assert sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(sharded)) >= 2
    gradient = jax.jit(jsubspace.value_and_grad(networks.loss, LINE))
    close(gradient(jax.random.key(1), sharded, *batch)[1], gradient(jax.random.key(1), networks.endpoints, X, Y)[1])


def test_uncertainty_is_measured(networks):
    batches = [(X, Y)]
    report = jsubspace.uncertainty(
        networks.apply, networks.endpoints, LINE, validation_batches=batches, test_batches=batches, num_resamples=0
    )
    row = report.points[0]
    log_p = jax.jit(lambda e: jax.nn.log_softmax(networks.apply(jsubspace.midpoint(e), X)))(networks.endpoints)
    entropy = -np.sum(np.exp(log_p) * log_p, axis=1).mean()
    np.testing.assert_allclose(row.entropy, entropy, rtol=1e-5)


def by_adapter(kind):
    """A network with dropout, as functions of nested dictionaries."""
    if kind == "linen":

        class Dropped(nn.Module):
            @nn.compact
            def __call__(self, x, train):
                return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))

        return adapters.from_linen(Dropped(), X[:1])
    if kind == "flax_nnx":
        return adapters.from_nnx(lambda rngs: nnx.Sequential(nnx.Dropout(0.5, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)))
    if kind == "equinox_mlp":
        parts = equinox.nn.Dropout, equinox.nn.Linear
        return adapters.from_equinox(lambda key: equinox.nn.Sequential([parts[0](0.5), parts[1](2, 2, key=key)]))

    def apply(point, x, key=None, train=False):
        return (x * jax.random.bernoulli(key, 0.5, x.shape) * 2 if train else x) @ point["kernel"]

    return adapters.from_functions(lambda key: {"kernel": jax.random.normal(key, (2, 2))}, apply)


@pytest.fixture(scope="module", params=[make.__name__ for make in MAKERS])
def adapted(request):
    return by_adapter(request.param)


def test_masks_follow_the_key_of_a_sample(adapted):
    """Equal endpoints and equal rows: the four parts of a batch have the same loss, unless their masks differ."""
    point = jax.jit(adapted.init)(jax.random.key(0))
    endpoints = jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf, leaf])), point)

    def loss_fn(point, x, key):
        loss = jnp.mean(adapted.apply(point, x, key=key, train=True) ** 2)
        return loss, loss

    grad_fn = jax.jit(jsubspace.value_and_grad(loss_fn, LINE, num_samples=4, has_aux=True))
    parts = [
        grad_fn(jax.random.key(0), endpoints, np.ones((32, 2)), jax.random.key(i))[0][1].aux.tolist() for i in (1, 2, 1)
    ]
    assert len({*parts[0], *parts[1]}) > 4
    assert len(set(parts[0])) > 2
    assert parts[0] == parts[2]


def test_a_network_is_saved_and_loaded_to_the_bit(adapted, tmp_path):
    point = jax.jit(lambda key: jsubspace.midpoint(jsubspace.init_endpoints(key, adapted.init, 2)))(jax.random.key(0))
    apply = jax.jit(adapted.apply)
    for name in ("n.safetensors", "n"):
        network_files.save(tmp_path / name, {"params": point})
        network, _ = network_files.load(tmp_path / name)
        assert jax.tree.structure(network["params"]) == jax.tree.structure(point)
        np.testing.assert_array_equal(apply(network["params"], X), apply(point, X))


OPTIMIZERS = {"sgd": lambda: optax.sgd(0.2, momentum=0.9), "adam": lambda: optax.adam(0.02)}
OF_SGD = [(make, "sgd") for make in MAKERS]
OF_ADAM = [(dictionary, "adam"), *(pytest.param(make, "adam", marks=pytest.mark.slow) for make in MAKERS[:-1])]


@pytest.mark.parametrize(
    ("make", "optimizer_name"), [*OF_SGD, *OF_ADAM], ids=lambda value: getattr(value, "__name__", value)
)
def test_a_line_is_trained_to_convergence(make, optimizer_name):
    """A linearly inseparable task is solved at both ends, between them, and by endpoints that differ."""
    init_fn, apply_fn = make()
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(256, 2)).astype(np.float32)
    y = (np.sum(x**2, axis=1) > 2).astype(np.int32)
    subspace, optimizer = jsubspace.Line(), OPTIMIZERS[optimizer_name]()

    def loss_fn(point, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(apply_fn(point, x), y).mean()

    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, beta=1.0)

    @jax.jit
    def train(key):
        init_key, train_key = jax.random.split(key)
        endpoints = jsubspace.init_endpoints(init_key, init_fn, subspace.num_endpoints)

        def step(carry, key):
            endpoints, state = carry
            (_, info), grads = grad_fn(key, endpoints, x, y)
            updates, state = optimizer.update(grads, state, endpoints)
            return (optax.apply_updates(endpoints, updates), state), info.loss

        (trained, _), losses = jax.lax.scan(
            step, (endpoints, optimizer.init(endpoints)), jax.random.split(train_key, 1000)
        )
        accuracies = [accuracy(trained, alpha) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)]
        return losses, accuracies, jsubspace.cosine_squared(trained, 0, 1), jsubspace.distances(trained)

    def accuracy(endpoints, alpha):
        point = jsubspace.interpolate(endpoints, alpha)
        assert jax.tree.structure(point) == jax.tree.structure(jax.eval_shape(init_fn, jax.random.key(0)))
        return jnp.mean(jnp.argmax(apply_fn(point, x), axis=-1) == y)

    losses, accuracies, cosine, distances = jax.device_get(train(jax.random.key(0)))
    assert np.mean(losses[-50:]) < 0.15 < 0.5 < losses[0]
    assert min(accuracies) > 0.93
    assert cosine < 0.2
    assert distances[0, 1] > 1
