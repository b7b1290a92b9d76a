"""The step: it is Algorithm 1 with optax, on any number of devices, and it is traced once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jsubspace
from jsubspace.data import augment
from jsubspace.evaluation import metrics
from jsubspace.evaluation.devices import SAME, SPLIT
from jsubspace.models.cresnet import CResNet
from jsubspace.network import Network
from jsubspace.objectives import Objective
from jsubspace.shares import Shares
from jsubspace.training import optim, schedules
from jsubspace.training.parallel import AXIS, DataParallel
from jsubspace.training.train_state import init_train_state
from jsubspace.training.train_step import make_train_step, task_loss

SUBSPACES = [jsubspace.Point(), jsubspace.Line(), jsubspace.Curve(), jsubspace.Simplex(4)]


def dense_apply(point, images, key):
    return images.reshape(len(images), -1) @ point["dense"]["kernel"] + point["dense"]["bias"]


def dense_init(key):
    return {"dense": {"kernel": jax.random.normal(key, (16, 3)), "bias": jnp.zeros(3)}}


def as_they_are(key, images, labels, index):
    return images, labels


def cross_entropy(logits, labels, smoothing=0.0):
    return jnp.mean(metrics.cross_entropies(logits, labels, smoothing))


def make_step(apply_fn, subspace, optimizer, objective=None, axis_name=AXIS, augment_fn=as_they_are):
    """The step of a classifier."""
    network = Network(dense_init, lambda point, images, key, train: apply_fn(point, images, key))
    loss_fn = task_loss(network, jsubspace.Classification())
    objective = objective or Objective()
    return make_train_step(loss_fn, augment_fn, subspace, optimizer, objective, Shares(axis_name)).whole


def batches(count, size, shape=(4, 4, 1), classes=3):
    rng = np.random.default_rng(0)
    for _ in range(count):
        images = rng.normal(size=(size, *shape)).astype(np.float32)
        yield images, rng.integers(classes, size=size).astype(np.int32), np.arange(size, dtype=np.int32)


def run(step, endpoints, optimizer, count, size, steps=3, parts=1, **kwargs):
    """The endpoints and the last report after some steps on so many devices."""
    devices = DataParallel(tuple(jax.devices()[:count]))
    compiled = devices.compile(step, (SAME, SPLIT, SAME), donate=(0,))
    endpoints = jax.tree.map(np.asarray, endpoints)  # so that donation cannot take the caller's
    state, key = devices.put((init_train_state(endpoints, optimizer), jax.random.key(7)))
    for batch in devices.put_batches(batches(steps, size, **kwargs), parts=parts):
        state, info = compiled(state, batch, key)
    return state, info


def close(a, b, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a, b)


@pytest.mark.parametrize("subspace", SUBSPACES, ids=str)
@pytest.mark.parametrize("layerwise", [False, True])
def test_a_step_is_the_public_gradient_and_optax(subspace, layerwise):
    optimizer = optim.sgd(0.1, 0.9, 1e-4)
    endpoints = jsubspace.init_endpoints(jax.random.key(0), dense_init, subspace.num_endpoints)
    step = make_step(dense_apply, subspace, optimizer, Objective(beta=0.5, layerwise=layerwise), None)
    grad_fn = jsubspace.value_and_grad(
        lambda point, batch: cross_entropy(dense_apply(point, batch[0], None), batch[1]),
        subspace,
        beta=0.5,
        layerwise=layerwise,
    )
    state, opt_state, expected = init_train_state(endpoints, optimizer), optimizer.init(endpoints), endpoints
    for i, batch in enumerate(batches(3, 8)):
        key = jax.random.split(jax.random.fold_in(jax.random.key(7), i), 3)[0]
        (_, info), grads = grad_fn(key, expected, batch)
        updates, opt_state = optimizer.update(grads, opt_state, expected)
        expected = optax.apply_updates(expected, updates)
        state, report = step(state, batch, jax.random.key(7))
        assert report.loss == info.loss
        assert report.penalty == info.penalty
    assert int(state.step) == 3
    close(state.endpoints, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [16, pytest.param(13, marks=pytest.mark.slow)])
def test_the_number_of_devices_does_not_matter(size):
    """With synchronised BatchNorm, crops and flips, also for a last batch that the devices do not divide.

    `test_ways` has such a batch with BatchNorm in the quick tests.
    """
    subspace, optimizer = jsubspace.Line(), optim.sgd(0.1, 0.9, 1e-4)
    model = CResNet(3, depth=8, width=2, axis_name=AXIS)

    def apply_fn(point, images, key):
        return model.apply({"params": point}, images, train=True, mutable=["batch_stats"])[0].logits

    def crop_and_flip(key, images, labels, index):
        return augment.random_crop_and_flip(key, images, index, padding=1, flip=True), labels

    step = make_step(apply_fn, subspace, optimizer, Objective(layerwise=True), augment_fn=crop_and_flip)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 1)), train=True)["params"])
    endpoints = jsubspace.init_endpoints(jax.random.key(0), init, 2)
    one, info_of_one = run(step, endpoints, optimizer, 1, size, steps=2, shape=(8, 8, 1))
    many, info_of_many = run(step, endpoints, optimizer, 8, size, steps=2, shape=(8, 8, 1))
    close(many.endpoints, one.endpoints, rtol=1e-3, atol=2e-5)
    close(info_of_many, info_of_one, rtol=1e-4)


@pytest.mark.parametrize("num_samples", [2, 4])
def test_the_number_of_devices_does_not_matter_for_several_samples(num_samples):
    optimizer = optim.sgd(0.1, 0.9, 0.0)
    endpoints = jsubspace.init_endpoints(jax.random.key(0), dense_init, 3)
    step = make_step(dense_apply, jsubspace.Simplex(3), optimizer, Objective(num_samples=num_samples))
    one, _ = run(step, endpoints, optimizer, 1, 16, parts=num_samples)
    many, _ = run(step, endpoints, optimizer, 4, 16, parts=num_samples)
    close(many.endpoints, one.endpoints, rtol=1e-4, atol=1e-6)


def test_a_second_step_is_not_traced_again():
    traces = []

    def apply_fn(point, images, key):
        traces.append(images.shape)
        return dense_apply(point, images, key)

    optimizer = optim.sgd(schedules.warmup_cosine(0.1, 2, 10), 0.9, 1e-4)
    step = make_step(apply_fn, jsubspace.Curve(), optimizer)
    endpoints = jsubspace.init_endpoints(jax.random.key(0), dense_init, 3)
    run(step, endpoints, optimizer, 2, 16, steps=10)
    assert traces == [(8, 4, 4, 1)]


def test_steps_differ_and_the_same_step_is_the_same():
    optimizer = optim.sgd(0.0, 0.9, 0.0)
    step = make_step(dense_apply, jsubspace.Line(), optimizer, axis_name=None)
    state = init_train_state(jsubspace.init_endpoints(jax.random.key(0), dense_init, 2), optimizer)
    (batch,) = batches(1, 8)
    after, first = step(state, batch, jax.random.key(7))
    _, again = step(state, batch, jax.random.key(7))
    _, second = step(after, batch, jax.random.key(7))
    _, other_run = step(state, batch, jax.random.key(8))
    assert first.loss == again.loss
    assert first.loss != second.loss  # the endpoints have not moved: alpha has
    assert first.loss != other_run.loss


def test_dropout_differs_between_devices_alphas_do_not():
    keys = []

    def apply_fn(point, images, key):
        keys.append(key)
        noise = jax.random.normal(key, ())
        return dense_apply(point, images, key) + 0 * noise

    def probe(state, batch, key):
        step = make_step(apply_fn, jsubspace.Line(), optimizer)
        after, _ = step(state, batch, key)
        spread = jnp.stack(
            [jnp.max(jnp.abs(leaf - jax.lax.pmean(leaf, AXIS))) for leaf in jax.tree.leaves(after.endpoints)]
        )
        dropout = jax.lax.all_gather(jax.random.key_data(keys[-1]), AXIS)
        return jax.lax.pmax(jnp.max(spread), AXIS), dropout

    optimizer = optim.sgd(0.1, 0.9, 0.0)
    devices = DataParallel(tuple(jax.devices()[:4]))
    endpoints = jsubspace.init_endpoints(jax.random.key(0), dense_init, 2)
    state, key = devices.put((init_train_state(endpoints, optimizer), jax.random.key(0)))
    (batch,) = devices.put_batches(batches(1, 8))
    spread, dropout = devices.compile(probe, (SAME, SPLIT, SAME))(state, batch, key)
    assert float(spread) < 1e-6
    assert len({tuple(key) for key in np.asarray(dropout).tolist()}) == 4


def test_cross_entropy_and_smoothing_by_hand():
    logits, labels = np.array([[2.0, 0.0, -1.0], [0.0, 0.5, 0.0]]), np.array([0, 2])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = [-log_p[0, 0], -log_p[1, 2]]
    smooth = [(1 - 0.1) * n + 0.1 * np.mean(-row) for n, row in zip(nll, log_p, strict=True)]
    assert float(cross_entropy(jnp.asarray(logits), labels)) == pytest.approx(np.mean(nll), rel=1e-6)
    assert float(cross_entropy(jnp.asarray(logits), labels, 0.1)) == pytest.approx(np.mean(smooth), rel=1e-6)
