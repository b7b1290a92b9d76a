"""Scores of a single example for a network, for an ensemble, or for two networks.

Everything here is per example and runs on the devices. On the host, `estimates` turns the scores into means, calibration
errors and intervals. Predictions are log-probabilities ``[..., n, k]``: any leading axes (points of a subspace,
ensembles), then examples, then classes.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import tree

PerExample: TypeAlias = Any
"""``[..., n]``: a jax array on the devices, a numpy array on the host."""


class Scores(NamedTuple):
    """The scores of each example, with leaves ``[..., n]`` in float32 or wider.

    Attributes:
      correct: 1 if the most probable class is the label, else 0. It is 0 if a log-probability is NaN or +inf.
      confidence: the probability of the most probable class, or NaN if a log-probability is NaN.
      nll: negative log-likelihood of the label, in nats. It is NaN if the label is out of range.
      brier: squared distance of the probabilities to the one-hot label, summed over classes (between 0 and 2). It is NaN
        if the label is out of range.
    """

    correct: PerExample
    confidence: PerExample
    nll: PerExample
    brier: PerExample


def score(log_probs: jax.Array, labels: jax.Array) -> Scores:
    """`Scores` of log-probabilities ``[..., n, k]`` for integer labels ``[n]``.

    Raises:
      ValueError: if the labels are no integers, or a label is no class. Inside jit, the numbers are not known: there the
        ``nll`` of such an example is NaN.

    Example:
      >>> score(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([1])).brier.tolist()
      [0.125]
    """
    log_probs = _wide(log_probs)
    num_classes = log_probs.shape[-1]
    _check_labels(labels, num_classes)
    labels = wide_labels(labels)
    probs = jnp.exp(log_probs)
    one_hot = jnp.broadcast_to(jax.nn.one_hot(labels, num_classes, dtype=log_probs.dtype), log_probs.shape)
    is_class = (labels >= 0) & (labels < num_classes)
    # Only the label's term is summed: an impossible class has log-probability -inf, and 0 * inf is not 0.
    nll = -jnp.sum(jnp.where(one_hot > 0, log_probs, 0), axis=-1)
    brier = jnp.sum((probs - one_hot) ** 2, axis=-1)
    return Scores(
        correct=is_right(log_probs, labels).astype(log_probs.dtype),
        confidence=jnp.max(probs, axis=-1),
        nll=jnp.where(_like(is_class, nll), nll, jnp.nan),
        brier=jnp.where(_like(is_class, brier), brier, jnp.nan),
    )


def cross_entropies(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """(1 - s) NLL + s times the mean over classes of -log p, per example: ``[n, k], [n] -> [n]``.

    It is NaN if the label is out of range, which stops training. Logits of 16 bits are widened first: in bfloat16, a probability
    above 0.998 is 1, and its loss and the gradient of its logit would be 0.
    """
    log_probs = jax.nn.log_softmax(_wide(logits))
    labels = wide_labels(labels)
    labels = jnp.where(labels < 0, logits.shape[-1], labels)  # A negative label would count from the last class.
    nll = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    if not smoothing:
        return nll
    return (1 - smoothing) * nll - smoothing * jnp.mean(log_probs, axis=-1)


def wide_labels(labels: Any) -> Any:
    """Integer labels in int32 or wider. In int8, the number of 200 classes would be -56.

    Example:
      >>> wide_labels(jnp.zeros(2, jnp.uint8)).dtype
      dtype('int32')
    """
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def is_right(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit or log-probability ``[..., n, k]`` is the label's ``[n]``. NaN and +inf are never right."""
    largest = jnp.argmax(outputs, axis=-1)
    return (largest == _like(labels, largest)) & _is_known(outputs)


class Difference(NamedTuple):
    """How differently two networks see each example, with leaves ``[..., n]``.

    Attributes:
      disagreement: 1 if their most probable classes differ, else 0. It is NaN if one of them predicts NaN, which is no
        class.
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
    log_p, log_q = map(_wide, log_probs)
    differ = (jnp.argmax(log_p, axis=-1) != jnp.argmax(log_q, axis=-1)).astype(log_p.dtype)
    differ = jnp.where(_is_known(log_p) & _is_known(log_q), differ, jnp.nan)
    right = (is_right(log_p, labels) | is_right(log_q, labels)).astype(log_p.dtype)
    return Difference(
        disagreement=differ,
        one_is_right=right,
        disagreement_and_one_is_right=differ * right,
        tv_distance=jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1) / 2,
        feature_cosine_squared=None if features is None else _cosine_squared(*features),
    )


def _cosine_squared(f: jax.Array, g: jax.Array) -> jax.Array:
    """``[..., n, f] -> [..., n]``, between 0 and 1, and NaN for features that are not finite.

    A feature vector of zeros (all units dead) has no direction, so it counts as orthogonal.
    """
    f, g = _unit(_wide(f)), _unit(_wide(g))
    return jnp.minimum(jnp.sum(f * g, axis=-1) ** 2, 1)


def _unit(features: jax.Array) -> jax.Array:
    """Vectors ``[..., f]`` divided by their norms. They are divided by their largest entry first, whose square may be no
    float32."""
    largest = jnp.max(jnp.abs(features), axis=-1, keepdims=True, initial=0)
    scaled = features / jnp.where(largest != 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(scaled * scaled, axis=-1, keepdims=True))
    return scaled / jnp.where(norm != 0, norm, 1)


def _is_known(outputs: jax.Array) -> jax.Array:
    """Whether outputs ``[..., n, k]`` have a largest class: the largest of them is finite."""
    return jnp.isfinite(jnp.max(outputs, axis=-1))


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(tree.accumulator(x.dtype))


def _like(per_example: jax.Array, other: jax.Array) -> jax.Array:
    """``[n] -> [..., n]``, of the same values for all leading axes."""
    return jnp.broadcast_to(per_example, other.shape)


def _check_labels(labels: Any, num_classes: int) -> None:
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(
            f"the labels have the dtype {jnp.result_type(labels)}. They must be integers, one class per example."
        )
    if isinstance(labels, jax.core.Tracer) or not np.size(labels):
        return
    values = np.asarray(labels)  # By numpy alone: jax would trace it where a program around this one is traced.
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"the labels are between {low} and {high}, but there are {num_classes} classes, 0 to {num_classes - 1}."
        )
