"""`per_endpoint`: every optimizer of optax gives each endpoint what it gives that network alone."""

import inspect

import equinox
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax_exports as exports
import pytest
from optax import contrib

import jsubspace
from jsubspace.optimizers import StateWithShared

OPTIMIZERS = {**exports.OF_OPTAX, **exports.OF_CONTRIB}

COMMON = {"sgd", "adam", "adamw", "adamw, masked", "lion", "lamb", "lars", "adafactor", "muon", "rmsprop", "MultiSteps",
          "clip_by_global_norm", "clip_by_block_rms", "adaptive_grad_clip", "centralize", "apply_if_finite", "noisy_sgd",
          "schedule_free_adamw", "dpsgd", "scale_by_muon"}  # fmt: skip
"""Those that `make test` tries. `make slow` tries all of them."""
M = 2


def leaves_of(seed, rows=M):
    rng = np.random.default_rng(seed)
    sizes = np.array([1.0, 5.0, 0.2])[:rows]  # A norm over all endpoints would see the largest.
    kernel, bias = rng.normal(size=(rows, 4, 3)), rng.normal(size=(rows, 3))
    return {
        "bias": jnp.asarray(bias * sizes[:, None], jnp.float32),
        "kernel": jnp.asarray(kernel * sizes[:, None, None], jnp.float32),
    }


ENDPOINTS = leaves_of(0)


def loss_fn(network):
    return sum(jnp.sum(jnp.cos(0.3 * leaf) + 0.1 * leaf**2) for leaf in jax.tree.leaves(network))


ONE = jax.jit(jax.value_and_grad(loss_fn))
ALL = jax.jit(jax.vmap(jax.value_and_grad(loss_fn)))


def trained(optimizer, params, value_and_grad, extra=(), of_examples=None, steps=3):
    """The parameters after some steps with gradients that grow. ``of_examples`` is the axis of examples."""
    state = optimizer.init(params)
    for step in range(steps):
        value, grads = value_and_grad(params)
        grads = jax.tree.map(lambda leaf, step=step: leaf * (1 + step), grads)
        if of_examples is not None:
            grads = jax.tree.map(lambda leaf: jnp.stack([leaf, -0.5 * leaf], axis=of_examples), grads)
        given = {"value": value, "grad": grads, "value_fn": loss_fn, "obj_fn": loss_fn}
        updates, state = optimizer.update(grads, state, params, **{name: given[name] for name in extra})
        params = optax.apply_updates(params, updates)
    return params


def alone(make, endpoints=ENDPOINTS, **options):
    return jsubspace.stack([trained(make(), network, ONE, **options) for network in jsubspace.unstack(endpoints)])


