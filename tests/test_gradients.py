"""Algorithm 1: the same gradient as plain autodiff through interpolate, on any number of devices, at the cost of one network."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jsubspace
from experiments.lib.collectives import collectives
from jsubspace import Curve, Line, Point, Simplex, gradients


def loss_fn(point, batch):
    """Not linear in the parameters, so that the gradient depends on where it is taken."""
    x, y = batch
    hidden = jnp.tanh(x @ point["hidden"]["kernel"] + point["hidden"]["bias"])
    return jnp.mean((hidden @ point["head"]["kernel"] - y) ** 2)


def problem(subspace, n=24):
    """Endpoints and a batch (x, y)."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    m = subspace.num_endpoints
    endpoints = {"hidden": {"kernel": normal(m, 4, 6), "bias": normal(m, 6)}, "head": {"kernel": normal(m, 6, 3)}}
    return endpoints, (normal(n, 4), normal(n, 3))


def assert_trees_close(actual, expected, rtol=1e-11, atol=1e-13):
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


def autodiff(subspace, beta, mask, alpha, endpoints, batch):
    """Equation 2 plus 5, differentiated as it stands."""

    def objective(endpoints):
        loss = loss_fn(jsubspace.interpolate(endpoints, alpha, subspace), batch)
        penalised = beta > 0 and subspace.num_endpoints > 1
        penalty = jsubspace.mean_cosine_squared(endpoints, mask) if penalised else jnp.zeros(())
        return loss + beta * penalty, (loss, penalty)

    return jax.jit(jax.value_and_grad(objective, has_aux=True))(endpoints)


