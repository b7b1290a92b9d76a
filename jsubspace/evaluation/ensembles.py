"""Predictions of several networks combined into one."""

import jax
import jax.numpy as jnp


def mean_probability(logits: jax.Array, axis: int = 0) -> jax.Array:
    """Log of the members' mean probability, which is the usual ensemble: ``[e, ..., k] -> [..., k]``.

    Example:
      >>> logits = jnp.log(jnp.array([[0.2, 0.8], [0.6, 0.4]]))
      >>> jnp.exp(mean_probability(logits)).round(3).tolist()
      [0.4000000059604645, 0.6000000238418579]
    """
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return jax.nn.logsumexp(log_probs, axis=axis) - jnp.log(jnp.float32(logits.shape[axis]))


def mean_logit(logits: jax.Array, axis: int = 0) -> jax.Array:
    """Log-probabilities of the members' mean logit, as in the authors' program: ``[e, ..., k] -> [..., k]``."""
    return jax.nn.log_softmax(jnp.mean(logits, axis=axis), axis=-1)
