"""Positions and the penalty on products of factors are those of the dense products, which are never made."""

import itertools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jsubspace
from jsubspace import Curve, Line, Point, Simplex

KEY = jax.random.key(3)
PAIR = ("lora_a", "lora_b")
D, E, RANK = 13, 11, 2  # No other axis has the length of D or E.


def problem(subspace, n=24):
    """Endpoints with a pair of factors, a kernel, a bias and a shared leaf, and a batch."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    m = subspace.num_endpoints
    endpoints = {
        "hidden": {"lora_a": normal(m, D, RANK), "lora_b": normal(m, RANK, E)},
        "head": {"kernel": normal(m, E, 4), "bias": normal(m, 4)},
        "scale": normal(1, 4),
    }
    return endpoints, (normal(n, D), normal(n, 4))


def loss_of(low, point, x, y):
    """Not linear. ``low`` is what the hidden kernel adds to x."""
    return jnp.mean(
        (jnp.tanh(jnp.tanh(low) @ point["head"]["kernel"] + point["head"]["bias"]) * point["scale"] - y) ** 2
    )


def loss_fn(point, x, y):
    return loss_of((x @ point["hidden"]["lora_a"]) @ point["hidden"]["lora_b"], point, x, y)


def weights_of(subspace, alpha, name):
    """c of one leaf, ``[m]``."""
    alpha = alpha[name[0]][name[1]] if isinstance(alpha, dict) else alpha
    return subspace.coefficients(jnp.asarray(alpha))


def dense_loss(endpoints, subspace, alpha, x, y):
    """The loss at the mean of the dense products."""
    weights = weights_of(subspace, alpha, ("hidden", "lora_b"))
    kernel = sum(c * a @ b for c, a, b in zip(weights, *endpoints["hidden"].values(), strict=True))
    head = {
        name: jnp.tensordot(weights_of(subspace, alpha, ("head", name)), leaf, 1)
        for name, leaf in endpoints["head"].items()
    }
    return loss_of(x @ kernel, {"head": head, "scale": endpoints["scale"][0]}, x, y)


def dense_cosines(endpoints, names=("kernel",), origin=None):
    """cos² of all pairs, from flat vectors."""

    def vector(network):
        product = network["hidden"]["lora_a"] @ network["hidden"]["lora_b"]
        return jnp.concatenate([jnp.ravel(leaf) for leaf in (product, *(network["head"][name] for name in names))])

    flat = [vector(network) for network in jsubspace.unstack(endpoints)]
    flat = [one - vector(origin) for one in flat] if origin is not None else flat
    return jnp.array([[(a @ b) ** 2 / ((a @ a) * (b @ b)) for a in flat] for b in flat])


def close(actual, expected, rtol=1e-12, atol=1e-13):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


def origin_of(endpoints):
    return jax.tree.map(lambda leaf: leaf + 0.1, jsubspace.unstack(endpoints)[0])


@pytest.mark.parametrize(
    ("subspace", "options"),
    [
        (Line(), {"spread": 0.5}),
        (Line(), {"num_samples": 6, "layerwise": True}),
        (Line(), {"mask": jsubspace.all_leaves, "num_samples": 2}),
        (Simplex(3), {}),
        (Simplex(3), {"origin": origin_of, "all_pairs": True, "beta": 0.3}),
        (Simplex(3), {"num_samples": 2, "batch_argnums": ()}),
        (Curve(), {"layerwise": True}),
        (Curve(), {"beta": 0.0}),
        (Point(), {}),
    ],
)
def test_the_gradient_is_that_of_the_dense_products(subspace, options, x64):
    endpoints, batch = problem(subspace)
    options = options | ({"origin": options["origin"](endpoints)} if "origin" in options else {})
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, products=PAIR, **options)
    samples, m = options.get("num_samples", 1), subspace.num_endpoints
    cut = options.get("batch_argnums") is None
    names = ("kernel", "bias") if "mask" in options else ("kernel",)

    @jax.jit
    def found_expected_and_ordinary(endpoints):
        (value, info), grads = grad_fn(KEY, endpoints, *batch)
        chosen = [*itertools.combinations(range(m), 2)]
        if m > 1 and not options.get("all_pairs"):
            chosen = [jsubspace.sample_pair(jax.random.split(KEY)[1], m)]

        def objective(endpoints):
            total = 0
            for s in range(samples):
                alpha = info.alpha if samples == 1 else jax.tree.map(lambda leaf: leaf[s], info.alpha)  # noqa: B023
                part = [leaf[s::samples] if cut else leaf for leaf in batch]
                total += dense_loss(endpoints, subspace, alpha, *part) / samples
            if chosen and options.get("beta", 1):
                cosines = dense_cosines(endpoints, names, options.get("origin"))
                total += options.get("beta", 1.0) * sum(cosines[j, k] for j, k in chosen) / len(chosen)
            return total

        expected = jax.value_and_grad(objective)(endpoints)
        ordinary = jsubspace.value_and_grad(loss_fn, subspace, **options)(KEY, endpoints, *batch)[1] if m > 1 else None
        return (value, grads), expected, ordinary

    (value, grads), expected, ordinary = found_expected_and_ordinary(endpoints)
    close((value, grads), expected)
    assert grads["scale"].shape == (1, 4)
    if m > 1:
        assert not np.allclose(ordinary["hidden"]["lora_a"], grads["hidden"]["lora_a"], rtol=0.01)


@pytest.mark.parametrize("option", ["at_point", "sam_rho"])
def test_options_at_the_point_see_the_factors_of_the_point(option, x64):
    """The point's factors are put together by hand, and its gradient is cut by hand."""
    subspace, alpha = Simplex(3), jnp.array([0.2, 0.5, 0.3])
    endpoints, batch = problem(subspace)
    clip = optax.clip_by_global_norm(0.01)
    given = (
        {"at_point": lambda grad: clip.update(grad, clip.init(grad))[0]} if option == "at_point" else {"sam_rho": 0.2}
    )
    grad_fn = jsubspace.value_and_grad_at(loss_fn, subspace, products=[PAIR], beta=0, **given)
    _, grads = jax.jit(lambda endpoints: grad_fn(alpha, (), endpoints, *batch))(endpoints)
    grad, expected = jax.jit(lambda endpoints: by_hand(option, alpha, endpoints, batch))(endpoints)
    assert not np.allclose(expected["scale"], grad["scale"], rtol=1e-3)
    cut = {
        "lora_a": np.stack(np.split(expected["hidden"]["lora_a"], 3, axis=1)),
        "lora_b": np.stack(
            [c * g for c, g in zip(np.asarray(alpha), np.split(expected["hidden"]["lora_b"], 3), strict=True)]
        ),
    }
    head = jax.tree.map(lambda g: np.tensordot(alpha, g, 0), expected["head"])
    close(grads, {"hidden": cut, "head": head, "scale": expected["scale"][None]}, rtol=1e-11)


