"""A training loop without checkpoints: steps of any network, any subspace and any optax optimizer in one program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jsubspace
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints


class State(NamedTuple):
    """What a step changes.

    Attributes:
      endpoints: leaves ``[m, *s]``.
      opt_state: the state of the optimizer.
      step: the number of steps that were made, ``[]``.
    """

    endpoints: Endpoints
    opt_state: Any
    step: jax.Array


def start(endpoints: Endpoints, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step."""
    return State(endpoints, optimizer.init(endpoints), jnp.zeros((), int))


def steps(
    loss_fn: Callable[..., jax.Array],
    subspace: Subspace,
    optimizer: optax.GradientTransformation,
    draw: Callable[..., tuple[Any, ...]],
    num_steps: int,
    spread: Callable[[jax.Array], jax.Array] | float = 1.0,
    **options: Any,
) -> Callable[..., tuple[State, jax.Array]]:
    """A function that makes ``num_steps`` steps. Compile it with `jax.jit`, or train several runs at once with `jax.vmap`.

    The keys of a step follow from the run's key and the number of the step, so a hundred steps and a hundred more are the same as
    two hundred.

    Args:
      loss_fn: ``(point, *batch) -> loss``.
      subspace: what is trained. `jsubspace.Point` is standard training.
      optimizer: for the stacked endpoints, usually from `jsubspace.per_endpoint`.
      draw: ``(key, data) -> batch``, a tuple of arrays.
      num_steps: the number of steps of a call.
      spread: how far alpha may be from the center, as in `jsubspace.value_and_grad`, or a function of the step.
      options: further options of `jsubspace.value_and_grad`, for example ``beta``.

    Returns:
      ``(key, state, data) -> (state, losses [num_steps])``.

    Example:
      >>> optimizer = optax.sgd(0.1)
      >>> run = steps(lambda w, x: (w - x) ** 2, jsubspace.Point(), optimizer, lambda key, data: (data,), 40)
      >>> state, losses = jax.jit(run)(jax.random.key(0), start(jnp.zeros(1), optimizer), 2.0)
      >>> round(float(jsubspace.midpoint(state.endpoints)), 2)
      2.0
    """

    def run(key: jax.Array, state: State, data: Any) -> tuple[State, jax.Array]:
        def step(state: State, _: Any) -> tuple[State, jax.Array]:
            batch_key, alpha_key = jax.random.split(jax.random.fold_in(key, state.step))
            now = spread(state.step) if callable(spread) else spread
            grad_fn = jsubspace.value_and_grad(loss_fn, subspace, spread=now, **options)
            (_, info), grads = grad_fn(alpha_key, state.endpoints, *draw(batch_key, data))
            updates, opt_state = optimizer.update(grads, state.opt_state, state.endpoints)
            return State(optax.apply_updates(state.endpoints, updates), opt_state, state.step + 1), info.loss

        return jax.lax.scan(step, state, length=num_steps)

    return run


def rows(batch_size: int) -> Callable[[jax.Array, Any], tuple[Any, ...]]:
    """A ``draw`` of `steps` that takes rows of arrays ``[n, ...]`` at random, with replacement."""

    def draw(key: jax.Array, data: Any) -> tuple[Any, ...]:
        chosen = jax.random.randint(key, (batch_size,), 0, len(data[0]))
        return tuple(array[chosen] for array in data)

    return draw
