"""Options of the gradient: each is the identity when it does nothing, and else the gradient of an objective written out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import Line, Simplex, gradients, penalties

KEY = jax.random.key(3)


def loss_fn(point, x, y):
    """Not linear in the parameters, so that the gradient depends on where it is taken."""
    return jnp.mean((jnp.tanh(x @ point["kernel"]) * point["scale"] - y) ** 2)


def problem(subspace, n=24):
    """Endpoints and a batch, in the default dtype."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    m = subspace.num_endpoints
    return {"kernel": normal(m, 8, 5), "scale": 1 + normal(m, 5)}, (normal(n, 8), normal(n, 5))


def close(actual, expected, rtol=1e-10, atol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


def same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


# A strength that is traced.


@pytest.mark.parametrize("subspace", [Line(), Simplex(3)], ids=repr)
def test_a_traced_beta_is_the_number(subspace):
    endpoints, batch = problem(subspace)

    def gradient(beta):
        return jsubspace.value_and_grad(loss_fn, subspace, beta=beta)(KEY, endpoints, *batch)

    compiled = jax.jit(gradient)
    traced, zero = compiled(0.7), compiled(0.0)
    numbers = jax.jit(lambda: (gradient(0.7), gradient(0.0)))()
    close(traced, numbers[0], rtol=1e-6, atol=1e-7)
    assert not traced[0][0].weak_type
    assert not np.allclose(traced[1]["kernel"], zero[1]["kernel"])
    close(zero[1], numbers[1][1], rtol=1e-6, atol=1e-7)


def test_a_warm_up_compiles_once_and_betas_can_be_mapped():
    endpoints, batch = problem(Line())

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(endpoints, i):
        beta = jnp.minimum(i / 3, 2.0)
        (value, info), grads = jsubspace.value_and_grad(loss_fn, Line(), beta=beta)(KEY, endpoints, *batch)
        return value - info.loss, beta * info.penalty, jax.tree.map(lambda e, g: e - 0.1 * g, endpoints, grads)

    trained = endpoints
    for i in range(4):
        added, expected, trained = step(trained, jnp.float32(i))
        np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-7)

    betas = jnp.array([0.0, 0.5, 3.0])
    at = jsubspace.value_and_grad_at

    def gradient(beta):
        return at(loss_fn, Line(), beta=beta)(0.3, (0, 1), endpoints, *batch)[1]

    mapped, alone = jax.device_get(jax.jit(jax.vmap(gradient))(betas)), jax.jit(gradient)
    for i, beta in enumerate(np.asarray(betas)):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], mapped), alone(beta), rtol=1e-5, atol=1e-6)


