"""Layerwise training of layers that are stacked for a scan: it is that of the same network written as a list of layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import Curve, Line, Simplex, gradients, layer_names, positions, tree
from jsubspace.layer_names import ScannedLayers

KEY = jax.random.key(4)
SUBSPACES = [Line(), Curve(), Simplex(3)]
L = 3


def scanned_loss(point, x, y):
    def block(h, layer):
        return jnp.tanh(h @ layer["attention"]["w"] + layer["bias"]), None

    return jnp.mean((jax.lax.scan(block, x, point["blocks"])[0] @ point["head"]["w"] - y) ** 2)


def unrolled_loss(point, x, y):
    for layer in point["blocks"]:
        x = jnp.tanh(x @ layer["attention"]["w"] + layer["bias"])
    return jnp.mean((x @ point["head"]["w"] - y) ** 2)


def unrolled(endpoints, axis=1):
    """The list of layers of a tree with stacked layers along ``axis``."""
    split = [jax.tree.map(lambda leaf, i=i: jnp.take(leaf, i, axis), endpoints["blocks"]) for i in range(L)]
    return endpoints | {"blocks": split}


def problem(subspace, n=24):
    rng = np.random.default_rng(1)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    m = subspace.num_endpoints
    blocks = {"attention": {"w": normal(m, L, 4, 4)}, "bias": normal(m, L, 4)}
    return {"blocks": blocks, "head": {"w": normal(m, 4, 2)}}, (normal(n, 4), normal(n, 2))


def close(actual, expected, rtol=1e-12, atol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


AT_ONE, AT_SEVERAL, UPHILL = {}, {"num_samples": 4}, {"pull_back": "center", "sam_rho": 0.1}


@pytest.mark.parametrize(
    ("subspace", "options"),
    [
        (Line(), AT_ONE),
        (Line(), AT_SEVERAL),
        (Line(), UPHILL),
        (Curve(), AT_SEVERAL),
        (Simplex(3), AT_ONE),
        (Simplex(3), UPHILL),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(Curve(), AT_ONE), (Curve(), UPHILL), (Simplex(3), AT_SEVERAL)]
        ),
    ],
)
def test_it_is_the_unrolled_network(subspace, options, x64):
    endpoints, batch = problem(subspace)
    layers = jsubspace.layers(endpoints, scanned="blocks")
    settings = {"all_pairs": True} | options

    @jax.jit
    def results(endpoints):
        """Of the stacked layers, of the list of layers, and with one alpha for all stacked layers, another objective."""
        grad_fn = jsubspace.value_and_grad(scanned_loss, subspace, layerwise=layers, **settings)
        (value, info), grads = grad_fn(KEY, endpoints, *batch)
        alpha = unrolled(info.alpha, axis=1 if "num_samples" in options else 0)
        at = gradients.value_and_grad_at(unrolled_loss, subspace, **options)
        expected = at(alpha, tuple(range(subspace.num_endpoints)), unrolled(endpoints), *batch)
        one = jsubspace.value_and_grad(scanned_loss, subspace, layerwise=True, **settings)
        return value, info, grads, unrolled(grads), expected, one(KEY, endpoints, *batch)[1]

    value, info, grads, unrolled_grads, ((expected, at_info), expected_grads), of_one = results(endpoints)
    samples = options.get("num_samples", 1)
    leading = (samples,) if samples > 1 else ()
    assert info.alpha["blocks"]["bias"].shape == (*leading, L, *subspace.alpha_shape)
    assert info.alpha["head"]["w"].shape == (*leading, *subspace.alpha_shape)
    assert len(np.unique(np.asarray(info.alpha["blocks"]["bias"]))) >= L * samples
    close((value, info.loss, info.penalty), (expected, at_info.loss, at_info.penalty))
    close(unrolled_grads, expected_grads)
    assert not np.allclose(of_one["blocks"]["bias"], grads["blocks"]["bias"])


@pytest.mark.parametrize(
    ("subspace", "num_samples"),
    [
        (Line(), 2),
        (Curve(), 1),
        (Simplex(3), 2),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(Line(), 1), (Curve(), 2), (Simplex(3), 1)]),
    ],
    ids=repr,
)
def test_eight_devices_and_one(subspace, num_samples, x64):
    endpoints, batch = problem(subspace, n=32)
    options = {"layerwise": jsubspace.layers(endpoints, scanned="blocks"), "num_samples": num_samples}
    expected = jax.jit(jsubspace.value_and_grad(scanned_loss, subspace, **options))(KEY, endpoints, *batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        jsubspace.value_and_grad(scanned_loss, subspace, axis_name="data", **options),
        mesh=mesh,
        in_specs=(spec(), spec(), spec("data"), spec("data")),
        out_specs=spec(),
    )
    close(jax.jit(mapped)(KEY, endpoints, *batch), expected)


@pytest.mark.parametrize("subspace", SUBSPACES, ids=repr)
def test_the_gradient_is_that_of_the_objective_written_out(subspace, x64):
    endpoints, batch = problem(subspace)
    layers = jsubspace.layers(endpoints, scanned="blocks")

    @jax.jit
    def found_and_expected(endpoints):
        alpha = jsubspace.sample_alpha(KEY, subspace, layers)

        def objective(endpoints):
            return scanned_loss(jsubspace.interpolate(endpoints, alpha, subspace), *batch)

        grad_fn = gradients.value_and_grad_at(scanned_loss, subspace, beta=0.0)
        (value, _), grads = grad_fn(alpha, (0, 1), endpoints, *batch)
        return (value, grads), jax.value_and_grad(objective)(endpoints)

    close(*found_and_expected(endpoints))


def test_a_shared_leaf_of_stacked_layers(x64):
    endpoints, batch = problem(Simplex(3))
    endpoints["blocks"]["bias"] = endpoints["blocks"]["bias"][:1]
    layers = jsubspace.layers(endpoints, scanned="blocks")

    @jax.jit
    def found_and_expected(endpoints):
        alpha = jsubspace.sample_alpha(KEY, Simplex(3), layers)
        result = gradients.value_and_grad_at(scanned_loss, Simplex(3))(alpha, (0, 2), endpoints, *batch)
        split = unrolled(alpha, axis=0)
        expected = gradients.value_and_grad_at(unrolled_loss, Simplex(3))(split, (0, 2), unrolled(endpoints), *batch)
        return (result[0][0], unrolled(result[1])), (expected[0][0], expected[1])

    close(*found_and_expected(endpoints))


def test_points_layer_by_layer():
    """At a corner of every layer the row is that endpoint's, bit for bit. Without a name of the subspace, other leaves tell it."""
    endpoints, _ = problem(Line())
    corners = jnp.asarray(np.float32([0.0, 1.0, 0.0]))
    alpha = jax.tree.map(
        lambda name: corners if isinstance(name, ScannedLayers) else 0.25, jsubspace.layers(endpoints, "blocks")
    )
    for subspace in (Line(), None):
        point = jax.jit(lambda endpoints, subspace=subspace: jsubspace.interpolate(endpoints, alpha, subspace))(
            endpoints
        )
        for leaf, found in zip(jax.tree.leaves(endpoints["blocks"]), jax.tree.leaves(point["blocks"]), strict=True):
            leaf = np.asarray(leaf)
            np.testing.assert_array_equal(found, np.stack([leaf[0, 0], leaf[1, 1], leaf[0, 2]]))
    np.testing.assert_allclose(
        point["head"]["w"], np.tensordot([0.75, 0.25], np.asarray(endpoints["head"]["w"]), 1), rtol=1e-6
    )
    centers = jax.tree.map(lambda a: jnp.full_like(a, 0.5), alpha)
    middles = jax.jit(lambda e: (jsubspace.interpolate(e, centers, Line()), jsubspace.midpoint(e)))
    close(*middles(endpoints), rtol=1e-6)
    only = endpoints["blocks"]
    with pytest.raises(ValueError, match=r"alpha of shape \[3\] does not say .*name the subspace"):
        jsubspace.interpolate(only, alpha["blocks"])
    with pytest.raises(ValueError, match=r"the weights of the endpoints must sum to 1"):
        jsubspace.interpolate(only, jax.tree.map(lambda _: jnp.ones((L, 2)), only), Simplex(2))