@pytest.mark.parametrize(
    ("subspace", "beta", "layerwise", "mask"),
    [
        (Point(), 1.0, True, None),
        (Line(), 0.0, False, None),
        (Line(), 1.0, True, None),
        pytest.param(Curve(), 1.0, False, None, marks=pytest.mark.slow),
        (Curve(), 2.0, True, jsubspace.all_leaves),
        (Curve(2), 1.0, False, None),
        pytest.param(Simplex(2), 2.0, False, jsubspace.all_leaves, marks=pytest.mark.slow),
        pytest.param(Simplex(4), 1.0, False, None, marks=pytest.mark.slow),
        (Simplex(4), 1.0, True, jsubspace.all_leaves),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_same_as_plain_autodiff(subspace, beta, layerwise, mask, x64):
    endpoints, batch = problem(subspace)
    grad_fn = jax.jit(
        jsubspace.value_and_grad(loss_fn, subspace, beta=beta, layerwise=layerwise, mask=mask, all_pairs=True)
    )
    (value, info), grads = grad_fn(jax.random.key(3), endpoints, batch)
    (expected_value, (loss, penalty)), expected = autodiff(subspace, beta, mask, info.alpha, endpoints, batch)
    np.testing.assert_allclose([value, info.loss, info.penalty], [expected_value, loss, penalty], rtol=1e-13)
    assert_trees_close(grads, expected)
    assert info.aux is None


@pytest.mark.parametrize("subspace", [Curve(), Simplex(4)], ids=repr)
def test_one_random_pair_is_penalised(subspace, x64):
    """The penalty's value tells which pair it was; the gradient is that pair's, and every pair comes up."""
    endpoints, batch = problem(subspace)
    pairs = list(itertools.combinations(range(subspace.num_endpoints), 2))
    cosines = np.array(jax.jit(lambda e: [jsubspace.cosine_squared(e, j, k) for j, k in pairs])(endpoints))
    grad_fn = jax.jit(jsubspace.value_and_grad(loss_fn, subspace, beta=1.5))
    task = gradients.value_and_grad_at(loss_fn, subspace, beta=0.0)

    @jax.jit
    def with_pair(alpha, j, k):
        of_pair = jax.grad(jsubspace.cosine_squared)(endpoints, j, k)
        return jax.tree.map(lambda a, b: a + 1.5 * b, task(alpha, (), endpoints, batch)[1], of_pair)

    seen = set()
    for seed in range(30):
        (value, info), grads = grad_fn(jax.random.key(seed), endpoints, batch)
        n = int(np.argmin(np.abs(cosines - float(info.penalty))))
        np.testing.assert_allclose(info.penalty, cosines[n], rtol=1e-12)
        np.testing.assert_allclose(value, info.loss + 1.5 * info.penalty, rtol=1e-14)
        if pairs[n] not in seen:
            assert_trees_close(grads, with_pair(info.alpha, *pairs[n]))
        seen.add(pairs[n])
    assert seen == set(pairs)


def test_at_chosen_positions(x64):
    """`value_and_grad_at` takes alpha outside the domain, and a pair in either order, traced or not."""
    endpoints, batch = problem(Line())
    grad_fn = jax.jit(gradients.value_and_grad_at(loss_fn, Line()))
    expected_grad_fn = jax.jit(functools.partial(autodiff, Line(), 1.0, None))
    for alpha in (-0.05, 0.0, 0.3, 1.05):
        (value, info), grads = grad_fn(alpha, (0, 1), endpoints, batch)
        (expected_value, _), expected = expected_grad_fn(alpha, endpoints, batch)
        np.testing.assert_allclose(value, expected_value, rtol=1e-13)
        assert_trees_close(grads, expected)
        assert info.alpha == alpha
    assert_trees_close(grad_fn(1.05, (1, 0), endpoints, batch)[1], expected)


def test_by_hand():
    """loss = w^2 / 2 at w = (1-a) w_1 + a w_2 has the gradients (1-a) w and a w."""
    endpoints = {"w": jnp.array([[2.0], [10.0]])}
    grad_fn = gradients.value_and_grad_at(lambda point: jnp.sum(point["w"] ** 2) / 2, Line(), beta=0.0)
    (value, _), grads = grad_fn(0.25, (), endpoints)
    assert value == 8.0
    np.testing.assert_array_equal(grads["w"], [[3.0], [1.0]])


def test_a_point_is_ordinary_training(x64):
    endpoints, batch = problem(Point())
    network = jax.tree.map(lambda leaf: leaf[0], endpoints)
    (value, info), grads = jax.jit(jsubspace.value_and_grad(loss_fn, Point()))(jax.random.key(0), endpoints, batch)
    expected_value, expected = jax.jit(jax.value_and_grad(loss_fn))(network, batch)
    np.testing.assert_allclose(value, expected_value, rtol=1e-14)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[0], grads), expected)
    assert info.penalty == 0


def test_shared_initialisation_has_no_penalty_gradient(x64):
    endpoints = jax.tree.map(lambda leaf: np.tile(leaf, (2,) + (1,) * (leaf.ndim - 1)), problem(Point())[0])
    grad_fn = jsubspace.value_and_grad(lambda point: 0.0 * jnp.sum(point["head"]["kernel"]), Line(), beta=5.0)
    (_, info), grads = jax.jit(grad_fn)(jax.random.key(1), endpoints)
    np.testing.assert_allclose(info.penalty, 1.0, rtol=1e-12)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads)) < 1e-14