def by_hand(option, alpha, endpoints, batch):
    """The gradient at the point, and what becomes of it there."""
    first, second = endpoints["hidden"].values()
    point = jsubspace.interpolate(endpoints, alpha) | {
        "hidden": {
            "lora_a": jnp.concatenate([*first], axis=1),
            "lora_b": jnp.concatenate([c * b for c, b in zip(alpha, second, strict=True)]),
        }
    }
    grad = jax.grad(loss_fn)(point, *batch)
    norm = optax.tree.norm(grad)
    if option == "at_point":
        return grad, jax.tree.map(lambda g: g * 0.01 / norm, grad)
    return grad, jax.grad(loss_fn)(jax.tree.map(lambda p, g: p + 0.2 * g / norm, point, grad), *batch)


@pytest.mark.parametrize("subspace", [Line(), Simplex(3), Curve()], ids=repr)
def test_points_have_the_mean_of_the_products(subspace, x64):
    """At the corners, the center and beyond the ends. The mean of the factors has another product."""
    endpoints, _ = problem(subspace)
    products = np.asarray(endpoints["hidden"]["lora_a"]) @ np.asarray(endpoints["hidden"]["lora_b"])

    @jax.jit
    def points(alpha):
        """Of the products and of the factors, and the weights."""
        made = jsubspace.as_products(endpoints, PAIR)
        return *(jsubspace.interpolate(e, alpha, subspace) for e in (made, endpoints)), subspace.coefficients(alpha)

    for alpha in (*subspace.ends, subspace.center, 1.3 * subspace.ends[0] - 0.3 * subspace.ends[1]):
        point, ordinary, weights = jax.device_get(points(jnp.asarray(alpha)))
        expected = np.tensordot(weights, products, 1)
        close(point["hidden"]["lora_a"] @ point["hidden"]["lora_b"], expected)
        assert point["hidden"]["lora_a"].shape == (D, subspace.num_endpoints * RANK)
        close(point["head"], ordinary["head"], rtol=0, atol=0)
    _, center, weights = jax.device_get(points(jnp.asarray(subspace.center)))
    dense = np.tensordot(weights, products, 1)
    center = center["hidden"]["lora_a"] @ center["hidden"]["lora_b"]
    assert np.linalg.norm(center - dense) > 0.3 * np.linalg.norm(dense)