def difference(a, b):
    """The largest difference of a leaf in units of the leaf's largest number."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y))) for x, y in pairs)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # optax's own, of names that it still exports
@pytest.mark.parametrize(
    "name", [name if name in COMMON else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_each_endpoint_is_trained_as_if_it_were_alone(name):
    make, extra = OPTIMIZERS[name], exports.EXTRA.get(name, ())
    examples = (0, 1) if name in exports.PER_EXAMPLE else (None, None)
    expected = alone(make, extra=extra, of_examples=examples[0])
    optimizer = jsubspace.per_endpoint(make())
    assert difference(trained(optimizer, ENDPOINTS, ALL, extra, examples[1]), expected) < 1e-6


@pytest.mark.parametrize("name", ["clip_by_global_norm", "lamb", "muon", "adamw, masked", "MultiSteps"])
def test_the_stacked_tree_would_be_trained_differently(name):
    """So the comparison can fail."""
    assert difference(trained(OPTIMIZERS[name](), ENDPOINTS, ALL), alone(OPTIMIZERS[name])) > 1e-6


@pytest.mark.parametrize(("home", "table"), [(optax, exports.OF_OPTAX), (contrib, exports.OF_CONTRIB)])
def test_every_export_of_optax_is_known(home, table):
    known = {*table, *exports.EXCEPTIONS, *exports.NO_OPTIMIZERS}
    found = {
        name
        for name, value in vars(home).items()
        if callable(value) and name[0] != "_" and (not inspect.isclass(value) or hasattr(value, "update"))
    }
    assert not found - known, (
        "optax exports what tests/optax_exports.py does not know. Put each name into a table there."
    )


WRAPPERS = {
    "chain": lambda tx: optax.chain(tx, optax.scale(0.5)),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "inject_hyperparams": lambda tx: optax.chain(tx, optax.inject_hyperparams(optax.scale)(0.5)),
    "masked": lambda tx: optax.masked(tx, {"bias": False, "kernel": True}),
    "multi_transform": lambda tx: optax.multi_transform({"a": tx, "b": optax.sgd(0.1)}, {"bias": "b", "kernel": "a"}),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_of_optax_take_it_inside(name):
    wrap = WRAPPERS[name]
    actual = trained(wrap(jsubspace.per_endpoint(exports.FAST)), ENDPOINTS, ALL)
    assert difference(actual, alone(lambda: wrap(exports.FAST))) < 1e-6


def test_lookahead_takes_it_inside():
    def of(optimizer, params, value_and_grad):
        optimizer = optax.lookahead(optimizer, 2, 0.5)
        pair = optax.LookaheadParams.init_synced(params)
        state = optimizer.init(pair)
        for _ in range(3):
            updates, state = optimizer.update(value_and_grad(pair.fast)[1], state, pair)
            pair = optax.apply_updates(pair, updates)
        return pair.slow

    expected = jsubspace.stack([of(exports.FAST, network, ONE) for network in jsubspace.unstack(ENDPOINTS)])
    assert difference(of(jsubspace.per_endpoint(exports.FAST), ENDPOINTS, ALL), expected) < 1e-6


def test_the_factory_of_inject_hyperparams_may_use_it():
    make = optax.inject_hyperparams(lambda learning_rate: jsubspace.per_endpoint(optax.lamb(learning_rate)))
    assert difference(trained(make(0.1), ENDPOINTS, ALL), alone(lambda: optax.lamb(0.1))) < 1e-6


def test_extra_arguments_arrive_through_a_chain():
    """A chain passes them to optax's own types alone."""
    make = exports.OF_CONTRIB["reduce_on_plateau"]
    optimizer = optax.chain(jsubspace.per_endpoint(make()), optax.identity())
    assert isinstance(jsubspace.per_endpoint(make()), optax.GradientTransformationExtraArgs)
    assert difference(trained(optimizer, ENDPOINTS, ALL, ("value",)), alone(make, extra=("value",))) < 1e-6


class Foreign:
    """Any object with init and update."""

    def init(self, params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(self, updates, state, params=None, **extra):
        size = optax.tree.norm(updates)
        return jax.tree.map(lambda leaf: leaf / size * extra["value"], updates), state


def test_any_object_with_init_and_update_will_do():
    updates, _ = jsubspace.per_endpoint(Foreign()).update(ENDPOINTS, Foreign().init(ENDPOINTS), value=2.0)
    for row in jsubspace.unstack(updates):
        assert optax.tree.norm(row) == pytest.approx(2)


SHARED = {**leaves_of(0), "head": jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 2)), jnp.float32)}


def test_shared_leaves_are_a_tree_of_their_own():
    optimizer = jsubspace.per_endpoint(exports.FAST)
    state = optimizer.init(SHARED)
    assert isinstance(state, StateWithShared)
    own = {name: SHARED[name] for name in ("bias", "kernel")}
    shared = {"head": SHARED["head"]}
    grads = jax.tree.map(lambda leaf: 3 * leaf + 1, SHARED)
    part = {name: grads[name] for name in own}
    updates, state = jax.jit(optimizer.update)(grads, state, SHARED)

    @jax.jit
    def apart():
        return {
            **optimizer.update(part, optimizer.init(own), own)[0],
            **optimizer.update({"head": grads["head"]}, optimizer.init(shared), shared)[0],
        }

    expected = apart()
    assert jax.tree.structure(updates) == jax.tree.structure(SHARED)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)
    again, _ = jax.eval_shape(lambda value: optimizer.update(grads, state, SHARED, value=value), jnp.ones(M))
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, SHARED)


def test_one_endpoint_is_one_tree():
    """With m = 1 every leaf has one row, and the norm is that of the network."""
    one = leaves_of(0, rows=1)
    optimizer = jsubspace.per_endpoint(optax.clip_by_global_norm(0.1))
    updates, state = optimizer.update(one, optimizer.init(one))
    assert not isinstance(state, StateWithShared)
    assert optax.tree.norm(updates) == pytest.approx(0.1, rel=1e-6)


def test_a_hyperparameter_that_a_user_sets_goes_to_every_endpoint():
    optimizer = jsubspace.per_endpoint(optax.inject_hyperparams(optax.sgd)(0.1))
    state = optimizer.init(ENDPOINTS)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    updates, _ = optimizer.update(ENDPOINTS, state)
    np.testing.assert_allclose(updates["bias"], -0.5 * ENDPOINTS["bias"])


