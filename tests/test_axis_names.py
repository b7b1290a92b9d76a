"""The names of axes that Flax keeps for sharding: the endpoint axis has one, and a point has those of one network."""

import functools

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jsubspace
from jsubspace import shares, tree
from jsubspace.algorithm import random_gradient
from jsubspace.evaluation import averaging
from jsubspace.objectives import Objective
from jsubspace.shares import WHOLE, Shares

X = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
RULES = (("inputs", "data"), ("outputs", "model"))
MESH_AXES = {"kernel": ("data", "model"), "bias": ("model",)}


def initializers(names):
    kernel, bias = nn.initializers.lecun_normal(), nn.initializers.normal(0.1)
    return {"kernel_init": names(kernel, "kernel"), "bias_init": names(bias, "bias")}


class Linen(nn.Module):
    """A network whose boxes name the axes of the mesh, or with ``logical`` names that rules translate."""

    logical: bool

    @nn.compact
    def __call__(self, x):
        def named(init, leaf):
            if not self.logical:
                return nn.with_partitioning(init, MESH_AXES[leaf])
            to_logical = {mesh: logical for logical, mesh in RULES}
            return nn.with_logical_partitioning(init, tuple(to_logical[axis] for axis in MESH_AXES[leaf]))

        x = nn.LayerNorm()(nn.tanh(nn.Dense(8, **initializers(named))(x)))  # The norm's leaves are in no box.
        return nn.Dense(4, **initializers(named))(x)


def linen(logical):
    network = Linen(logical)

    def specs(params):
        found = nn.get_partition_spec(params)
        return nn.logical_to_mesh(found, RULES) if logical else found

    init_fn = jax.jit(lambda key: network.init(key, X[:1])["params"])
    return init_fn, lambda point, x: network.apply({"params": point}, x), specs


class Nnx(nnx.Module):
    def __init__(self, rngs, of_its_type):
        metadata = {f"{leaf}_metadata": {"out_sharding": of_its_type(axes)} for leaf, axes in MESH_AXES.items()}
        self.hidden = nnx.Linear(8, 8, rngs=rngs, **metadata)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs, **metadata)

    def __call__(self, x):
        return self.head(self.norm(nnx.tanh(self.hidden(x))))


def flax_nnx(of_its_type=tuple):
    with nnx.use_eager_sharding(False):
        graph = nnx.graphdef(Nnx(nnx.Rngs(0), of_its_type))

    def init_fn(key):
        with nnx.use_eager_sharding(False):
            return nnx.state(Nnx(nnx.Rngs(key), of_its_type), nnx.Param)

    return jax.jit(init_fn), lambda point, x: nnx.merge(graph, point)(x), nnx.get_partition_spec


def nnx_module():
    """The module itself is the tree."""

    def init_fn(key):
        with nnx.use_eager_sharding(False):
            return Nnx(nnx.Rngs(key), tuple)

    return jax.jit(init_fn), lambda point, x: point(x), nnx.get_partition_spec


MAKE = {
    "linen": lambda: linen(logical=False),
    "linen, logical": lambda: linen(logical=True),
    "nnx": flax_nnx,
    "nnx, PartitionSpec": lambda: flax_nnx(lambda axes: PartitionSpec(*axes)),
    "nnx module": nnx_module,
}


@functools.cache
def made(name):
    """The same functions for all tests, so that they are compiled once."""
    return MAKE[name]()


@pytest.fixture(params=MAKE)
def case(request):
    return made(request.param)