@pytest.mark.parametrize(
    ("subspace", "num_samples", "layerwise"),
    [
        (Line(), 2, False),
        (Line(), 4, True),
        pytest.param(Simplex(3), 3, True, marks=pytest.mark.slow),
        (Simplex(3), 6, False),
    ],
)
def test_several_samples(subspace, num_samples, layerwise, x64):
    """Example i goes to part i modulo S; the loss is the mean over parts, more or fewer than endpoints."""
    endpoints, (x, y) = problem(subspace)
    settings = {"layerwise": layerwise, "num_samples": num_samples, "all_pairs": True, "beta": 1.0}
    grad_fn = jsubspace.value_and_grad(
        lambda point, batch: 2.0 * loss_fn(point, (batch["x"], batch["y"])), subspace, **settings
    )
    (value, info), grads = jax.jit(grad_fn)(jax.random.key(3), endpoints, {"x": x, "y": y})
    assert all(leaf.shape == (num_samples, *subspace.alpha_shape) for leaf in jax.tree.leaves(info.alpha))

    def objective(endpoints):
        losses = []
        for s in range(num_samples):
            alpha = jax.tree.map(lambda leaf: leaf[s], info.alpha)  # noqa: B023
            network = jsubspace.interpolate(endpoints, alpha, subspace)
            losses.append(2.0 * loss_fn(network, (x[s::num_samples], y[s::num_samples])))
        return sum(losses) / num_samples + jsubspace.mean_cosine_squared(endpoints)

    expected_value, expected = jax.jit(jax.value_and_grad(objective))(endpoints)
    np.testing.assert_allclose(value, expected_value, rtol=1e-13)
    assert_trees_close(grads, expected)


def test_several_samples_have_several_alphas_and_auxes():
    endpoints, batch = problem(Line())

    def with_aux(point, batch):
        return loss_fn(point, batch), {"sum": jnp.sum(batch[0]), "kernel": point["head"]["kernel"]}

    grad_fn = jax.jit(jsubspace.value_and_grad(with_aux, Line(), num_samples=4, has_aux=True))
    (_, info), _ = grad_fn(jax.random.key(0), endpoints, batch)
    assert len(np.unique(info.alpha)) == 4
    np.testing.assert_allclose(info.aux["sum"], [batch[0][s::4].sum() for s in range(4)], rtol=1e-5)
    assert info.aux["kernel"].shape == (4, 6, 3)


def test_aux_is_handed_on():
    endpoints, batch = problem(Line())
    grad_fn = jsubspace.value_and_grad(
        lambda p, batch: (loss_fn(p, batch), {"kernel": p["head"]["kernel"]}), Line(), has_aux=True
    )
    (value, info), grads = jax.jit(grad_fn)(jax.random.key(0), endpoints, batch)
    expected = (1 - info.alpha) * endpoints["head"]["kernel"][0] + info.alpha * endpoints["head"]["kernel"][1]
    np.testing.assert_allclose(info.aux["kernel"], expected, rtol=1e-5)
    plain = jax.jit(jsubspace.value_and_grad(loss_fn, Line()))(jax.random.key(0), endpoints, batch)
    np.testing.assert_allclose(value, plain[0][0], rtol=1e-6)
    assert_trees_close(grads, plain[1], rtol=1e-4, atol=1e-6)


def test_alpha_is_drawn_from_the_key_and_independent_of_the_pair():
    endpoints, batch = problem(Curve())
    grad_fn = jax.jit(jsubspace.value_and_grad(loss_fn, Curve()))
    alphas = [grad_fn(jax.random.key(seed), endpoints, batch)[0][1].alpha for seed in (0, 0, 1, 2)]
    assert alphas[0] == alphas[1]
    assert len(np.unique(alphas)) == 3

    @jax.vmap
    def draws(key):
        info = jsubspace.value_and_grad(lambda p: 0.0 * p["w"].sum(), Curve(), mask=jsubspace.all_leaves)(
            key, {"w": jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 2.0]])}
        )[0][1]
        return info.alpha, info.penalty

    alpha, penalty = jax.jit(draws)(jax.random.split(jax.random.key(0), 20_000))
    assert abs(np.corrcoef(alpha, penalty)[0, 1]) < 0.03
    np.testing.assert_allclose(np.mean(alpha), 0.5, atol=0.01)


