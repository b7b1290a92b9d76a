"""The state of training: everything that a step changes, and nothing else."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jsubspace.types import Endpoints


class TrainState(NamedTuple):
    """Arrays only, so that it can be donated, saved and compared as a whole.

    There are no BatchNorm statistics: they belong to a point (`jsubspace.reestimate_batch_stats`). There is no
    key: a step's randomness follows from the run's seed and ``step``.

    Attributes:
      step: number of steps taken, int32.
      endpoints: leaves ``[m, *s]``.
      opt_state: optax's, for all endpoints at once.
    """

    step: jax.Array
    endpoints: Endpoints
    opt_state: Any


def init_train_state(endpoints: Endpoints, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), endpoints, optimizer.init(endpoints))


@jax.jit
def all_finite(endpoints: Endpoints) -> jax.Array:
    """Whether no number of the endpoints is infinite or not a number: a scalar bool."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(endpoints)]).all()
