"""The losses of points in a subspace, example by example, and their slopes along the coefficients.

The loss at P(c) = sum_i c_i omega_i has the slopes

    dL / dc_i = <g, omega_i>,    g = dL / dtheta at theta = P(c),

so one gradient of one network serves every number of endpoints. The subspace's own derivative turns slopes along c into slopes
along alpha. With parts, the inner product is taken over the leaves of the part.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, loops, positions, tree
from jsubspace.errors import UsageError
from jsubspace.evaluation import devices
from jsubspace.evaluation.batches import Batches, ScoredBatch, padded
from jsubspace.evaluation.tasks import checks
from jsubspace.evaluation.tasks.likelihood import Likelihood
from jsubspace.evaluation.uncertainty import entropies
from jsubspace.merging.parts import Parts
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints, Params

LOG_PROB, ENTROPY = "log_prob", "entropy"
OBJECTIVES = (LOG_PROB, ENTROPY)
"""What is minimised: the mean negative log-probability, or the mean entropy of predictions, which needs no labels."""

PerExample = Callable[..., jax.Array]
"""``(point, *batch) -> losses [n]``."""


class Losses:
    """The losses of a subspace's points on validation data, which stays in memory. The programs are compiled once.

    Args:
      loss_fn: of `loss_function`.
      endpoints: leaves ``[m, *s]``. The programs follow their shardings.
      subspace: what the endpoints span.
      parts: which leaves share a position.
      batches: tuples of arrays ``[n, ...]``. Only the last may be smaller.
      name: what the batches are called in a message.

    Raises:
      UsageError: if there is no batch, or one is no tuple of arrays of one length.
    """

    def __init__(
        self, loss_fn: PerExample, endpoints: Endpoints, subspace: Subspace, parts: Parts, batches: Batches, name: str
    ) -> None:
        self._loss_fn, self._endpoints, self._subspace, self._parts = loss_fn, endpoints, subspace, parts
        self.batches = held(batches, name)
        self.num_examples = sum(int(batch.mask.sum()) for batch in self.batches)
        self._losses_program = jax.jit(self._losses_of_batch)
        self._slopes_program = jax.jit(self._slopes_of_batch)

    def per_example(self, points: np.ndarray) -> np.ndarray:
        """The losses ``[p, n]`` of p points, given by positions ``[p, parts, *alpha_shape]``."""
        program, at = self._losses_program, jnp.asarray(points)
        found = devices.drained(program(self._endpoints, at, batch.inputs) for batch in self.batches)
        kept = [part[:, batch.mask] for part, batch in zip(found, self.batches, strict=True)]
        return np.concatenate(kept, axis=-1).astype(np.float64)

    def slopes(self, points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted sums of the losses at f points, and their slopes along the positions. It takes one gradient per point.

        Args:
          points: ``[f, parts, *alpha_shape]``.
          weights: ``[f, n]``, one number per example for each point.

        Returns:
          ``[f]`` and ``[f, parts, *alpha_shape]``.
        """
        program, at, parts, first = self._slopes_program, jnp.asarray(points), [], 0
        for batch in self.batches:
            n = int(batch.mask.sum())
            of_batch = np.zeros((len(points), len(batch.mask)))
            of_batch[:, :n] = weights[:, first : first + n]
            parts.append(program(self._endpoints, at, jnp.asarray(of_batch), batch.inputs))
            first += n
            if len(parts) % devices.RUN_AHEAD == 0:
                jax.block_until_ready(parts[-1])
        found = jax.device_get(parts)
        values, slopes = (np.sum([np.asarray(part[i], np.float64) for part in found], axis=0) for i in (0, 1))
        return values, slopes

    def point(self, position: np.ndarray) -> Params:
        """The network at a position ``[parts, *alpha_shape]``."""
        return point_at(self._endpoints, self._subspace, self._parts, position)

    def _losses_of_batch(self, endpoints: Endpoints, points: jax.Array, batch: tuple[Any, ...]) -> jax.Array:
        def of_point(position: jax.Array) -> jax.Array:
            return self._loss_fn(tree.contract(endpoints, self._weights(endpoints, position)), *batch)

        return loops.over(of_point, points)

    def _slopes_of_batch(
        self, endpoints: Endpoints, points: jax.Array, weights: jax.Array, batch: tuple[Any, ...]
    ) -> tuple[jax.Array, jax.Array]:
        def of_point(given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            position, of_example = given

            def loss(point: Params) -> jax.Array:
                losses = self._loss_fn(point, *batch)
                return jnp.sum(jnp.where(of_example != 0, of_example.astype(losses.dtype) * losses, 0))

            weights, along_alpha = jax.vjp(lambda position: self._weights(endpoints, position), position)
            value, gradient = jax.value_and_grad(loss)(tree.contract(endpoints, weights))
            return value, along_alpha(slopes_along(weights, gradient, endpoints))[0]

        return loops.over(of_point, (points, weights))

    def _weights(self, endpoints: Endpoints, position: jax.Array) -> Any:
        return positions.coefficients(endpoints, self._parts.alpha(position), self._subspace)


def point_at(endpoints: Endpoints, subspace: Subspace, parts: Parts, position: np.ndarray) -> Params:
    """The network at a position ``[parts, *alpha_shape]``, divided among devices as the endpoints are."""
    alpha = parts.alpha(jnp.asarray(position))
    return jax.jit(tree.contract)(endpoints, positions.coefficients(endpoints, alpha, subspace))


def slopes_along(weights: Any, gradient: Params, endpoints: Endpoints) -> Any:
    """dL / dc_i = <g, omega_i>, like the weights: ``[m]``, or a tree with ``[m]`` or ``[m, L]`` per leaf.

    A leaf that all endpoints share does not depend on c. Its slopes are 0.

    Args:
      weights: c, as `tree.contract` takes it.
      gradient: g, leaves ``[*s]``.
      endpoints: leaves ``[m, *s]``.
    """

    def of_leaf(c: jax.Array, g: jax.Array, leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] == 1 != c.shape[0]:
            return jnp.zeros_like(c)
        wide = tree.accumulator(leaf.dtype)
        products = leaf.astype(wide) * g.astype(wide)[None]
        return jnp.sum(products, axis=tuple(range(c.ndim, leaf.ndim))).astype(c.dtype)

    pairs = list(zip(jax.tree.leaves(gradient), jax.tree.leaves(endpoints), strict=True))
    if jax.tree_util.all_leaves([weights]):
        return sum((of_leaf(weights, g, leaf) for g, leaf in pairs), jnp.zeros_like(weights))
    leaves, structure = jax.tree.flatten(weights)
    return jax.tree.unflatten(structure, [of_leaf(c, *pair) for c, pair in zip(leaves, pairs, strict=True)])


def loss_function(fn: Callable[..., Any], objective: str = LOG_PROB) -> PerExample:
    """``(point, *batch) -> losses [n]`` from a user's function.

    Args:
      fn: ``log_prob_fn(point, *batch) -> [n]``, or for the entropy ``predict_fn(point, *batch) -> logits [n, ..., k]``. The
        entropy is averaged over the axes between.
      objective: one of `OBJECTIVES`.
    """
    if objective == LOG_PROB:
        return lambda point, *batch: _checked(Likelihood().losses(fn(point, *batch)), batch)

    def entropy(point: Params, *batch: Any) -> jax.Array:
        logits = fn(point, *batch)
        if getattr(logits, "ndim", 0) < 2 or not jnp.issubdtype(logits.dtype, jnp.floating):
            raise UsageError(
                f"predict_fn returned {checks.in_words(logits)}. For the entropy it must return logits [n, k], real numbers with the "
                "classes as the last axis."
            )
        wide = logits.astype(tree.accumulator(logits.dtype))
        found = entropies.entropy(jax.nn.log_softmax(wide))
        return _checked(jnp.mean(found.reshape(found.shape[0], -1), axis=-1), batch)

    return entropy


def held(batches: Batches, name: str) -> list[ScoredBatch]:
    """The batches, checked and padded to one size. They are read once and stay in memory."""
    try:
        arguments.check_batches(name, batches)
        found = list(padded(batches, Likelihood()))
    except ValueError as error:
        raise UsageError(str(error) if name in str(error) else f"{name}: {error}") from None
    if not found:
        raise UsageError(f"{name} holds no batch. At least one example is needed, as in [(x, y)].")
    return found


def _checked(losses: jax.Array, batch: tuple[Any, ...]) -> jax.Array:
    n = np.shape(batch[0])[0]
    if losses.shape != (n,):
        raise UsageError(
            f"the function returned {list(losses.shape)} for a batch of {n} examples. It must return one number per example, [{n}]."
        )
    return losses