def test_a_traced_beta_has_the_dtype_of_the_loss_under_strict_promotion():
    endpoints, batch = problem(Line())

    def gradient(beta):
        return jsubspace.value_and_grad(loss_fn, Line(), beta=beta)(KEY, endpoints, *batch)

    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        for dtype in (jnp.int32, jnp.float64, jnp.bfloat16):
            (value, _), grads = jax.eval_shape(gradient, jax.ShapeDtypeStruct((), dtype))
            assert {value.dtype, *(leaf.dtype for leaf in jax.tree.leaves(grads))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("make", [jsubspace.value_and_grad, gradients.value_and_grad_at])
@pytest.mark.parametrize(
    ("beta", "message"),
    [
        (lambda step: 0.1, r"beta is <function .*pass its value, as in beta=schedule\(step\)"),
        ("1", "beta is 1, but the penalty's strength is finite"),
        (None, "beta is None, but the penalty's strength"),
        (1j, "beta is 1j, but"),
        (np.ones(2), r"beta is \[1. 1.\], but the penalty's strength is finite"),
    ],
    ids=["function", "text", "None", "complex", "vector"],
)
def test_a_beta_that_is_no_number(make, beta, message):
    with pytest.raises(ValueError, match=message):
        make(loss_fn, Line(), beta=beta)


def test_a_traced_beta_that_is_no_scalar():
    with pytest.raises(ValueError, match=r"beta is an array of shape \[2\] and dtype float32, but the penalty's"):
        jax.eval_shape(lambda beta: jsubspace.value_and_grad(loss_fn, Line(), beta=beta) and beta, jnp.ones(2))


# Keyword arguments of the loss.


@pytest.mark.parametrize("num_samples", [1, 3])
def test_keywords_are_positional_arguments(num_samples):
    """Also where they have the names of arguments of grad_fn, and a key among them is split."""
    endpoints, (x, y) = problem(Line())

    def noisy(point, x, y, key):
        return loss_fn(point, x + jax.random.normal(key, (8,)), y), jax.random.key_data(key)

    def renamed(point, endpoints, *, alpha, key):
        return noisy(point, endpoints, alpha, key)

    positional, named = (
        jsubspace.value_and_grad(fn, Line(), num_samples=num_samples, has_aux=True) for fn in (noisy, renamed)
    )
    noise = jax.random.key(5)
    expected = jax.jit(lambda endpoints, x, y: positional(KEY, endpoints, x, y, noise))(endpoints, x, y)
    found = jax.jit(lambda endpoints, x, y: named(KEY, endpoints, x, alpha=y, key=noise))(endpoints, x, y)
    same(found, expected)
    assert len(np.unique(np.atleast_2d(expected[0][1].aux), axis=0)) == num_samples


@pytest.mark.parametrize("wrapper", [lambda function: function, jax.jit], ids=["eager", "jit"])
def test_a_loss_may_use_the_names_of_the_first_arguments(wrapper):
    def loss_fn(point, x, key, endpoints, alpha, chosen):
        return jnp.sum(point["kernel"] * x) + key + 10 * endpoints + 100 * alpha + 1000 * chosen

    endpoints, numbers = {"kernel": jnp.zeros((2, 2, 2))}, {"key": 1.0, "endpoints": 2.0, "alpha": 3.0, "chosen": 4.0}
    grad_fn = wrapper(jsubspace.value_and_grad(loss_fn, Line(), beta=0))
    grad_at = wrapper(jsubspace.value_and_grad_at(loss_fn, Line(), beta=0))
    for (value, _), _ in (
        grad_fn(jax.random.key(0), endpoints, jnp.ones((2, 2)), **numbers),
        grad_at(jnp.float32(0.5), (0, 1), endpoints, jnp.ones((2, 2)), **numbers),
    ):
        assert value == 4321


def test_a_keyword_that_cannot_be_cut_is_named():
    endpoints, (x, y) = problem(Line())
    with pytest.raises(ValueError, match=r"argument \['x'\] of shape \[24, 8\] cannot be cut into num_samples=5"):
        jsubspace.value_and_grad(loss_fn, Line(), num_samples=5)(KEY, endpoints, y=y, x=x)


@pytest.mark.parametrize(
    ("first", "given"),
    [
        ({"kernel": jnp.ones((2, 8, 5))}, r"a dict with leaf \['kernel'\], an array float32\[2, 8, 5\]"),
        (jnp.ones((2, 8, 5)), r"an array float32\[2, 8, 5\]"),
        (0, "0"),
        (jax.random.split(KEY), r"an array of keys, of shape \[2\]"),
    ],
    ids=["dict", "array", "int", "keys"],
)
def test_the_first_argument_is_a_key(first, given):
    with pytest.raises(
        ValueError, match=rf"the first argument is {given}, but it must be one PRNG key, .* grad_fn\(key"
    ):
        jsubspace.value_and_grad(loss_fn, Line())(first, KEY)
    endpoints, batch = problem(Line())
    grad_fn = jax.jit(jsubspace.value_and_grad(loss_fn, Line()))
    same(grad_fn(jax.random.PRNGKey(3), endpoints, *batch)[1], grad_fn(KEY, endpoints, *batch)[1])


# A loss that sees alpha.


def conditional(point, alpha, x, y):
    """A trade-off between two objectives: a Pareto front along a line."""
    alpha = alpha["kernel"] if isinstance(alpha, dict) else alpha
    preference = alpha if alpha.ndim == 0 else alpha[0]
    return (1 - preference) * loss_fn(point, x, y) + preference * jnp.mean(point["kernel"] ** 2)


@pytest.mark.parametrize(
    ("subspace", "layerwise", "num_samples"),
    [
        (Line(), False, 1),
        (Line(), False, 4),
        (Line(), True, 2),
        (Simplex(3), False, 1),
        (Simplex(3), False, 4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(Line(), False, 2), (Line(), True, 1), (Line(), True, 4), (Simplex(3), False, 2)]
        ),
    ],
)
def test_the_loss_sees_the_alpha_of_its_position(subspace, layerwise, num_samples, x64):
    endpoints, (x, y) = problem(subspace)
    options = {"layerwise": layerwise, "num_samples": num_samples, "all_pairs": True, "pass_alpha": True}
    grad_fn = jax.jit(jsubspace.value_and_grad(conditional, subspace, **options))
    (value, info), grads = grad_fn(KEY, endpoints, x, y)

    def objective(endpoints):
        total = 0
        for s in range(num_samples):
            alpha = info.alpha if num_samples == 1 else jax.tree.map(lambda leaf: leaf[s], info.alpha)  # noqa: B023
            point = jsubspace.interpolate(endpoints, alpha, subspace)
            total += conditional(point, alpha, x[s::num_samples], y[s::num_samples]) / num_samples
        return total + jsubspace.mean_cosine_squared(endpoints)

    close((value, grads), jax.jit(jax.value_and_grad(objective))(endpoints))


