"""Temperature scaling: one number that makes a classifier's probabilities less, or more, certain (Guo et al., 2017).

The scaled probabilities are softmax(z / T). The NLL is a convex function of the inverse temperature b = 1 / T, with the derivative

    d NLL / d b = mean of (sum_k softmax(b z)_k z_k) - z_label.

The devices return this derivative per example on a grid of b. The host adds it up over examples and finds its root, so that no logits
are kept. For an ensemble, z is the log of the mean probability: it is scaled after the members are pooled, because members that are
scaled alone give a pool that is less certain than it should be (Rahaman and Thiery, 2021).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.evaluation import bounds

LOWEST, HIGHEST = 1 / 32, 32.0
"""The temperatures between which a temperature is sought."""

NUM_GRID = 41

GRID = np.geomspace(1 / HIGHEST, 1 / LOWEST, NUM_GRID)
"""The inverse temperatures at which the derivative is taken."""


def derivatives(log_probs: jax.Array, labels: jax.Array) -> jax.Array:
    """d NLL / d b of every example, at all b of `GRID`: ``[n, k], [n] -> [NUM_GRID, n]``.

    A class with probability 0 has no part in it, unless it is the label: then the derivative is infinite for every b.
    """
    is_possible = log_probs > -jnp.inf
    z = jnp.where(is_possible, log_probs, 0)
    of_label = jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]

    def at(inverse: jax.Array) -> jax.Array:
        weights = jax.nn.softmax(jnp.where(is_possible, inverse * z, -jnp.inf), axis=-1)
        return jnp.sum(weights * z, axis=-1) - of_label

    return jax.lax.map(at, jnp.asarray(GRID, log_probs.dtype))


def fitted(means: np.ndarray) -> float:
    """The temperature with the lowest NLL, from the means over examples of `derivatives`, ``[NUM_GRID]``.

    It is `LOWEST` or `HIGHEST` if the NLL falls up to there, as it does if every example is right.

    Raises:
      ValueError: if a mean is not finite: the network calls a label impossible, or computes NaN.
    """
    means = np.asarray(means, np.float64)
    if not np.isfinite(means).all():
        raise ValueError(
            "no temperature fits: for some validation example the network calls the label impossible or computes NaN. Look at its outputs."
        )
    if means[0] >= 0:
        return HIGHEST
    if means[-1] <= 0:
        return LOWEST
    # Between two points of the grid the derivative is nearly a cubic in log b. Four points determine it.
    right = int(np.argmax(means > 0))
    first = min(max(right - 2, 0), len(means) - 4)
    places = np.log(GRID)
    low, high = places[right - 1], places[right]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _cubic(places[first : first + 4], means[first : first + 4], middle) < 0 else (low, middle)
        )
    return math.exp(-(low + high) / 2)


def interval(of_examples: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a fitted temperature, from `derivatives` of the examples, ``[NUM_GRID, n]``.

    It holds all temperatures at which a t interval of the mean derivative holds 0. For one example it holds everything.
    """
    n = of_examples.shape[-1]
    if n == 1:
        return LOWEST, HIGHEST
    of_examples = np.asarray(of_examples, np.float64)
    means = of_examples.mean(-1)
    half = bounds.t_quantile(n - 1) * of_examples.std(-1, ddof=1) / math.sqrt(n)
    return fitted(means - half), fitted(means + half)


def scaled(log_probs: jax.Array, temperatures: jax.Array) -> jax.Array:
    """Log-probabilities at the temperatures of networks: ``[p, n, k], [p] -> [p, n, k]``."""
    inverse = (1 / temperatures).astype(log_probs.dtype)[:, None, None]
    return jax.nn.log_softmax(jnp.where(log_probs > -jnp.inf, log_probs * inverse, -jnp.inf), axis=-1)


def _cubic(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """Lagrange's polynomial through four points."""
    return sum(float(y[i]) * math.prod((at - x[j]) / (x[i] - x[j]) for j in range(4) if j != i) for i in range(4))
