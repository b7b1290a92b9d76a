"""Metrics as masked sums: add them over batches and devices, divide once at the end.

Predictions are log-probabilities ``[..., n, k]``: any leading axes (points of a subspace, ensembles), then
examples, then classes. A mask ``[n]`` says which examples are real and which are padding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Classification(NamedTuple):
    """Sums over examples that accuracy, likelihood and calibration are made of; leaves ``[...]`` and ``[..., bins]``.

    Attributes:
      examples: how many.
      correct: examples whose most probable class is the label.
      nll: negative log-likelihood of the label, in nats.
      brier: squared distance of the probabilities to the one-hot label, summed over classes.
      bin_count, bin_confidence, bin_correct: number of examples, sum of confidences and number of correct
        examples, by confidence: the probability of the most probable class, in bins of equal width.
    """

    examples: jax.Array
    correct: jax.Array
    nll: jax.Array
    brier: jax.Array
    bin_count: jax.Array
    bin_confidence: jax.Array
    bin_correct: jax.Array


def classification(log_probs: jax.Array, labels: jax.Array, mask: jax.Array, num_bins: int = 20) -> Classification:
    """Sums over the examples of a batch.

    Args:
      log_probs: ``[..., n, k]``.
      labels: ``[n]`` integers.
      mask: ``[n]`` bools; the others do not count.
      num_bins: bins ``(i / b, (i + 1) / b]`` of the confidence; the paper uses 20.
    """
    probs = jnp.exp(log_probs)
    confidence = jnp.max(probs, axis=-1)
    correct = (jnp.argmax(log_probs, axis=-1) == labels) & mask
    one_hot = jax.nn.one_hot(labels, log_probs.shape[-1], dtype=log_probs.dtype)
    # A where, not a product: padding may hold anything, and 0 * inf is not 0. The label's own term alone, for
    # the same reason: an impossible class has log-probability -inf.
    nll = jnp.where(mask, -jnp.sum(jnp.where(one_hot > 0, log_probs, 0), axis=-1), 0)
    brier = jnp.where(mask, jnp.sum((probs - one_hot) ** 2, axis=-1), 0)
    bins = jnp.clip(jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1, 0, num_bins - 1)
    in_bin = (bins[..., None] == jnp.arange(num_bins)) & mask[:, None]
    return Classification(
        examples=jnp.broadcast_to(jnp.sum(mask, dtype=jnp.float32), correct.shape[:-1]),
        correct=jnp.sum(correct, axis=-1, dtype=jnp.float32),
        nll=jnp.sum(nll, axis=-1),
        brier=jnp.sum(brier, axis=-1),
        bin_count=jnp.sum(in_bin, axis=-2, dtype=jnp.float32),
        bin_confidence=jnp.sum(jnp.where(in_bin, confidence[..., None], 0), axis=-2),
        bin_correct=jnp.sum(in_bin & correct[..., None], axis=-2, dtype=jnp.float32),
    )


def summarize(sums: Classification) -> dict[str, np.ndarray]:
    """Means from sums, on the host: accuracy, nll, brier and ece, each ``[...]``.

    The expected calibration error is sum_b (n_b / n) |confidence_b - accuracy_b| (Guo et al., 2017).
    """
    host = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
    gaps = np.abs(host.bin_confidence - host.bin_correct)
    return {
        "accuracy": host.correct / host.examples,
        "nll": host.nll / host.examples,
        "brier": host.brier / host.examples,
        "ece": np.sum(gaps, axis=-1) / host.examples,
    }


class Difference(NamedTuple):
    """Sums over examples of how differently two networks predict; leaves ``[...]``.

    Attributes:
      examples: how many.
      disagreement: examples for which the most probable classes differ.
      tv_distance: total variation distance of the probabilities, sum_k |p_k - q_k| / 2.
      feature_cosine_squared: squared cosine of the two feature vectors.
    """

    examples: jax.Array
    disagreement: jax.Array
    tv_distance: jax.Array
    feature_cosine_squared: jax.Array


def difference(
    log_probs: tuple[jax.Array, jax.Array], features: tuple[jax.Array, jax.Array], mask: jax.Array
) -> Difference:
    """Sums over a batch for two networks: log-probabilities ``[..., n, k]`` and features ``[..., n, f]`` of each."""
    (log_p, log_q), (f, g) = log_probs, (x.astype(jnp.float32) for x in features)
    disagree = jnp.argmax(log_p, axis=-1) != jnp.argmax(log_q, axis=-1)
    tv = jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1) / 2
    norms = jnp.sum(f * f, axis=-1) * jnp.sum(g * g, axis=-1)
    # A feature vector of zeros (all units dead) has no direction; it counts as orthogonal.
    cosine = jnp.where(norms > 0, jnp.sum(f * g, axis=-1) ** 2 / jnp.where(norms > 0, norms, 1), 0)
    return Difference(
        examples=jnp.broadcast_to(jnp.sum(mask, dtype=jnp.float32), disagree.shape[:-1]),
        disagreement=jnp.sum(disagree & mask, axis=-1, dtype=jnp.float32),
        tv_distance=jnp.sum(jnp.where(mask, tv, 0), axis=-1),
        feature_cosine_squared=jnp.sum(jnp.where(mask, cosine, 0), axis=-1),
    )


def summarize_difference(sums: Difference) -> dict[str, np.ndarray]:
    """Means from sums, on the host: disagreement, tv_distance and feature_cosine_squared, each ``[...]``."""
    host = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
    return {name: getattr(host, name) / host.examples for name in Difference._fields[1:]}
