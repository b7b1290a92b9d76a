"""BatchNorm statistics of a point: plain averages of batches' own, biased or not, of one device or all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.models.cresnet import CResNet
from jsubspace.models.layers import BatchNorm

RNG = np.random.default_rng(0)


def test_plain_average_over_batches_however_large():
    batches = [(RNG.normal(size=(n, 3)).astype(np.float32), np.float32(n)) for n in (8, 8, 2)]

    def stats_fn(point, x, n):
        return {"layer": {"mean": point * jnp.mean(x, axis=0), "n": n}}

    stats = jsubspace.reestimate_batch_stats(stats_fn, jnp.float32(2.0), iter(batches))
    np.testing.assert_allclose(stats["layer"]["mean"], np.mean([2 * x.mean(axis=0) for x, _ in batches], 0), rtol=1e-5)
    assert stats["layer"]["n"] == 6


def test_one_program_for_all_batches_and_points():
    traces = []

    def stats_fn(point, x):
        traces.append(x.shape)
        return point * jnp.mean(x)

    for point in (1.0, 2.0, 3.0):
        jsubspace.reestimate_batch_stats(stats_fn, jnp.float32(point), [(np.ones(4, np.float32),)] * 3)
    assert traces == [(4,)]


def test_no_batch():
    with pytest.raises(ValueError, match=r"no batch was given. Statistics need at least one"):
        jsubspace.reestimate_batch_stats(lambda point: point, jnp.ones(2), [])


def test_a_batch_of_weight_0_does_not_count_whatever_it_holds():
    batches = [(jnp.ones((4, 2)),), (jnp.full((4, 2), jnp.nan),)]
    stats = jsubspace.reestimate_batch_stats(lambda point, x: point * jnp.mean(x), jnp.ones(2), batches, weights=[1, 0])
    np.testing.assert_array_equal(stats, 1)


def test_complex_statistics_keep_their_imaginary_part():
    stats = jsubspace.reestimate_batch_stats(
        lambda point, x: point * jnp.mean(x), jnp.ones(2), [(jnp.full(4, 1 + 2j),)] * 2
    )
    np.testing.assert_array_equal(stats, 1 + 2j)


@pytest.mark.parametrize("unbiased", [False, True])
def test_norm_stores_the_statistics_of_its_batch(unbiased):
    """Nothing of the initial zeros and ones is left, and what normalises is the biased variance in both."""
    x = RNG.normal(3.0, 2.0, size=(5, 4, 4, 3)).astype(np.float32)
    norm = BatchNorm(use_running_average=False, unbiased=unbiased)
    variables = norm.init(jax.random.key(0), x)
    y, new = norm.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(new["batch_stats"]["mean"], x.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["var"], x.var(axis=(0, 1, 2), ddof=int(unbiased)), rtol=1e-5)
    expected = (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_evaluation_with_one_batchs_statistics(unbiased):
    """With biased statistics of the very batch, evaluation is training; with unbiased ones it is nearly."""
    model = CResNet(num_classes=3, depth=8, width=2, unbiased_batch_stats=unbiased)
    images = RNG.normal(size=(4, 8, 8, 3)).astype(np.float32)
    params = jax.jit(lambda key: model.init(key, images, train=True)["params"])(jax.random.key(0))
    apply = jax.jit(lambda params, x: model.apply({"params": params}, x, train=True, mutable=["batch_stats"]))
    evaluate = jax.jit(lambda params, stats, x: model.apply({"params": params, "batch_stats": stats}, x, train=False))
    outputs, _ = apply(params, images)
    stats = jsubspace.reestimate_batch_stats(lambda p, x: apply(p, x)[1]["batch_stats"], params, [(images,)] * 2)
    evaluated = evaluate(params, stats, images)
    np.testing.assert_allclose(evaluated.logits, outputs.logits, rtol=1e-3, atol=0.2 if unbiased else 1e-4)
    single = evaluate(params, stats, images[:1])  # one example has no variance
    np.testing.assert_allclose(single.logits, evaluated.logits[:1], rtol=1e-3, atol=1e-4)
    assert (np.abs(evaluated.logits - outputs.logits).max() > 1e-3) == unbiased


@pytest.mark.parametrize("unbiased", [False, True])
def test_synchronised_statistics_are_those_of_the_whole_batch(unbiased):
    x = RNG.normal(3.0, 2.0, size=(8, 4, 3)).astype(np.float32)
    norm = BatchNorm(use_running_average=False, unbiased=unbiased, axis_name="batch")
    variables = norm.init(jax.random.key(0), x)  # outside of any device axis
    apply = jax.pmap(
        lambda v, x: norm.apply(v, x, mutable=["batch_stats"])[1]["batch_stats"],
        axis_name="batch",
        in_axes=(None, 0),
        out_axes=None,
        devices=jax.devices()[:4],
    )
    stats = apply(variables, x.reshape(4, 2, 4, 3))
    np.testing.assert_allclose(stats["mean"], x.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], x.var(axis=(0, 1), ddof=int(unbiased)), rtol=1e-5)


def test_unbiased_variance_of_one_value():
    norm = BatchNorm(use_running_average=False, unbiased=True)
    variables = norm.init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(
        ValueError, match=r"unbiased variance of 1 value per channel does not exist\. Use a larger batch"
    ):
        norm.apply(variables, jnp.ones((1, 3)), mutable=["batch_stats"])