def test_draws_without_stacked_layers_are_what_they_were():
    endpoints, _ = problem(Line())
    names = jsubspace.layers(endpoints)
    assert names == jsubspace.layers(endpoints, scanned=())
    alpha = positions.sample_alpha(KEY, Simplex(3), names, num_samples=2)
    drawn = Simplex(3).sample(KEY, (3, 2))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(alpha), [drawn[0], drawn[1], drawn[2]])
    scanned = positions.sample_alpha(KEY, Line(), jsubspace.layers(endpoints, "blocks"))
    drawn = Line().sample(KEY, (2 * L + 1,))
    np.testing.assert_array_equal(scanned["blocks"]["attention"]["w"], drawn[:L])
    np.testing.assert_array_equal(scanned["head"]["w"], drawn[-1])


def test_names():
    endpoints, _ = problem(Line())
    found = jsubspace.layers(endpoints, scanned="blocks")
    assert found["blocks"] == {
        "attention": {"w": ScannedLayers("['blocks']['attention']", L)},
        "bias": ScannedLayers("['blocks']", L),
    }
    assert found["head"] == {"w": "['head']"}
    deep = {"encoder": {"blocks": {"w": jnp.ones((2, 6, 4, 4))}}, "decoder": {"blocks": {"w": jnp.ones((2, 2, 4, 4))}}}
    lengths = {"encoder": 6, "decoder": 2}
    for scanned in ("blocks", ("encoder/blocks", "decoder/blocks"), ["*coder"], "*"):
        named = jsubspace.layers(deep, scanned)
        assert {name: named[name]["blocks"]["w"].length for name in named} == lengths
    assert jsubspace.layers(deep, "encoder/blocks")["decoder"] == jsubspace.layers(deep)["decoder"]


