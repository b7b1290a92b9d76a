"""The core under jax's strict modes: strict promotion of dtypes, no promotion of ranks, no NaN, and float64.

The modes belong to users' programs. Every function of the core runs once per mode, on float32 and bfloat16 endpoints.
"""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jsubspace
from jsubspace import gradients, layer_names, penalties, points, positions, tree
from jsubspace.data import augment
from jsubspace.evaluation import averaging, curvature, ensembles, metrics
from jsubspace.training import optim

MODES = {
    "dtypes": functools.partial(jax.numpy_dtype_promotion, "strict"),
    "ranks": functools.partial(jax.numpy_rank_promotion, "raise"),
    "nans": functools.partial(jax.debug_nans, True),
    "x64": functools.partial(jax.enable_x64, True),
}
TRACED = [
    "dtypes",
    "ranks",
]  # What these two refuse, they refuse while a function is traced: nothing needs to be compiled.
SUBSPACES = [jsubspace.Point(), jsubspace.Line(), jsubspace.Curve(), jsubspace.Chain(2), jsubspace.Simplex(3)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float32, jnp.float32, jnp.bfloat16]
KEY = jax.random.key(0)

in_every_mode = pytest.mark.parametrize("mode", MODES)


def init_fn(key, dtype=jnp.float32):
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(first, (4, 5), dtype), "bias": jnp.zeros(5, dtype)},
        "head": {"kernel": jax.random.normal(second, (5, 3), dtype)},
    }


def loss_fn(point, x, labels):
    hidden = jnp.tanh(x.astype(point["head"]["kernel"].dtype) @ point["hidden"]["kernel"])
    return jnp.mean(metrics.cross_entropies((hidden @ point["head"]["kernel"]).astype(jnp.float32), labels))