def flat(specs):
    return jax.tree.leaves(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def same(a, b):
    """Equal to the bit, and as trees with all their names."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert hash(jax.tree.structure(a)) == hash(jax.tree.structure(b))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def started(init_fn, subspace):
    """What `init_endpoints` returns, made by one program."""
    return jax.jit(lambda key: jsubspace.init_endpoints(key, init_fn, subspace))(jax.random.key(0))


def loss_of(apply_fn):
    return lambda point, x, y: jnp.mean((apply_fn(point, x) - y) ** 2)


def test_the_endpoint_axis_is_named_first_and_is_not_sharded(case):
    init_fn, _, specs_of = case
    network = init_fn(jax.random.key(0))
    of_network = flat(specs_of(network))
    assert {len(spec) for spec in of_network} == {0, 1, 2}
    stacked = [
        jsubspace.init_endpoints(jax.random.key(0), init_fn, 3),
        jsubspace.init_endpoints(jax.random.key(0), init_fn, 3, common_start=True),
        jsubspace.stack([network, network]),
        jax.eval_shape(lambda key: jsubspace.init_endpoints(key, init_fn, 3), jax.random.key(0)),
    ]
    for endpoints in stacked:
        expected = [PartitionSpec(None, *spec) if spec else spec for spec in of_network]
        assert flat(specs_of(endpoints)) == expected
        assert jax.tree.structure(endpoints) == jax.tree.structure(stacked[0])


def test_every_network_of_the_subspace_has_the_names_of_one_network(case):
    init_fn, _, _ = case
    networks = [init_fn(jax.random.key(i)) for i in range(3)]
    endpoints = jsubspace.stack(networks)
    for actual, network in zip(jsubspace.unstack(endpoints), networks, strict=True):
        same(actual, network)
    same(jsubspace.stack(jsubspace.unstack(endpoints)), endpoints)
    same(jsubspace.interpolate(endpoints, jnp.eye(3)[1]), networks[1])
    structure = jax.tree.structure(networks[0])
    assert jax.tree.structure(jsubspace.midpoint(endpoints)) == structure
    same(tree.pull_back(networks[0], jnp.ones(3)), jsubspace.stack([networks[0]] * 3))
    assert jax.tree.structure(networks[0]) == structure  # What was given has not changed.


def test_masks_layers_and_positions_are_made_of_a_network_or_of_endpoints(case):
    init_fn, apply_fn, _ = case
    endpoints = started(init_fn, jsubspace.Line())
    network = jsubspace.midpoint(endpoints)

    masks, layers = ([of(like) for like in (network, endpoints)] for of in (jsubspace.all_leaves, jsubspace.layers))

    def results(mask, layers):
        alpha = jsubspace.sample_alpha(jax.random.key(0), jsubspace.Line(), layers)
        grad_fn = jsubspace.value_and_grad(loss_of(apply_fn), jsubspace.Line(), mask=mask, layerwise=layers)
        grads = grad_fn(jax.random.key(1), endpoints, X, Y)[1]
        measures = [jsubspace.cosines_squared(endpoints, mask), jsubspace.distances(endpoints, mask)]
        return [jsubspace.interpolate(endpoints, alpha), grads, *measures]

    # Leaves that are equal give equal numbers, wherever their trees fit.
    for of_network, of_endpoints in (masks, layers):
        assert jax.tree.leaves(of_network) == jax.tree.leaves(of_endpoints)
    of_network, of_endpoints = (
        jax.eval_shape(lambda: results(mask, names))  # noqa: B023
        for mask, names in zip(masks, layers, strict=True)
    )
    assert jax.tree.structure(of_network) == jax.tree.structure(of_endpoints)
    assert jax.tree.structure(of_network[1]) == jax.tree.structure(endpoints)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("linen", {}),
        ("linen, logical", {"num_samples": 2}),
        ("nnx", {"num_samples": 4, "layerwise": True}),
        pytest.param("nnx module", {}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_step_with_endpoints_placed_by_their_specs_gives_the_numbers_of_replicated_ones(name, settings):
    init_fn, apply_fn, specs_of = made(name)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
    endpoints = started(init_fn, jsubspace.Simplex(3))
    optimizer = optax.adam(0.1)
    grad_fn = jsubspace.value_and_grad(loss_of(apply_fn), jsubspace.Simplex(3), **settings)

    @jax.jit
    def step(endpoints, state):
        (value, _), grads = grad_fn(jax.random.key(1), endpoints, X, Y)
        updates, state = optimizer.update(grads, state, endpoints)
        return value, optax.apply_updates(endpoints, updates), state

    def shardings(of):
        specs = specs_of(of)
        named = [NamedSharding(mesh, spec) for spec in flat(specs)]
        return jax.tree.unflatten(jax.tree.structure(of), named)

    state = jax.jit(optimizer.init)(endpoints)
    expected = step(endpoints, state)
    with jax.set_mesh(mesh):  # Here linen's boxes constrain the point by its own names.
        placed = jax.device_put(endpoints, shardings(endpoints))
        actual = step(placed, jax.device_put(state, shardings(state)))
    for leaf in jax.tree.leaves(placed):
        assert leaf.addressable_shards[0].data.shape[0] == 3
    assert {leaf.addressable_shards[0].data.size * 8 for leaf in jax.tree.leaves(placed) if leaf.ndim == 3} == {192, 96}
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), actual, expected)


@pytest.mark.parametrize("at_the_point", [False, True])
def test_shares_of_endpoints_in_boxes_give_the_gradient_of_whole_ones(at_the_point):
    init_fn, apply_fn, _ = made("nnx")
    endpoints = started(init_fn, jsubspace.Line())
    axes = shares.axes_of(endpoints, 4)

    options = {"num_samples": 2}
    if at_the_point:
        options = {
            "origin": init_fn(jax.random.key(2)),
            "sam_rho": 0.1,
            "at_point": lambda grad: jax.tree.map(jnp.tanh, grad),
        }

    def grad_fn(*places):
        objective = Objective(**options)
        return random_gradient(loss_of(apply_fn), jsubspace.Line(), objective, Shares(*places))

    _, expected = jax.jit(grad_fn())(jax.random.key(1), endpoints, X, Y)
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    specs = jax.tree.map(
        lambda axis: PartitionSpec(*(None,) * (axis + 1), "batch") if axis != WHOLE else PartitionSpec(), axes
    )
    split = jax.shard_map(
        lambda *args: grad_fn("batch", axes)(jax.random.key(1), *args)[1],
        mesh=mesh,
        in_specs=(specs, PartitionSpec("batch"), PartitionSpec("batch")),
        out_specs=specs,
        check_vma=False,
    )
    actual = jax.jit(split)(endpoints, X, Y)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), actual, expected)


def test_drawn_networks_are_endpoints_too(case):
    init_fn, _, _ = case
    endpoints = started(init_fn, jsubspace.Line())
    for draw in (averaging.random_points, averaging.weightwise_points, averaging.gaussian_points):
        drawn = jax.eval_shape(lambda key, draw=draw: draw(key, endpoints, jsubspace.Line(), 4), jax.random.key(1))
        assert jax.tree.structure(drawn) == jax.tree.structure(endpoints)


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_a_network_in_boxes_is_measured(name):
    """With networks that are drawn for every layer, which stand in rows behind the endpoints."""
    init_fn, apply_fn, _ = made(name)
    endpoints = started(init_fn, jsubspace.Line())
    options = {"num_points": 3, "num_resamples": 20, "num_random_points": 2, "random_points": ("layerwise",)}
    report = jsubspace.measure(apply_fn, endpoints, jsubspace.Line(), [(X, np.argmax(Y, 1))], **options)
    assert [point.kind for point in report.points].count("layerwise") == 2


def test_names_that_do_not_begin_with_that_of_the_endpoint_axis_are_refused(case):
    init_fn, _, _ = case
    by_hand = jax.vmap(init_fn)(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(
        ValueError, match=r"leaf .*(kernel|bias).* has names for its axes.*none for the endpoint axis.*jsubspace\.stack"
    ):
        jsubspace.midpoint(by_hand)


def test_networks_that_differ_in_their_names_are_not_stacked():
    boxed = {"w": nn.Partitioned(jnp.ones((2, 3)), ("a", "b"))}
    with pytest.raises(ValueError, match=r"network 1 has the structure"):
        jsubspace.stack([boxed, {"w": nn.Partitioned(jnp.ones((2, 3)), ("b", "a"))}])


def test_a_box_of_a_users_own_and_hooks_of_nnx_are_told_of_the_axis():
    class Counted(nnx.Param):
        def add_axis(self, axis_index, axis_name):
            self.set_metadata("axes", self.get_metadata("axes", 0) + 1)

        def remove_axis(self, axis_index, axis_name):
            self.set_metadata("axes", self.get_metadata("axes") - 1)

    network = {"w": Counted(jnp.ones(3), axes=1), "plain": jnp.ones(3)}
    endpoints = jsubspace.stack([network, network])
    assert endpoints["w"].get_metadata("axes") == 2
    assert jsubspace.midpoint(endpoints)["w"].get_metadata("axes") == 1
    assert network["w"].get_metadata("axes") == 1


def test_a_network_whose_first_axis_has_no_name_is_not_taken_for_endpoints():
    """Stacked by vmap alone, [2, 3, 8] keeps the names (None, 'model') of [3, 8]."""
    kernel = nn.with_partitioning(nn.initializers.normal(), (None, "model"))
    by_hand = jax.vmap(lambda key: {"kernel": kernel(key, (3, 8))})(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match=r"'kernel'.*none for the endpoint axis"):
        jsubspace.midpoint(by_hand)
    ours = jsubspace.init_endpoints(jax.random.key(0), lambda key: {"kernel": kernel(key, (3, 8))}, 2)
    assert jsubspace.midpoint(ours)["kernel"].names == (None, "model")