def test_a_scan_of_flax():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.LayerNorm()(nn.Dense(4)(x)), None

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(
                nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=5)()(x, None)[0]
            )

    x = jnp.ones((3, 4))
    endpoints = jax.jit(lambda: jsubspace.init_endpoints(KEY, lambda key: Network().init(key, x)["params"], 2))()
    layers = jsubspace.layers(endpoints, scanned="ScanBlock_*")
    scanned = {name.name: name.length for name in jax.tree.leaves(layers) if isinstance(name, ScannedLayers)}
    assert scanned == {"['ScanBlock_0']['Dense_0']": 5, "['ScanBlock_0']['LayerNorm_0']": 5}

    def loss_fn(point, x):
        return jnp.mean(Network().apply({"params": point}, x) ** 2)

    (_, info), grads = jax.eval_shape(jsubspace.value_and_grad(loss_fn, Line(), layerwise=layers), KEY, endpoints, x)
    assert info.alpha["ScanBlock_0"]["Dense_0"]["bias"].shape == (5,)
    assert tree.same_structure(grads, endpoints)


def test_it_compiles_once_and_contracts_in_one_pass():
    endpoints, batch = problem(Line())
    layers, traces = jsubspace.layers(endpoints, "blocks"), []

    def loss_fn(point, *batch):
        traces.append(None)
        return scanned_loss(point, *batch)

    step = jax.jit(jsubspace.value_and_grad(loss_fn, Line(), layerwise=layers))
    for i in range(3):
        step(jax.random.key(i), endpoints, *batch)
    assert len(traces) == 1


WRONG = {
    "no such module": (lambda e: jsubspace.layers(e, "block"), r"scanned names 'block', but there is no such module\. The modules are blocks/attention, blocks, head"),
    "another length": (
        lambda e: jsubspace.layers(e | {"blocks": e["blocks"] | {"scale": jnp.ones((2, 5))}}, "blocks"),
        r"leaf \['blocks'\]\['attention'\]\['w'\] has 3 layers and leaf \['blocks'\]\['scale'\] of shape \[2, 5\] has 5",
    ),
    "no axis": (lambda e: jsubspace.layers(e | {"scale": jnp.ones(2)}, ("blocks", "scale")), r"leaf \['scale'\] belongs to the scanned"),
    "one network": (
        lambda e: jsubspace.layers(jax.tree.map(lambda leaf: leaf[0], e), "blocks"),
        r"endpoints but .*The order is layers\(tree, scanned",
    ),
    "a flag": (lambda e: jsubspace.layers(e, True), "scanned is True, but it must be the name of a module"),
    "numbers": (lambda e: jsubspace.layers(e, (1, 2)), r"scanned is .*but it must be the name of a module"),
    "other endpoints": (
        lambda e: jsubspace.value_and_grad(scanned_loss, Line(), layerwise=jsubspace.layers(e, "blocks"))(
            KEY, jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], 1), e), *problem(Line())[1]
        ),
        r"has the shape \[2, 6, 4, 4\], but its name says that it holds 3 layers",
    ),
    "alpha of another length": (
        lambda e: jsubspace.interpolate(e, {"blocks": {"attention": {"w": jnp.ones(4)}, "bias": jnp.ones(3)}, "head": {"w": 0.5}}, Line()),
        r"alpha has the shape \[4\] for leaf \['blocks'\]\['attention'\]\['w'\] of shape \[2, 3, 4, 4\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_refused(kind):
    call, message = WRONG[kind]
    with pytest.raises(ValueError, match=message):
        call(problem(Line())[0])


def test_names_are_hashable_leaves():
    name = ScannedLayers("blocks", 3)
    assert jax.tree.leaves({"a": name}) == [name]
    assert len({name, ScannedLayers("blocks", 3), ScannedLayers("blocks", 4)}) == 2
    layer_names.check_layers("layers", {"a": name, "b": "head", "c": 3})