def test_other_layouts(x64):
    """PyTorch's B A, layers that are stacked for a scan, a path as a name, and several pairs at once."""
    rng = np.random.default_rng(1)
    layers = {
        "q": {
            "lora_A": {"kernel": rng.normal(size=(2, 3, RANK, D))},
            "lora_B": {"kernel": rng.normal(size=(2, 3, E, RANK))},
        },
        "k": {"down": rng.normal(size=(2, D, 1)), "up": rng.normal(size=(2, 1, E))},
    }
    endpoints = {"blocks": layers}
    pairs = [("lora_B/kernel", "lora_A/kernel"), ("down", "up")]
    q, k = layers["q"], layers["k"]
    dense = {"q": {"kernel": q["lora_B"]["kernel"] @ q["lora_A"]["kernel"]}, "k": {"kernel": k["down"] @ k["up"]}}

    @jax.jit
    def results(endpoints, dense):
        point = jsubspace.interpolate(jsubspace.as_products(endpoints, pairs), 0.3)["blocks"]
        ours = jsubspace.cosine_squared(endpoints, 0, 1, products=pairs)
        return point, ours, jsubspace.cosine_squared(dense, 0, 1), jsubspace.cosine_squared(endpoints, 0, 1)

    point, cosine, expected_cosine, of_factors = jax.device_get(results(endpoints, dense))
    expected = jax.tree.map(lambda leaf: 0.7 * leaf[0] + 0.3 * leaf[1], dense)
    close(point["q"]["lora_B"]["kernel"] @ point["q"]["lora_A"]["kernel"], expected["q"]["kernel"])
    close(point["k"]["down"] @ point["k"]["up"], expected["k"]["kernel"])
    close(cosine, expected_cosine)
    assert not np.allclose(of_factors, expected_cosine, rtol=0.01)


