"""`rates` against trained endpoints: their midpoint is where one network of those settings is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from places import REPOSITORY

import jsubspace
from jsubspace import Curve, Line, Point, Simplex, rates
from jsubspace.training import optim


def loss_fn(point, x):
    return jnp.sum(jnp.sin(x @ point["w"]) ** 2) + jnp.sum(point["b"] ** 4)


def init_fn(key):
    w, b = jax.random.split(key)
    return {"w": jax.random.normal(w, (3, 2)), "b": jax.random.normal(b, (2,))}


@pytest.mark.parametrize("num_samples", [1, 2])
@pytest.mark.parametrize("subspace", [Point(), Line(), Simplex(4)], ids=str)
def test_the_midpoint_is_trained_by_sgd_at_its_rates(subspace, num_samples, x64):
    """Exactly, at random positions, with momentum and decay: one network gets the gradients of the sampled points."""
    eta, decay, m = 0.02, 0.3, subspace.num_endpoints
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, beta=0.0, num_samples=num_samples)
    found = rates(subspace, eta, decay, num_samples=num_samples).sgd
    of_all = optim.sgd(eta, 0.9, decay)
    of_one = optax.chain(optax.add_decayed_weights(found.decay), optax.sgd(found.learning_rate, 0.9))
    batches = np.random.default_rng(0).standard_normal((20, 4, 3))

    def step(carry, inputs):
        endpoints, network, states = carry
        number, x = inputs
        _, grads = grad_fn(jax.random.key(number), endpoints, x)
        at_points = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), grads)  # The coefficients sum to 1.
        updates, of_all_state = of_all.update(grads, states[0], endpoints)
        endpoints = optax.apply_updates(endpoints, updates)
        updates, of_one_state = of_one.update(at_points, states[1], network)
        return (endpoints, optax.apply_updates(network, updates), (of_all_state, of_one_state)), None

    @jax.jit
    def trained(batches):
        endpoints = jsubspace.init_endpoints(jax.random.key(0), init_fn, subspace)
        network = jsubspace.midpoint(endpoints)
        carry = endpoints, network, (of_all.init(endpoints), of_one.init(network))
        endpoints, network, _ = jax.lax.scan(step, carry, (jnp.arange(20), batches))[0]
        return jsubspace.midpoint(endpoints), network

    middle, network = trained(batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), middle, network)
    assert found.learning_rate * found.decay == pytest.approx(eta * decay)
    assert found.learning_rate == pytest.approx(eta / m)


def test_the_sampled_point_moves_by_the_sum_of_squares_and_a_curves_midpoint_by_the_mean(x64):
    alphas = (np.arange(1000) + 0.5) / 1000
    for subspace in (Line(), Curve()):
        endpoints = {"w": np.ones((subspace.num_endpoints, 2))}
        grad_at = jsubspace.value_and_grad_at(lambda point: jnp.sum(point["w"]), subspace, beta=0.0)  # g is 1

        @jax.jit
        @jax.vmap
        def moves(alpha, subspace=subspace, grad_at=grad_at, endpoints=endpoints):
            """How far the sampled point and the midpoint move, and the coefficients."""
            grads = grad_at(alpha, (0, 1), endpoints)[1]
            points = jsubspace.interpolate(grads, alpha, subspace), jsubspace.midpoint(grads, subspace)
            return *(point["w"][0] for point in points), subspace.coefficients(alpha)

        sampled, moved, c = jax.device_get(moves(alphas[::100]))
        np.testing.assert_allclose(sampled, np.sum(c**2, axis=1), rtol=1e-6)
        center = subspace.coefficients(subspace.center)
        expected = jnp.mean(subspace.coefficients(jnp.asarray(alphas)), axis=0) @ center
        assert rates(subspace, 1.0).sgd.learning_rate == pytest.approx(float(expected), rel=3e-3)
        assert (np.ptp(moved) < 1e-6) == (subspace == Line())


@pytest.mark.parametrize(
    ("subspace", "num_samples", "factor"),
    [
        (Line(), 1, np.sqrt(3 / 4)),
        (Simplex(6), 1, np.sqrt(7 / 12)),
        (Curve(), 1, (np.sqrt(5 / 9) + np.sqrt(5 / 6)) / 2),
        (Line(), 3, np.sqrt(1 / 4 / (1 / 4 + 1 / 36))),
    ],
    ids=str,
)
def test_the_midpoint_is_trained_by_adam_at_its_rates(subspace, num_samples, factor):
    """With the same gradient at every point, over many steps, and with decoupled decay."""
    found = rates(subspace, 1.0, 0.1, num_samples=num_samples).adam
    assert found.learning_rate == pytest.approx(factor, rel=3e-3)
    assert found.learning_rate * found.decay == pytest.approx(0.1, rel=1e-5)
    eta, steps = 1e-3, 6000
    optimizer = jsubspace.per_endpoint(optax.adamw(eta, weight_decay=0.0))
    endpoints = {"w": jnp.zeros((subspace.num_endpoints, 1))}

    def step(carry, key):
        endpoints, state = carry
        c = jnp.mean(subspace.coefficients(subspace.sample(key, (num_samples,))), axis=0)
        updates, state = optimizer.update({"w": -c[:, None]}, state, endpoints)
        return (optax.apply_updates(endpoints, updates), state), jsubspace.midpoint(endpoints, subspace)["w"][0]

    @jax.jit
    def trained(endpoints):
        keys = jax.random.split(jax.random.key(0), steps)
        return jax.lax.scan(step, (endpoints, optimizer.init(endpoints)), keys)[1]

    path = np.asarray(trained(endpoints))
    rate = (path[-1] - path[1000]) / (steps - 1001) / eta  # After the first steps, in which Adam's averages fill.
    assert rate == pytest.approx(factor, rel=0.02)


def test_adams_decay_of_the_midpoint_is_that_of_the_endpoints():
    optimizer = jsubspace.per_endpoint(optax.adamw(0.1, weight_decay=0.5))

    @jax.jit
    def moved_and_middle():
        endpoints = jsubspace.init_endpoints(jax.random.key(0), init_fn, Simplex(3))
        zero = jax.tree.map(jnp.zeros_like, endpoints)
        updates, _ = optimizer.update(zero, optimizer.init(endpoints), endpoints)
        return jsubspace.midpoint(updates), jsubspace.midpoint(endpoints)

    moved, middle = jax.device_get(moved_and_middle())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -0.1 * 0.5 * b, rtol=1e-5), moved, middle)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rates(Line(), 0.0), "learning_rate is 0.0"),
        (lambda: rates(Line(), float("nan")), "learning_rate is nan"),
        (lambda: rates(Line(), 0.1, -1.0), "decay is -1.0"),
        (lambda: rates(Line(), 0.1, num_samples=0), "num_samples is 0"),
        (lambda: rates(0.1, Line()), "rates: learning_rate is Line"),
    ],
)
def test_wrong_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("title", "subspace"), [("line", Line()), ("simplex, 6 endpoints", Simplex(6)), ("curve with one bend", Curve())]
)
def test_the_guide_has_the_angles_of_rates(title, subspace):
    plain, center = (jsubspace.rates(subspace, 0.1, pull_back=kind).angle for kind in ("plain", "center"))
    guide = (REPOSITORY / "docs" / "rates.md").read_text(encoding="utf-8")
    assert f"| {title} | {plain:.2f} | {center:.2f} |" in guide