def test_a_loss_that_ignores_alpha_has_the_same_bits():
    endpoints, batch = problem(Line())
    plain = jax.jit(jsubspace.value_and_grad(loss_fn, Line()))(KEY, endpoints, *batch)
    ignores = jsubspace.value_and_grad(lambda point, alpha, *batch: loss_fn(point, *batch), Line(), pass_alpha=True)
    same(jax.jit(ignores)(KEY, endpoints, *batch), plain)
    with pytest.raises(ValueError, match="pass_alpha is 1, but it must be True or False"):
        jsubspace.value_and_grad(loss_fn, Line(), pass_alpha=1)


# The arguments that are the batch.


def with_table(point, tokens, table, y, temperature):
    return loss_fn(point, table[tokens] / temperature, y)


def test_only_the_batch_is_cut(x64):
    """A frozen table and a number are given whole, whether positional or by name, and the numbers are those of a closure."""
    endpoints, (x, y) = problem(Line())
    tokens, table = jnp.asarray(np.arange(24) % 7), jnp.asarray(np.asarray(x)[:7])

    def closed(point, tokens, y):
        return with_table(point, tokens, table, y, 2.0)

    expected = jax.jit(jsubspace.value_and_grad(closed, Line(), num_samples=4))(KEY, endpoints, tokens, y)
    by_number = jax.jit(jsubspace.value_and_grad(with_table, Line(), num_samples=4, batch_argnums=(0, 2)))
    close(by_number(KEY, endpoints, tokens, table, y, 2.0), expected)
    named = {"num_samples": 4, "batch_argnums": 0, "batch_argnames": "y"}
    by_name = jax.jit(jsubspace.value_and_grad(with_table, Line(), **named))
    close(by_name(KEY, endpoints, tokens, table, y=y, temperature=2.0), expected)


@pytest.mark.parametrize("num_samples", [2, 6])
def test_positions_that_see_the_whole_batch(num_samples, x64):
    """The mean of S separate calls, with one key per position."""
    endpoints, batch = problem(Simplex(3))

    def noisy(point, x, y, key):
        return loss_fn(point, x + jax.random.normal(key, (8,)), y)

    at = jsubspace.value_and_grad_at

    @jax.jit
    def whole_and_mean(endpoints, x, y):
        alphas = Simplex(3).sample(KEY, (num_samples,))
        whole = at(noisy, Simplex(3), num_samples=num_samples, batch_argnums=())
        keys = jax.random.split(KEY, num_samples)
        each = [at(noisy, Simplex(3))(alphas[s], (0, 2), endpoints, x, y, keys[s]) for s in range(num_samples)]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / num_samples, *each)
        return whole(alphas, (0, 2), endpoints, x, y, KEY), mean

    ((value, info), grads), mean = whole_and_mean(endpoints, *batch)
    close((value, info.loss, grads), (mean[0][0], mean[0][1].loss, mean[1]))


def test_what_is_no_batch_is_refused():
    endpoints, (x, y) = problem(Line())

    def call(*args, **options):
        return jsubspace.value_and_grad(with_table, Line(), num_samples=2, **options)(KEY, endpoints, *args)

    with pytest.raises(
        ValueError, match=r"argument \[0\] has 24 rows, but argument \[1\] of shape \[8, 5\] has 8.*batch_ar"
    ):
        call(x, endpoints["kernel"][0], y, x)
    for raw in (jax.random.PRNGKey(0), np.zeros(4, np.uint32)):
        for options in ({}, {"batch_argnums": (0, 2)}):
            with pytest.raises(
                ValueError, match=r"argument \[3\] of type uint32\[\d\] looks like a raw PRNG key, .*typed key"
            ):
                call(x[:4], x[:4], y[:4], raw, **options)
    with pytest.raises(ValueError, match=r"argument \[3\] of shape \[\] cannot be cut .*batch_argnums=\(0,\)"):
        call(x, x, y, 2.0)
    with pytest.raises(ValueError, match=r"argument \[2\] of shape \[\] cannot be cut"):
        call(x, x, "a word", 2.0)
    with pytest.raises(ValueError, match="batch_argnums names argument 5, but 4 positional arguments were given"):
        call(x, x, y, 2.0, batch_argnums=(0, 5))
    with pytest.raises(ValueError, match=r"batch_argnames names 'tokens', but the keyword arguments are \[\]"):
        call(x, x, y, 2.0, batch_argnames="tokens")
    for options, message in (
        ({"batch_argnums": -1}, "batch_argnums is -1, but arguments are counted from 0"),
        ({"batch_argnums": 0.5}, "batch_argnums is 0.5, but it must be one argument or a tuple"),
        ({"batch_argnums": "x"}, "batch_argnums is 'x', but it must be an integer"),
        ({"batch_argnames": (1,)}, r"batch_argnames is \(1,\), but it must hold names"),
    ):
        with pytest.raises(ValueError, match=message):
            call(x, x, y, 2.0, **options)