class Net(nnx.Module):
    def __init__(self, rngs):
        metadata = {"kernel_metadata": {"out_sharding": ("data", "model")}}
        self.hidden = nnx.Linear(4, 3, rngs=rngs, **metadata)

    def __call__(self, x):
        return self.hidden(x)


def test_nnx_and_equinox_modules_are_trained():
    with nnx.use_eager_sharding(False):
        module = jax.jit(lambda key: jsubspace.init_endpoints(key, lambda key: Net(nnx.Rngs(key)), 2))(
            jax.random.key(0)
        )
        optimizer = nnx.Optimizer(module, jsubspace.per_endpoint(contrib.muon(0.1)), wrt=nnx.Param)
        before = module.hidden.kernel[...]
        optimizer.update(module, jax.tree.map(jnp.ones_like, nnx.state(module, nnx.Param)))
    moved = module.hidden.kernel[...] - before
    assert jnp.linalg.matrix_rank(moved, rtol=1e-3).tolist() == [1, 1]  # Each kernel was taken for a matrix.
    tx = jsubspace.per_endpoint(exports.FAST)

    @jax.jit
    def moved_network(key):
        network = jsubspace.init_endpoints(key, lambda key: equinox.nn.Linear(4, 3, key=key), 2)
        updates, _ = tx.update(network, tx.init(network), network)
        return equinox.apply_updates(network, updates)

    assert moved_network(jax.random.key(0)).weight.shape == (2, 3, 4)


def test_the_state_has_the_names_of_the_endpoint_axis_too():
    with nnx.use_eager_sharding(False):
        init_fn = jax.jit(lambda key: jsubspace.init_endpoints(key, lambda key: nnx.state(Net(nnx.Rngs(key))), 2))
        endpoints = init_fn(jax.random.key(0))
    state = jsubspace.per_endpoint(optax.adam(0.1)).init(endpoints)
    assert nnx.get_partition_spec(state[0].mu) == nnx.get_partition_spec(endpoints)


def test_it_is_traced_once():
    optimizer, traces = jsubspace.per_endpoint(exports.OF_OPTAX["chain"]()), []

    @jax.jit
    def step(params, state):
        traces.append(None)
        updates, state = optimizer.update(params, state, params)
        return optax.apply_updates(params, updates), state

    carry = ENDPOINTS, optimizer.init(ENDPOINTS)
    for _ in range(3):
        carry = step(*carry)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tx: jsubspace.per_endpoint(optax.adam), r"per_endpoint takes an optimizer .* such as optax\.adam\(1e-3\)"),
        (lambda tx: tx.init({"a": jnp.ones(())}), r"leaf \['a'\] of the endpoints is a scalar without an endpoint axis"),
        (lambda tx: tx.init({"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}), r"leaf \['b'\] has 2 rows, and other leaves have 3"),
        (lambda tx: tx.update(leaves_of(0, 3), tx.init(ENDPOINTS)), "count of the optimizer's state has 2 rows, but the gradients have 3"),
        (lambda tx: tx.update(ENDPOINTS, tx.init(ENDPOINTS), SHARED), r"it has leaf \['head'\], which they lack\. The order is update\(gradients, state, e"),
        (lambda tx: tx.update(ENDPOINTS, tx.init(ENDPOINTS), leaves_of(0, 3)), r"leaf \['bias'\] of the endpoints has the shape \[3, 3\], but its gradient has \[2, 3\]"),
        (lambda tx: tx.update(ENDPOINTS, tx.init({"bias": ENDPOINTS["bias"]}), ENDPOINTS), r"made by another optimizer or for another tree .*: it lacks leaf \[0\]\.mu\['[a-z]*'\]"),
        (lambda tx: tx.update(ENDPOINTS, jsubspace.per_endpoint(optax.sgd(0.1)).init(ENDPOINTS), ENDPOINTS), "made by another optimizer or for another tree"),
        (lambda tx: tx.update(ENDPOINTS, ENDPOINTS), r"the state was made by another optimizer .* The order is update\(gradients, state, e"),
        (lambda tx: tx.update(ENDPOINTS, tx.init(jax.tree.map(lambda leaf: leaf[:, :1], ENDPOINTS)), ENDPOINTS), r"of the optimizer's state has the shape \[2, 1.*, but these endpoints have \[2, 3"),
        (lambda tx: tx.update(SHARED, tx.init(ENDPOINTS), SHARED), "the state was made without shared leaves"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jsubspace.per_endpoint(optax.adam(0.1)))