def test_layerwise_with_layers_of_your_own():
    endpoints, batch = problem(Line())
    layers = {"hidden": {"kernel": "first", "bias": "second"}, "head": {"kernel": "first"}}

    @jax.jit
    def alphas(key):
        """With these layers, and with the network's own."""
        grad_fns = (jsubspace.value_and_grad(loss_fn, Line(), layerwise=layerwise) for layerwise in (layers, True))
        return [grad_fn(key, endpoints, batch)[0][1].alpha for grad_fn in grad_fns]

    ours, own = jax.device_get(alphas(jax.random.key(0)))
    assert ours["hidden"]["kernel"] == ours["head"]["kernel"] != ours["hidden"]["bias"]
    assert own["hidden"]["kernel"] == own["hidden"]["bias"] != own["head"]["kernel"]


def test_narrow_parameters_keep_their_dtype_under_strict_promotion():
    for dtype in (jnp.bfloat16, jnp.float32):
        endpoints, batch = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), problem(Simplex(3)))
        for settings in ({}, {"layerwise": True}, {"num_samples": 2}, {"all_pairs": True}):
            grad_fn = jsubspace.value_and_grad(
                lambda *args: loss_fn(*args).astype(jnp.float32), Simplex(3), beta=1.0, **settings
            )
            with jax.numpy_dtype_promotion("strict"):
                (value, info), grads = jax.eval_shape(grad_fn, jax.random.key(0), endpoints, batch)
            assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}
            assert value.dtype == info.loss.dtype == info.penalty.dtype == jnp.float32
            assert not value.weak_type


@pytest.mark.parametrize("settings", [{}, {"layerwise": True}, {"num_samples": 2}, {"all_pairs": True}], ids=str)
def test_a_second_step_is_not_a_second_trace(settings):
    endpoints, batch = problem(Simplex(3))
    chex.clear_trace_counter()
    grad_fn = jax.jit(chex.assert_max_traces(jsubspace.value_and_grad(loss_fn, Simplex(3), **settings), n=1))
    for seed in range(3):
        _, grads = grad_fn(jax.random.key(seed), endpoints, batch)
        endpoints = jax.tree.map(lambda e, g: e - 0.1 * g, endpoints, grads)


def test_a_new_position_is_not_a_new_trace():
    endpoints, batch = problem(Curve())
    chex.clear_trace_counter()
    grad_fn = jax.jit(chex.assert_max_traces(gradients.value_and_grad_at(loss_fn, Curve()), n=1))
    for alpha, pair in [(0.1, (0, 1)), (0.7, (2, 1)), (1.05, (0, 2))]:
        grad_fn(jnp.float32(alpha), pair, endpoints, batch)


# Devices. The oracle is one device with the whole batch; every wrapper must give its gradient, times one.

WRAPPERS = ["pmap", "shard_map", "shard_map, check_vma=False"]


def on_devices(wrapper, num_devices, grad_fn, arguments):
    """((value, loss, penalty), alpha with a leading device axis, grads) of ``grad_fn(key, endpoints, batch)``."""
    key, endpoints, batch = arguments

    def step(key, endpoints, batch):
        (value, info), grads = grad_fn(key, endpoints, batch)
        nothing = 0 * jnp.sum(batch[0])  # to have this device's own alpha returned
        return (value, info.loss, info.penalty), jax.tree.map(lambda a: a[None] + nothing, info.alpha), grads

    if wrapper == "pmap":
        step = jax.pmap(
            step,
            axis_name="batch",
            in_axes=(None, None, 0),
            out_axes=(None, 0, None),
            devices=jax.devices()[:num_devices],
        )
        shards = jax.tree.map(lambda leaf: leaf.reshape(num_devices, -1, *leaf.shape[1:]), batch)
        scalars, alpha, grads = step(key, endpoints, shards)
        return scalars, jax.tree.map(lambda leaf: leaf[:, 0], alpha), grads
    whole, split = PartitionSpec(), PartitionSpec("batch")
    step = jax.shard_map(
        step,
        mesh=Mesh(np.array(jax.devices()[:num_devices]), ("batch",)),
        in_specs=(whole, whole, split),
        out_specs=(whole, split, whole),
        check_vma="check_vma" not in wrapper,
    )
    return jax.jit(step)(key, endpoints, batch)