def finite(result):
    assert all(np.all(np.isfinite(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(result))


def holds(mode, function, *arguments, runs=True):
    """Traces the function in this mode, and runs it as one program where the mode looks at numbers."""
    with MODES[mode]():
        if mode in TRACED or not runs:
            jax.eval_shape(function, *arguments)
        else:
            finite(jax.jit(function)(*arguments))


def operation_by_operation(function, *arguments):
    """A function of the leaves of the arguments that returns what every operation of ``function`` computes."""
    closed = jax.make_jaxpr(function)(*arguments)
    values = [value for equation in closed.jaxpr.eqns for value in equation.outvars]
    numbers = [value for value in values if jnp.issubdtype(value.aval.dtype, jnp.floating)]
    return jax.extend.core.jaxpr_as_fun(closed.replace(jaxpr=closed.jaxpr.replace(outvars=numbers)))


@in_every_mode
@pytest.mark.parametrize(("subspace", "dtype"), list(zip(SUBSPACES, DTYPES, strict=True)), ids=repr)
def test_points_and_gradients(mode, subspace, dtype):
    def results():
        endpoints = jsubspace.init_endpoints(KEY, functools.partial(init_fn, dtype=dtype), subspace)
        x, labels = jnp.ones((4, 4), jnp.float32), jnp.arange(4) % 3
        grad_fn = jax.jit(jsubspace.value_and_grad(loss_fn, subspace, beta=0.5, layerwise=True, num_samples=2))
        (value, info), grads = grad_fn(KEY, endpoints, x, labels)
        assert jax.tree.map(lambda g: (g.shape, g.dtype), grads) == jax.tree.map(
            lambda e: (e.shape, e.dtype), endpoints
        )
        alphas = subspace.sample(KEY, (3,))
        drawn = positions.sample_alpha(KEY, subspace, layer_names.layers(endpoints))
        return (
            (value, info, grads),
            (subspace.coefficients(alphas), jsubspace.midpoint(endpoints, subspace), subspace.grid(3)),
            points.interpolate(endpoints, drawn, subspace),
            averaging.weightwise_points(KEY, endpoints, subspace, 2),
            tree.stack(tree.unstack(endpoints)),
        )

    holds(mode, results, runs=mode == "nans" or subspace == jsubspace.Simplex(3))


@in_every_mode
def test_options_of_the_gradient(mode):
    def gradient(beta, sam_rho):
        endpoints = jsubspace.init_endpoints(KEY, init_fn, 2)
        origin = jax.tree.map(lambda leaf: leaf[0] / 2, endpoints)
        options = {"origin": origin, "at_point": lambda grad: grad, "batch_argnums": ()}
        strengths = {"beta": beta, "sam_rho": sam_rho}
        grad_fn = jsubspace.value_and_grad(loss_fn, jsubspace.Line(), num_samples=2, **strengths, **options)
        return grad_fn(KEY, endpoints, jnp.ones((4, 4)), labels=jnp.arange(4) % 3)

    holds(mode, gradient, 0.5, 0.1)


@in_every_mode
def test_products_of_factors(mode):
    """Also where the second factors are zero, as at the start, and in bfloat16."""

    def results(scale, beta):
        keys = jax.random.split(KEY, 2)
        first, second = jax.random.normal(keys[0], (3, 4, 2), jnp.bfloat16), jax.random.normal(keys[1], (3, 2, 5))
        endpoints = {"lora_a": first, "lora_b": scale * second, "shared": jnp.ones((1, 5))}
        options = {"products": ("lora_a", "lora_b"), "origin": jax.tree.map(lambda leaf: 0 * leaf[0], endpoints)}
        grad_fn = jsubspace.value_and_grad(
            lambda point: jnp.sum(point["lora_b"] ** 2), jsubspace.Simplex(3), beta=beta, **options
        )
        return (
            grad_fn(KEY, endpoints),
            jsubspace.midpoint(jsubspace.as_products(endpoints, options["products"])),
            jsubspace.deltas(jsubspace.unstack(endpoints)[0], 3, key=KEY, scale=0.1),
        )

    results = jax.jit(results)
    for scale in (1.0, 0.0):
        holds(mode, results, scale, 0.5)


@in_every_mode
def test_penalties(mode):
    """Also of zero vectors, and where the inner products are taken a second time."""

    def results(endpoints):
        return (
            (jsubspace.cosines_squared(endpoints), jsubspace.distances(endpoints), penalties.geometry(endpoints)),
            jax.grad(jsubspace.mean_cosine_squared)(endpoints),
            jsubspace.cosine_squared(endpoints, 0, 2),
        )

    @jax.jit
    def compiled(scale):
        endpoints = jax.tree.map(lambda leaf: leaf * scale, jsubspace.init_endpoints(KEY, init_fn, 3))
        grad_fn = gradients.value_and_grad_at(loss_fn, jsubspace.Simplex(3))
        arguments = endpoints, jnp.ones((4, 4)), jnp.arange(4) % 3
        grads = [grad_fn(jnp.full(3, 1 / 3), chosen, *arguments) for chosen in ((0, 2), (0, 1, 2))]
        return results(endpoints), grads, endpoints

    scales = (1.0, 0.0, 1e-12)
    for scale in scales:
        holds(mode, compiled, scale)
    if mode == "nans":  # A user may call these functions one operation at a time, and every operation is checked.
        endpoints = [compiled(scale)[2] for scale in scales]
        every_value = jax.jit(operation_by_operation(results, endpoints[0]))
        for each in endpoints:
            values = every_value(*jax.tree.leaves(each))
            assert len(values) > 100
            finite(values)


@in_every_mode
def test_scores_statistics_and_optimizers(mode):
    batches = [(np.ones((4, 2), jnp.bfloat16),), (np.ones((2, 2), jnp.bfloat16),)]
    optimizer = optim.sgd(0.1, 0.9, 1e-4)

    def results():
        logits = jax.random.normal(KEY, (2, 4, 3))
        labels = jnp.arange(4) % 3
        log_probs = ensembles.log_probabilities(logits)
        params = {"w": jnp.zeros(3)}
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return (
            metrics.score(log_probs, labels),
            metrics.difference((log_probs[0], log_probs[1]), (logits[0], logits[1]), labels),
            (ensembles.mean_probability(logits), ensembles.mean_logit(logits)),
            averaging.gaussian(KEY, jsubspace.init_endpoints(KEY, init_fn, 3), 2),
            augment.random_crop_and_flip(KEY, jnp.ones((2, 4, 4, 1)), jnp.arange(2), 1, True),
            optax.apply_updates(params, updates),
        )

    holds(mode, results)
    with MODES[mode]():  # These two loop in Python over numbers.
        finite(jsubspace.reestimate_batch_stats(lambda _, x: x.mean(0), {}, batches, "size"))
        finite(curvature.largest_eigenvalue(lambda v: v * 2, jnp.zeros(3), KEY)[:2])


def plain_step(subspace, objective, endpoints, alpha, pairs, x, labels):
    """The gradient as it was before: autodiff through G_ij^2 / (G_ii G_jj)."""

    def loss(endpoints):
        kernels = [endpoints["hidden"]["kernel"], endpoints["head"]["kernel"]]
        flat = jnp.concatenate([k.reshape(len(k), -1) for k in kernels], axis=1)
        gram = jnp.sum(flat[:, None] * flat[None], axis=-1)
        cosines = [gram[j, k] ** 2 / (gram[j, j] * gram[k, k]) for j, k in pairs]
        task = loss_fn(jsubspace.interpolate(endpoints, alpha, subspace), x, labels)
        return task + objective * sum(cosines) / len(cosines)

    return jax.value_and_grad(loss)(endpoints)


ALTERNATING = [(subspace, i % 2 == 1) for i, subspace in enumerate(SUBSPACES[1:])]
OTHERS = [pytest.param(subspace, not layerwise, marks=pytest.mark.slow) for subspace, layerwise in ALTERNATING]


@pytest.mark.parametrize(("subspace", "layerwise"), [*ALTERNATING, *OTHERS], ids=repr)
def test_a_hundred_steps_are_those_of_the_plain_formula(subspace, layerwise):
    m = subspace.num_endpoints
    start = jsubspace.init_endpoints(KEY, init_fn, subspace)
    x, labels = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32), np.arange(16) % 3
    layers = layer_names.layers(start) if layerwise else None
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, layerwise=layerwise, all_pairs=True)
    pairs = [(j, k) for j in range(m) for k in range(j + 1, m)]

    def step(carry, number):
        ours, theirs = carry
        key = jax.random.key(number)
        alpha = positions.sample_alpha(jax.random.split(key)[0], subspace, layers)
        value, grads = plain_step(subspace, 1.0, theirs, alpha, pairs, x, labels)
        (our_value, _), our_grads = grad_fn(key, ours, x, labels)
        moved = [jax.tree.map(lambda e, g: e - 0.05 * g, e, g) for e, g in ((ours, our_grads), (theirs, grads))]
        return tuple(moved), (our_value, value)

    (ours, theirs), (our_values, values) = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(100)))(
        (start,) * 2
    )
    np.testing.assert_allclose(our_values, values, rtol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), ours, theirs)
