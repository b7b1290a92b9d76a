"""Predictions of several networks combined into one."""

import jax
import jax.numpy as jnp

from jsubspace import tree


def mean_probability(logits: jax.Array, axis: int = 0) -> jax.Array:
    """Log of the members' mean probability, which is the usual ensemble: ``[e, ..., k] -> [..., k]``.

    Example:
      >>> logits = jnp.log(jnp.array([[0.2, 0.8], [0.6, 0.4]]))
      >>> jnp.exp(mean_probability(logits)).round(3).tolist()
      [0.4000000059604645, 0.6000000238418579]
    """
    return log_mean(log_probabilities(logits), axis)


def log_mean(log_probs: jax.Array, axis: int = 0) -> jax.Array:
    """Log of the mean of the members' probabilities or densities, from their logs: ``[e, ...] -> [...]``."""
    return jax.nn.logsumexp(log_probs, axis=axis) - jnp.log(jnp.asarray(log_probs.shape[axis], log_probs.dtype))


def mean_logit(logits: jax.Array, axis: int = 0) -> jax.Array:
    """Log-probabilities of the members' mean logit, as in the authors' program: ``[e, ..., k] -> [..., k]``."""
    return log_probabilities(jnp.mean(logits.astype(tree.accumulator(logits.dtype)), axis=axis))


def log_probabilities(logits: jax.Array) -> jax.Array:
    """Log-probabilities of logits ``[..., k]``, in float32 or wider, whatever the dtype of the network."""
    return jax.nn.log_softmax(logits.astype(tree.accumulator(logits.dtype)), axis=-1)