def test_as_many_positions_as_samples():
    endpoints, batch = problem(Line())
    grad_fn = jsubspace.value_and_grad_at(loss_fn, Line(), num_samples=2, batch_argnums=())
    for alpha in (0.5, jnp.full(3, 0.5)):
        with pytest.raises(ValueError, match=r"alpha has shape \[3?\], but with num_samples=2 its leading axis"):
            grad_fn(alpha, (0, 1), endpoints, *batch)


# An origin, from which the endpoints were fine-tuned.


def networks(subspace):
    """Endpoints close to an origin, as after fine-tuning, and a batch."""
    endpoints, batch = problem(subspace)
    endpoints = jax.tree.map(np.asarray, endpoints)
    origin = jax.tree.map(lambda leaf: 3 * leaf[0], endpoints)
    near = jax.tree.map(lambda leaf, start: start + np.asarray(0.1, leaf.dtype) * leaf, endpoints, origin)
    return *jax.tree.map(jnp.asarray, (near, origin)), batch


def cosines_of_differences(endpoints, origin, names):
    """Flat vectors, numpy: cos^2 of all pairs."""
    flat = [
        np.concatenate([np.ravel(endpoints[n][i] - origin[n]) for n in names]) for i in range(len(endpoints["scale"]))
    ]
    return np.array([[(a @ b) ** 2 / ((a @ a) * (b @ b)) for a in flat] for b in flat])


@pytest.mark.parametrize(("mask", "names"), [(None, ["kernel"]), (jsubspace.all_leaves, ["kernel", "scale"])])
def test_cosines_of_task_vectors(mask, names, x64):
    endpoints, origin, _ = networks(Simplex(3))
    expected = cosines_of_differences(endpoints, origin, names)
    assert np.all(expected[np.triu_indices(3, 1)] < 0.3)

    @jax.jit
    def measures(endpoints):
        deltas = jax.tree.map(jnp.subtract, endpoints, origin)
        return (
            jsubspace.cosine_squared(endpoints, 0, 1, mask),
            jsubspace.cosines_squared(endpoints, mask, origin=origin),
            jsubspace.cosine_squared(endpoints, 2, 0, mask, origin=origin),
            jsubspace.mean_cosine_squared(endpoints, mask, origin=origin),
            penalties.geometry(endpoints, mask, origin=origin),
            penalties.geometry(deltas, mask),
        )

    of_endpoints, found, of_pair, found_mean, geometry, of_deltas = measures(endpoints)
    assert of_endpoints > 0.9
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(of_pair, expected[2, 0], rtol=1e-10)
    mean = expected[np.triu_indices(3, 1)].mean()
    np.testing.assert_allclose(found_mean, mean, rtol=1e-10)
    np.testing.assert_allclose(geometry["cosine_squared"], mean, rtol=1e-10)
    # Task vectors are as far apart as the endpoints, so that distances need no origin.
    np.testing.assert_allclose(geometry["l2"], of_deltas["l2"], rtol=1e-10)