def test_every_layer_of_a_scan_has_its_position_on_the_products(x64):
    """Layers that are stacked for a scan have an alpha each, in the gradient and at the points."""
    rng = np.random.default_rng(4)
    endpoints = {
        "blocks": {
            "lora_a": jnp.asarray(rng.normal(size=(2, 3, D, RANK))),
            "lora_b": jnp.asarray(rng.normal(size=(2, 3, RANK, D))),
        }
    }
    names = jsubspace.layers(endpoints, scanned="blocks")
    x = jnp.asarray(rng.normal(size=(6, D)))

    def loss(point):
        h = x
        for layer in range(3):
            h = jnp.tanh((h @ point["blocks"]["lora_a"][layer]) @ point["blocks"]["lora_b"][layer])
        return jnp.mean(h**2)

    def dense(endpoints, alpha):
        products, h = endpoints["blocks"]["lora_a"] @ endpoints["blocks"]["lora_b"], x
        for layer, a in enumerate(alpha["blocks"]["lora_b"]):
            h = jnp.tanh(h @ ((1 - a) * products[0, layer] + a * products[1, layer]))
        return jnp.mean(h**2)

    @jax.jit
    def results(endpoints):
        grad_fn = jsubspace.value_and_grad(loss, Line(), layerwise=names, products=PAIR, beta=0)
        (_, info), grads = grad_fn(KEY, endpoints)
        point = jsubspace.interpolate(jsubspace.as_products(endpoints, PAIR), info.alpha, Line())
        return info, grads, jax.value_and_grad(dense)(endpoints, info.alpha), loss(point)

    info, grads, expected, loss_at_point = results(endpoints)
    assert len({*info.alpha["blocks"]["lora_b"].tolist()}) == 3
    close((info.loss, grads), expected)
    close(loss_at_point, info.loss)


def test_cosines_of_products(x64):
    endpoints, _ = problem(Simplex(3))
    origin = origin_of(endpoints)

    @jax.jit
    def cosines(start):
        options = {"origin": start, "products": PAIR}
        functions = (jsubspace.cosines_squared, jsubspace.mean_cosine_squared)
        one = jsubspace.cosine_squared(endpoints, 2, 0, **options)
        return *(function(endpoints, **options) for function in functions), one, dense_cosines(endpoints, origin=start)

    for start in (None, origin):
        all_pairs, mean, one, expected = jax.device_get(cosines(start))
        close(all_pairs, expected)
        close(one, expected[2, 0])
        close(mean, expected[np.triu_indices(3, 1)].mean())


def test_a_network_has_many_factors_and_one_penalty(x64):
    """A R and R^-1 B are the same network: penalty and cosines are the same, and gradients are those of the same objective."""
    endpoints, batch = problem(Line())
    mix = np.random.default_rng(2).normal(size=(2, RANK, RANK))
    first, second = map(np.asarray, endpoints["hidden"].values())
    turned = endpoints | {"hidden": {"lora_a": first @ mix, "lora_b": np.linalg.inv(mix) @ second}}
    turned = jax.tree.map(jnp.asarray, turned)
    grad_fn = jax.jit(jsubspace.value_and_grad_at(loss_fn, Line(), products=PAIR))
    (value, info), grads = grad_fn(0.3, (0, 1), endpoints, *batch)
    (same_value, same_info), same = grad_fn(0.3, (0, 1), turned, *batch)
    close((same_value, same_info.penalty), (value, info.penalty), rtol=1e-10)
    turned_back = {
        "lora_a": np.asarray(same["hidden"]["lora_a"]) @ np.swapaxes(mix, 1, 2),
        "lora_b": np.swapaxes(np.linalg.inv(mix), 1, 2) @ np.asarray(same["hidden"]["lora_b"]),
    }
    close(turned_back, grads["hidden"], rtol=1e-9, atol=1e-11)
    cosine = jax.jit(lambda e: jsubspace.cosine_squared(e, 0, 1))
    assert not np.allclose(cosine(endpoints), cosine(turned), rtol=0.01)