@functools.cache
def on_one_device(settings):
    grad_fn = jax.jit(jsubspace.value_and_grad(loss_fn, Simplex(3), **dict(settings)))
    return grad_fn(jax.random.key(7), *problem(Simplex(3)))


@pytest.mark.parametrize(
    ("wrapper", "num_devices", "settings"),
    [
        *[("pmap", n, {}) for n in (1, 8)],
        *[pytest.param("pmap", n, {}, marks=pytest.mark.slow) for n in (2, 4)],
        *[(wrapper, 8, {}) for wrapper in WRAPPERS[1:]],
        *[(wrapper, 4, {"layerwise": True, "num_samples": 3}) for wrapper in WRAPPERS[::2]],
        pytest.param(WRAPPERS[1], 4, {"layerwise": True, "num_samples": 3}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_devices_give_the_gradient_of_one(wrapper, num_devices, settings, x64):
    arguments = (jax.random.key(7), *problem(Simplex(3)))
    (value, info), expected = on_one_device(tuple(settings.items()))
    grad_fn = jsubspace.value_and_grad(loss_fn, Simplex(3), axis_name="batch", **settings)
    scalars, alphas, grads = on_devices(wrapper, num_devices, grad_fn, arguments)
    np.testing.assert_allclose(scalars, (value, info.loss, info.penalty), rtol=1e-12)
    same = jax.tree.map(lambda alpha: np.stack([alpha] * num_devices), info.alpha)
    jax.tree.map(np.testing.assert_array_equal, alphas, same)
    one, several = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (expected, grads))
    np.testing.assert_allclose(several @ one / (one @ one), 1, rtol=1e-12)  # the ratio
    assert_trees_close(grads, expected)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_penalty_counts_once_whatever_the_devices(wrapper, x64):
    arguments = (jax.random.key(7), *problem(Line()))
    grad_fn = jsubspace.value_and_grad(lambda *args: 0.0 * loss_fn(*args), Line(), beta=3.0, axis_name="batch")
    scalars, _, grads = on_devices(wrapper, 8, grad_fn, arguments)
    penalty = jax.jit(jax.value_and_grad(lambda e: 3.0 * jsubspace.cosine_squared(e, 0, 1)))
    value, expected = penalty(arguments[1])
    np.testing.assert_allclose(scalars, (value, 0, value / 3), rtol=1e-12)
    assert_trees_close(grads, expected)


def test_works_under_vmap_with_an_axis_name():
    endpoints, batch = problem(Line())
    grad_fn = jsubspace.value_and_grad(loss_fn, Line(), axis_name="batch")
    mapped = jax.vmap(grad_fn, in_axes=(None, None, 0), out_axes=((None, None), None), axis_name="batch")
    (value, _), grads = jax.jit(mapped)(
        jax.random.key(0), endpoints, jax.tree.map(lambda leaf: leaf.reshape(4, 6, -1), batch)
    )
    alone = jax.jit(jsubspace.value_and_grad(loss_fn, Line()))
    (expected_value, _), expected = alone(jax.random.key(0), endpoints, batch)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    assert_trees_close(grads, expected, rtol=1e-4, atol=1e-6)


def all_reduced_numbers(grad_fn, endpoints, batch):
    """How many numbers travel between devices in one compiled step."""
    step = jax.pmap(
        lambda *args: (lambda out: (out[0][0], out[1]))(grad_fn(*args)),
        axis_name="batch",
        in_axes=(None, None, 0),
        out_axes=(None, None),
        devices=jax.devices()[:2],
    )
    shards = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batch)
    program = step.lower(jax.random.key(0), endpoints, shards).compile().as_text()
    found = collectives(program)
    assert {collective.kind for collective in found} == {"all-reduce"}
    return sum(collective.numbers for collective in found)


@pytest.mark.parametrize(
    ("subspace", "layerwise"),
    [
        (Point(), False),
        (Line(), False),
        pytest.param(Curve(), False, marks=pytest.mark.slow),
        (Simplex(6), False),
        (Simplex(6), True),
    ],
    ids=repr,
)
def test_what_travels_has_the_size_of_one_network(subspace, layerwise):
    endpoints, batch = problem(subspace)
    one_network = sum(leaf[0].size for leaf in jax.tree.leaves(endpoints))
    loss = 1
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, layerwise=layerwise, axis_name="batch")
    assert all_reduced_numbers(grad_fn, endpoints, batch) == one_network + loss


