"""The state of training: everything that a step changes, and nothing else."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jsubspace.types import Endpoints


class TrainState(NamedTuple):
    """The state of training. It holds arrays only, so that it can be donated, saved and compared as a whole.

    It holds no BatchNorm statistics, because they belong to a point (`jsubspace.reestimate_batch_stats`). It holds no
    key, because a step's random numbers follow from the run's seed and ``step``.

    Attributes:
      step: the number of steps taken, int32.
      endpoints: leaves ``[m, *s]``.
      opt_state: the state of the optax optimizer, for all endpoints at once.
    """

    step: jax.Array
    endpoints: Endpoints
    opt_state: Any


def init_train_state(endpoints: Endpoints, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), endpoints, optimizer.init(endpoints))


def not_finite(tree: Any) -> str | None:
    """The path of the first leaf that holds a number that is not finite, as ``['dense']['kernel']``, or None."""
    if all_finite(tree):
        return None
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return next(jax.tree_util.keystr(path) for path, leaf in leaves if not all_finite(leaf))


@jax.jit
def all_finite(endpoints: Endpoints) -> jax.Array:
    """Whether all numbers of the endpoints are finite: a scalar bool."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(endpoints)] or [jnp.array(True)]).all()
