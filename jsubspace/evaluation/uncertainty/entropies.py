"""How uncertain a prediction is, and how much of that is disagreement between members: per example, on the devices.

The entropy of an ensemble's mean probabilities is the mean entropy of its members plus the mutual information between the class
and the member,

    H[mean_i p_i] = mean_i H[p_i] + I.

The first part stays if the members agree, and the second part vanishes then (Depeweg et al., 2018; Malinin and Gales, 2018).
"""

import jax
import jax.numpy as jnp

from jsubspace.evaluation import ensembles


def entropy(log_probs: jax.Array) -> jax.Array:
    """The entropy in nats, ``[..., k] -> [...]``. A class with probability 0 adds nothing.

    Example:
      >>> round(float(entropy(jnp.log(jnp.array([0.5, 0.5])))), 4)
      0.6931
    """
    is_possible = log_probs > -jnp.inf  # 0 times minus infinity is NaN, and a NaN must stay one.
    terms = jnp.where(is_possible | jnp.isnan(log_probs), jnp.exp(log_probs) * log_probs, 0)
    return -jnp.sum(terms, axis=-1)


def mutual_information(log_probs: jax.Array) -> jax.Array:
    """The mutual information of class and member in nats, at least 0: ``[e, n, k] -> [n]``.

    It is the mean divergence of the members from their mean, sum_k p_ik (log p_ik - log mean p_k), which does not cancel where
    the members nearly agree.

    Example:
      >>> certain = jnp.log(jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
      >>> round(float(mutual_information(certain)[0]), 4)
      0.6931
    """
    log_mean = ensembles.log_mean(log_probs)
    is_possible = log_probs > -jnp.inf
    difference = jnp.where(is_possible, log_probs, 0) - jnp.where(is_possible, log_mean[None], 0)
    divergences = jnp.sum(jnp.where(is_possible, jnp.exp(log_probs), 0) * difference, axis=-1)
    is_known = jnp.all(~jnp.isnan(log_probs), axis=-1)
    return jnp.mean(jnp.where(is_known, jnp.maximum(divergences, 0), jnp.nan), axis=0)