def shapes(jaxpr):
    """Of all arrays of a jaxpr and of the jaxprs inside of it."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in (*equation.invars, *equation.outvars))
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from shapes(inner)


@pytest.mark.parametrize("options", [{}, {"num_samples": 6, "layerwise": True, "sam_rho": 0.1}, {"origin": origin_of}])
def test_no_array_has_the_size_of_the_kernel(options):
    endpoints, batch = problem(Simplex(3))
    options = options | ({"origin": options["origin"](endpoints)} if "origin" in options else {})
    grad_fn = jsubspace.value_and_grad(loss_fn, Simplex(3), products=PAIR, **options)
    seen = {*shapes(jax.make_jaxpr(grad_fn)(KEY, endpoints, *batch).jaxpr)}
    assert len(seen) > 20
    assert not [shape for shape in seen if {D, E} <= {*shape} or D * E in shape]
    dense = jax.make_jaxpr(jax.grad(lambda e: dense_cosines(e)[0, 1]))(endpoints).jaxpr
    assert [shape for shape in shapes(dense) if {D, E} <= {*shape}]  # The walk would notice.


def test_factors_of_zero_and_small_factors():
    """lora_b starts at zero: the penalty is 0, without NaN. Later products may be too small for their squares."""
    endpoints, _ = problem(Simplex(3))
    low = jax.tree.map(np.asarray, {"hidden": endpoints["hidden"]})
    dense = jax.jit(jsubspace.cosines_squared)({"kernel": low["hidden"]["lora_a"] @ low["hidden"]["lora_b"]})
    grad_fn = jax.jit(jsubspace.value_and_grad(lambda point: jnp.zeros(()), Simplex(3), products=PAIR, all_pairs=True))
    unit = grad_fn(KEY, low)[1]["hidden"]["lora_b"]
    for size in (0.0, 1e-15, 1.0, 1e15):
        (_, info), grads = grad_fn(
            KEY, {"hidden": low["hidden"] | {"lora_b": np.float32(size) * low["hidden"]["lora_b"]}}
        )
        expected = np.mean(np.asarray(dense)[np.triu_indices(3, 1)]) if size else 0
        np.testing.assert_allclose(info.penalty, expected, rtol=1e-5)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
        if size:  # The derivative with respect to B is inversely proportional to B.
            close(np.asarray(grads["hidden"]["lora_b"]) * size, unit, rtol=1e-3, atol=1e-6)


def test_which_leaves_count():
    """By default all factors do, also of rank one, whose leaves are no kernels. A product counts as a whole."""
    shapes = {"lora_a": (2, D, 1), "lora_b": (2, 1, E), "bias": (2, E)}
    endpoints = {name: jnp.asarray(np.ones(shape, np.float32)) for name, shape in shapes.items()}
    cosine = jax.jit(lambda endpoints: jsubspace.cosine_squared(endpoints, 0, 1, products=PAIR))
    assert not any(jsubspace.kernels(endpoints).values())
    close(cosine(endpoints), 1, rtol=1e-6)
    half = {"lora_a": True, "lora_b": False, "bias": True}
    with pytest.raises(
        ValueError, match="the mask counts one of the leaves lora_a and lora_b, but they form a product"
    ):
        jsubspace.cosine_squared(endpoints, 0, 1, half, products=PAIR)
    endpoints["bias"] = jnp.asarray(np.eye(2, E, dtype=np.float32))
    only_bias = {"lora_a": False, "lora_b": False, "bias": True}
    assert jax.jit(lambda e: jsubspace.cosine_squared(e, 0, 1, only_bias, products=PAIR))(endpoints) == 0


@pytest.mark.parametrize(("options", "check_vma"), [({}, True), ({"num_samples": 3}, False)])
def test_on_eight_devices(options, check_vma):
    endpoints, batch = problem(Line())
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    data, whole = jax.P("data"), jax.P()
    alone = jax.jit(jsubspace.value_and_grad(loss_fn, Line(), products=PAIR, **options))(KEY, endpoints, *batch)
    on_all = jsubspace.value_and_grad(loss_fn, Line(), products=PAIR, axis_name="data", **options)
    mapped = jax.shard_map(
        on_all, mesh=mesh, in_specs=(whole, whole, data, data), out_specs=((whole, whole), whole), check_vma=check_vma
    )
    result = jax.jit(mapped)(KEY, endpoints, *batch)
    close((result[0][0], result[1]), (alone[0][0], alone[1]), rtol=1e-4, atol=1e-6)


def test_lora_of_nnx_trains_a_line_of_products():
    """The module runs with factors of the point's rank, and the midpoint's product is the mean of the ends' products."""
    from flax import nnx

    class Adapted(nnx.Module):
        def __init__(self, rngs):
            self.lora = nnx.LoRA(D, RANK, E, rngs=rngs)

        def __call__(self, x):
            return self.lora(x)

    graph, _, rest = nnx.split(Adapted(nnx.Rngs(0)), nnx.LoRAParam, ...)

    @jax.jit
    def start():
        return jsubspace.init_endpoints(KEY, lambda k: nnx.state(Adapted(nnx.Rngs(k)), nnx.LoRAParam), Line())

    endpoints = start()
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(40, D)), jnp.float32)
    y = x @ jnp.asarray(rng.normal(size=(D, 1)) @ rng.normal(size=(1, E)), jnp.float32) / 5

    def predict(point, x):
        return nnx.merge(graph, point, rest)(x)

    def squares(point, x, y):
        return jnp.mean((predict(point, x) - y) ** 2)

    grad_fn, tx = jsubspace.value_and_grad(squares, Line(), products=PAIR), optax.adam(0.02)

    @jax.jit
    def step(carry, key):
        endpoints, state = carry
        (_, info), grads = grad_fn(key, endpoints, x, y)
        updates, state = tx.update(grads, state, endpoints)
        return (optax.apply_updates(endpoints, updates), state), (info.loss, info.penalty)

    (trained, _), (losses, penalties) = jax.lax.scan(step, (endpoints, tx.init(endpoints)), jax.random.split(KEY, 200))
    assert penalties[0] == 0
    assert losses[-1] < 0.5 * losses[0]
    network = jsubspace.midpoint(jsubspace.as_products(trained, PAIR))
    ends = [predict(end, x) for end in jsubspace.unstack(trained)]
    close(predict(network, x), sum(ends) / 2, rtol=1e-4, atol=1e-5)