def test_several_samples_cut_every_argument_and_split_keys():
    """Parts stay together whether the batch is one argument or several, and each part has a key of its own."""
    endpoints, batch = problem(Simplex(3))

    def with_key(point, x, y, key):
        return loss_fn(point, (x, y)), (x, y, jax.random.key_data(key))

    grad_fn = jsubspace.value_and_grad(with_key, Simplex(3), num_samples=4, has_aux=True)
    (value, info), grads = jax.jit(grad_fn)(jax.random.key(0), endpoints, *batch, jax.random.key(5))
    together = jax.jit(jsubspace.value_and_grad(loss_fn, Simplex(3), num_samples=4))
    (expected, _), expected_grads = together(jax.random.key(0), endpoints, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, expected_grads)
    x_parts, y_parts, keys = info.aux
    for s in range(4):
        np.testing.assert_array_equal(x_parts[s], batch[0][s::4])
        np.testing.assert_array_equal(y_parts[s], batch[1][s::4])
    assert len({tuple(key) for key in np.asarray(keys).tolist()}) == 4


@pytest.mark.parametrize(
    ("m", "num_samples", "networks"), [(3, 2, 2), pytest.param(2, 2, 2, marks=pytest.mark.slow), (2, 6, 2)]
)
def test_of_samples_and_endpoints_the_fewer_travel(m, num_samples, networks):
    endpoints, batch = problem(Simplex(m))
    one_network = sum(leaf[0].size for leaf in jax.tree.leaves(endpoints))
    grad_fn = jsubspace.value_and_grad(loss_fn, Simplex(m), num_samples=num_samples, axis_name="batch")
    assert all_reduced_numbers(grad_fn, endpoints, batch) == networks * one_network + 1


# Mistakes.


@pytest.mark.parametrize("make", [jsubspace.value_and_grad, gradients.value_and_grad_at])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -0.5}, "beta is -0.5, but the penalty's strength is finite and at least 0"),
        ({"beta": float("inf")}, "beta is inf, but the penalty's strength is finite"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"num_samples": 0}, "num_samples is 0, but a step takes at least one sample of alpha"),
    ],
)
def test_settings_are_checked_before_anything_runs(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(loss_fn, Line(), **settings)


def test_calls_that_do_not_fit():
    endpoints, batch = problem(Simplex(3))
    with pytest.raises(ValueError, match=r"Line\(\) has 2 endpoints but the parameters have 3"):
        jsubspace.value_and_grad(loss_fn, Line())(jax.random.key(0), endpoints, batch)
    with pytest.raises(ValueError, match=r"argument \[0\]\['x'\] of shape \[24, 4\] cannot be cut into num_samples=5"):
        jsubspace.value_and_grad(loss_fn, Simplex(3), num_samples=5)(jax.random.key(0), endpoints, {"x": batch[0]})
    with pytest.raises(ValueError, match=r"argument \[0\] of shape \[\] cannot be cut.*close over"):
        jsubspace.value_and_grad(lambda p, t: t, Simplex(3), num_samples=2)(jax.random.key(0), endpoints, jnp.ones(()))
    with pytest.raises(ValueError, match="the mask has the structure"):
        jsubspace.value_and_grad(loss_fn, Simplex(3), mask={"head": True})(jax.random.key(0), endpoints, batch)
