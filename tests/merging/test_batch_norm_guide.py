"""The guide about BatchNorm of averaged weights runs, and every network of it gets its own statistics."""

import flax.nnx as nnx
import guides
import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def names():
    return guides.execute("batch_norm_of_averages.md")


def test_the_average_of_nnx_has_the_statistics_of_its_own_activations(names):
    ema, found = names["ema"], nnx.to_pure_dict(names["ema_stats"])["norm"]
    kernel, bias = ema["hidden"]["kernel"][...], ema["hidden"]["bias"][...]
    hidden = [x @ kernel + bias for x, _ in names["batches"]]
    np.testing.assert_allclose(found["mean"], np.mean([h.mean(0) for h in hidden], axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], np.mean([h.var(0) for h in hidden], axis=0), rtol=1e-3)
    old = nnx.to_pure_dict(names["stats"])["norm"]["mean"]
    assert np.abs(old - found["mean"]).max() > 0.1
    assert names["loss_with_old_statistics"] == pytest.approx(0.146, abs=0.003)
    assert names["loss_with_its_own"] == pytest.approx(0.136, abs=0.003)


def test_the_schedule_free_network_is_evaluated_with_its_own_statistics(names):
    found = names["evaluated_stats"]["BatchNorm_0"]
    dense = names["evaluated"]["Dense_0"]
    hidden = [x @ dense["kernel"] + dense["bias"] for x, _ in names["batches"]]
    np.testing.assert_allclose(found["mean"], np.mean([h.mean(0) for h in hidden], axis=0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(names["evaluated"]["Dense_0"]["kernel"], names["params"]["Dense_0"]["kernel"])
    assert names["loss_of_schedule_free"] < 0.7


def test_the_soup_is_the_mean_and_has_statistics(names):
    mean = jax.tree.map(lambda a, b: (a + b) / 2, names["evaluated"], names["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), names["soup"], mean)
    assert names["weights"] == {"evaluated": 0.5, "trained": 0.5}
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(names["soup_stats"]))
