"""An exponential moving average of the endpoints, which is evaluated in the place of the endpoints themselves.

The average takes the place of the endpoints in the train state. So tests, checkpoints, exports and runs that start from a
run all see the average. The endpoints that are trained are a part of the optimizer's state.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jsubspace import tree
from jsubspace.training.train_state import TrainState
from jsubspace.types import Endpoints


class Averaged(NamedTuple):
    """The state of `averaged`.

    Attributes:
      trained: the endpoints at which gradients are taken, leaves ``[m, *s]``.
      num_updates: the number of updates of these endpoints, int32.
      inner: the state of the optimizer that changes them.
    """

    trained: Endpoints
    num_updates: jax.Array
    inner: Any


class WideAveraged(NamedTuple):
    """The state of `averaged` for endpoints with leaves of 16 bits.

    A late step of an average is smaller than half of the last place of such a leaf, and would be lost.

    Attributes:
      trained, num_updates, inner: as in `Averaged`.
      average: the average in float32 or wider. The parameters are this average in their own dtype.
    """

    trained: Endpoints
    num_updates: jax.Array
    inner: Any
    average: Endpoints


def averaged(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """``optimizer``, with the average of the trained endpoints as its parameters.

    After update t the average moves by max(1 - decay, 1 / t) of the way to the new endpoints. It is therefore the plain mean
    of the endpoints during the first 1 / (1 - decay) updates, and the endpoints of the start have no part in it. A step of
    `optax.MultiSteps` that only accumulates changes nothing.

    Gradients are taken at `trained`, and not at the parameters.
    """

    def init(endpoints: Endpoints) -> Averaged | WideAveraged:
        # A copy, because both are donated to a step.
        state = Averaged(jax.tree.map(jnp.copy, endpoints), jnp.zeros((), jnp.int32), optimizer.init(endpoints))
        is_wide = all(tree.accumulator(leaf.dtype) == leaf.dtype for leaf in jax.tree.leaves(endpoints))
        return state if is_wide else WideAveraged(*state, average=jax.tree.map(_copied_wide, endpoints))

    def update(
        grads: Endpoints, state: Averaged | WideAveraged, average: Endpoints | None = None
    ) -> tuple[Endpoints, Averaged | WideAveraged]:
        assert average is not None
        updates, inner = optimizer.update(grads, state.inner, state.trained)
        new = optax.apply_updates(state.trained, updates)
        accumulates = isinstance(inner, optax.MultiStepsState)
        moved = inner.mini_step == 0 if accumulates else jnp.array(True)
        count = state.num_updates + moved
        part = jnp.where(moved, jnp.maximum(1 - decay, 1 / jnp.maximum(count, 1)), 0).astype(jnp.float32)
        if isinstance(state, Averaged):
            steps = jax.tree.map(lambda a, b: (part * (b - a)).astype(a.dtype), average, new)
            return steps, Averaged(new, count, inner)
        wide = jax.tree.map(lambda a, b: a + part.astype(a.dtype) * (b.astype(a.dtype) - a), state.average, new)
        steps = jax.tree.map(lambda a, b: b.astype(a.dtype) - a, average, wide)
        return steps, WideAveraged(new, count, inner, wide)

    return optax.GradientTransformation(init, update)


def trained(state: TrainState) -> Endpoints:
    """The endpoints at which the gradient is taken: the endpoints of the state, or with an average the endpoints that are averaged."""
    is_averaged = isinstance(state.opt_state, Averaged | WideAveraged)
    return state.opt_state.trained if is_averaged else state.endpoints


def _copied_wide(leaf: jax.Array) -> jax.Array:
    return jnp.array(leaf, tree.accumulator(leaf.dtype), copy=True)
