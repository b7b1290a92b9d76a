"""Ensembles against the definitions, written out."""

import jax.numpy as jnp
import numpy as np

from jsubspace.evaluation import ensembles


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_mean_probability_and_mean_logit():
    logits = np.random.default_rng(0).normal(size=(3, 11, 4)) * 3
    probability = np.mean([softmax(member) for member in logits], axis=0)
    np.testing.assert_allclose(jnp.exp(ensembles.mean_probability(logits)), probability, rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(ensembles.mean_logit(logits)), softmax(logits.mean(0)), rtol=1e-5)
    assert np.abs(probability - softmax(logits.mean(0))).max() > 0.01  # they are different things


def test_one_member_is_itself_and_large_logits_do_not_overflow():
    logits = np.array([[[1000.0, 0.0, -1000.0]]], np.float32)
    for combine in (ensembles.mean_probability, ensembles.mean_logit):
        np.testing.assert_allclose(jnp.exp(combine(logits)), [[1, 0, 0]], atol=1e-6)


def test_members_do_not_have_to_come_first():
    logits = np.random.default_rng(0).normal(size=(3, 11, 4))
    for combine in (ensembles.mean_probability, ensembles.mean_logit):
        np.testing.assert_allclose(combine(logits), combine(np.moveaxis(logits, 0, 1), axis=1), rtol=1e-5)