@pytest.mark.parametrize("mask", [None, jsubspace.all_leaves])
def test_a_description_of_task_vectors_is_that_of_deltas(mask, x64):
    endpoints, origin, _ = networks(Simplex(3))
    found = jsubspace.describe(endpoints, mask, origin=origin)
    expected = jsubspace.describe(jax.tree.map(jnp.subtract, endpoints, origin), mask)
    assert found.cosine_squared == pytest.approx(expected.cosine_squared, rel=1e-10)
    assert found.cosine_squared < 0.3 < 0.9 < jsubspace.describe(endpoints, mask).cosine_squared
    close([row.share for row in found.rows if row.counts], [row.share for row in expected.rows if row.counts])
    assert [row._replace(share=None) for row in found.rows] == [row._replace(share=None) for row in expected.rows]
    assert "the mean cos² of their task vectors is" in str(found)
    assert "their mean cos² is" in str(expected)
    shapes = jax.eval_shape(lambda: endpoints)
    assert jsubspace.describe(shapes, mask, origin=origin).cosine_squared is None


@pytest.mark.parametrize("settings", [{"all_pairs": True}, {}, {"mask": jsubspace.all_leaves}], ids=", ".join)
@pytest.mark.parametrize("subspace", [Line(), Simplex(3)], ids=repr)
def test_the_penalty_compares_task_vectors(subspace, settings, x64):
    """The gradient is that of deltas from the origin, which are endpoints of their own, and of the objective written out."""
    endpoints, origin, batch = networks(subspace)

    def of_delta(delta, *batch):
        return loss_fn(jax.tree.map(jnp.add, origin, delta), *batch)

    @jax.jit
    def gradients_of_both(endpoints):
        deltas = jax.tree.map(jnp.subtract, endpoints, origin)
        ours = jsubspace.value_and_grad(loss_fn, subspace, origin=origin, **settings)(KEY, endpoints, *batch)
        return ours, jsubspace.value_and_grad(of_delta, subspace, **settings)(KEY, deltas, *batch)

    result, of_deltas = gradients_of_both(endpoints)
    close(result, of_deltas, rtol=1e-9)
    if settings.get("all_pairs"):

        def objective(endpoints):
            flat = jnp.reshape(endpoints["kernel"] - origin["kernel"], (subspace.num_endpoints, -1))
            unit = flat / jnp.linalg.norm(flat, axis=1, keepdims=True)
            above = jnp.triu_indices(len(flat), 1)
            point = jsubspace.interpolate(endpoints, result[0][1].alpha, subspace)
            return loss_fn(point, *batch) + jnp.mean(((unit @ unit.T) ** 2)[above])

        close((result[0][0], result[1]), jax.jit(jax.value_and_grad(objective))(endpoints))


def test_an_origin_of_zeros_and_narrow_endpoints():
    endpoints, origin, batch = networks(Line())

    @jax.jit
    def gradient(endpoints, origin):
        return jsubspace.value_and_grad(loss_fn, Line(), origin=origin)(KEY, endpoints, *batch)

    zeros = jax.tree.map(np.zeros_like, origin)
    plain = jax.jit(jsubspace.value_and_grad(loss_fn, Line()))(KEY, endpoints, *batch)
    same(gradient(endpoints, zeros), plain)
    start = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), origin)
    (_, info), grads = gradient(start, origin)
    assert info.penalty == 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), endpoints)
    with jax.numpy_dtype_promotion("strict"):
        result = jax.eval_shape(
            jsubspace.value_and_grad(lambda p: jnp.sum(p["kernel"]).astype(float), Line(), origin=origin), KEY, narrow
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(result[1])} == {jnp.dtype(jnp.bfloat16)}


def test_an_origin_of_another_network():
    endpoints, origin, batch = networks(Line())
    for wrong, message in (
        (
            endpoints,
            r"leaf \['kernel'\] of the origin has shape \[2, 8, 5\], but one network has \[8, 5\] here.*stacked end",
        ),
        ({"kernel": origin["kernel"]}, "the origin has the structure .*Give one network of their architecture"),
        (origin | {"scale": jnp.ones(4)}, r"leaf \['scale'\] of the origin has shape \[4\], but one network has \[5\]"),
    ):
        for call in (
            lambda wrong=wrong: jsubspace.value_and_grad(loss_fn, Line(), origin=wrong)(KEY, endpoints, *batch),
            lambda wrong=wrong: jsubspace.cosine_squared(endpoints, 0, 1, origin=wrong),
            lambda wrong=wrong: jsubspace.mean_cosine_squared(endpoints, origin=wrong),
            lambda wrong=wrong: jsubspace.cosines_squared(endpoints, origin=wrong),
            lambda wrong=wrong: penalties.geometry(endpoints, origin=wrong),
            lambda wrong=wrong: jsubspace.describe(endpoints, origin=wrong),
            lambda wrong=wrong: jsubspace.describe(jax.eval_shape(lambda: endpoints), origin=wrong),
        ):
            with pytest.raises(ValueError, match=message):
                call()