def test_the_pull_back_of_the_center_is_refused():
    with pytest.raises(ValueError, match='pull_back is "center", but with products the gradient of a first factor'):
        jsubspace.value_and_grad(loss_fn, Line(), products=PAIR, pull_back="center")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("lora_a", "products are 'lora_a', but they must be the names of two factors"),
        (("lora_a",), "they must be the names of two factors in the order of their product"),
        ([("lora_a", "lora_b"), "head"], "they must be the names"),
        ((), "they must be the names"),
        (("lora_a", 3), "they must be the names"),
        (None, "products are None, but"),
        (("lora_c", "lora_b"), "name a factor 'lora_c', but no leaf has this name. The leaves are called bias, kernel, lora_a"),
        (("lora_a", "kernel"), "leaf hidden/lora_a is a factor, but there is no kernel beside it"),
        (("lora_b", "lora_a"), r"leaf hidden/lora_b of shape \[2, 11\] cannot be multiplied by leaf hidden/lora_a of .*order"),
        (("kernel", "bias"), r"leaf head/bias has shape \[4\] in one network, but a factor is a matrix"),
        (("scale", "scale"), "leaf scale is a factor that all endpoints share. Then the product is linear"),
        ([PAIR, PAIR], "leaf hidden/lora_a is a factor of two products"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_product_is_refused(pairs, message):
    endpoints, batch = problem(Line())
    calls = [
        lambda: jsubspace.as_products(endpoints, pairs),
        lambda: jsubspace.value_and_grad(loss_fn, Line(), products=pairs)(KEY, endpoints, *batch),
        lambda: jsubspace.cosines_squared(endpoints, products=pairs),
    ]
    for call in calls[: 1 if pairs is None else 3]:
        with pytest.raises(ValueError, match=message):
            call()
