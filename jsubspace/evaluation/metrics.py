"""Scores of a single example for a network, for an ensemble, or for two networks.

Everything here is per example and runs on the devices. On the host, `estimates` turns the scores into means, calibration
errors and intervals. Predictions are log-probabilities ``[..., n, k]``: any leading axes (points of a subspace,
ensembles), then examples, then classes.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

PerExample: TypeAlias = Any
"""``[..., n]``: a jax array on the devices, a numpy array on the host."""


class Scores(NamedTuple):
    """The scores of each example, with leaves ``[..., n]`` in float32 or wider.

    Attributes:
      correct: 1 if the most probable class is the label, else 0.
      confidence: the probability of the most probable class.
      nll: negative log-likelihood of the label, in nats.
      brier: squared distance of the probabilities to the one-hot label, summed over classes (between 0 and 2).
    """

    correct: PerExample
    confidence: PerExample
    nll: PerExample
    brier: PerExample


def score(log_probs: jax.Array, labels: jax.Array) -> Scores:
    """`Scores` of log-probabilities ``[..., n, k]`` for integer labels ``[n]``.

    Example:
      >>> score(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([1])).brier.tolist()
      [0.125]
    """
    probs = jnp.exp(log_probs)
    one_hot = jax.nn.one_hot(labels, log_probs.shape[-1], dtype=log_probs.dtype)
    return Scores(
        correct=(jnp.argmax(log_probs, axis=-1) == labels).astype(log_probs.dtype),
        confidence=jnp.max(probs, axis=-1),
        # Only the label's term is summed: an impossible class has log-probability -inf, and 0 * inf is not 0.
        nll=-jnp.sum(jnp.where(one_hot > 0, log_probs, 0), axis=-1),
        brier=jnp.sum((probs - one_hot) ** 2, axis=-1),
    )


class Difference(NamedTuple):
    """How differently two networks see each example, with leaves ``[..., n]``.

    Attributes:
      disagreement: 1 if their most probable classes differ, else 0.
      one_is_right: 1 if at least one of them is right, else 0.
      disagreement_and_one_is_right: 1 if they differ and one of them is right. Its sum over examples, divided by the
        sum of ``one_is_right``, is the disagreement among the examples that at least one network gets right. An
        ensemble can use only this disagreement.
      tv_distance: total variation distance of the probabilities, sum_k |p_k - q_k| / 2.
      feature_cosine_squared: squared cosine of the two feature vectors, or None if no features are known.
    """

    disagreement: PerExample
    one_is_right: PerExample
    disagreement_and_one_is_right: PerExample
    tv_distance: PerExample
    feature_cosine_squared: PerExample | None


def difference(
    log_probs: tuple[jax.Array, jax.Array], features: tuple[jax.Array, jax.Array] | None, labels: jax.Array
) -> Difference:
    """`Difference` of two networks: log-probabilities ``[..., n, k]`` and, if given, features ``[..., n, f]`` of each."""
    log_p, log_q = log_probs
    class_p, class_q = jnp.argmax(log_p, axis=-1), jnp.argmax(log_q, axis=-1)
    differ, right = class_p != class_q, (class_p == labels) | (class_q == labels)
    return Difference(
        disagreement=differ.astype(log_p.dtype),
        one_is_right=right.astype(log_p.dtype),
        disagreement_and_one_is_right=(differ & right).astype(log_p.dtype),
        tv_distance=jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1) / 2,
        feature_cosine_squared=None if features is None else _cosine_squared(*features),
    )


def _cosine_squared(f: jax.Array, g: jax.Array) -> jax.Array:
    """``[..., n, f] -> [..., n]``. A feature vector of zeros (all units dead) has no direction, so it counts as orthogonal."""
    f, g = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (f, g))
    norms = jnp.sum(f * f, axis=-1) * jnp.sum(g * g, axis=-1)
    return jnp.where(norms > 0, jnp.sum(f * g, axis=-1) ** 2 / jnp.where(norms > 0, norms, 1), 0)
