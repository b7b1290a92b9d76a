"""The optimizer of a run: by its name in the settings, or the problem's own."""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax

from jsubspace.errors import UsageError
from jsubspace.optimizers import per_endpoint
from jsubspace.point_gradients import PointFn
from jsubspace.training import averages, optim
from jsubspace.types import Params

OWN = "problem"
"""The name in the settings of an optimizer that the problem brings."""

NAMES = (*optim.MAKERS, OWN)


def make(
    settings: ml_collections.ConfigDict, schedule: optax.Schedule, own: Any | None = None
) -> optax.GradientTransformation:
    """The optimizer of the stacked endpoints, with fixed ends, accumulation and an average if the settings ask for them.

    Args:
      settings: the settings.
      schedule: the learning rate as a function of the step.
      own: the problem's optimizer, or None.

    Raises:
      UsageError: if the settings and the problem do not name the same optimizer.
    """
    options = settings.optimizer
    of_update = _at_last_batch(schedule, options.accumulate_steps)
    if own is not None:
        optimizer = per_endpoint(_made(own, of_update))
    elif options.name == OWN:
        raise UsageError(
            "optimizer.name is 'problem', but the problem brings no optimizer. Give one to training.Problem(..., optimizer=), or "
            f"name one of {', '.join(optim.MAKERS)}."
        )
    else:
        optimizer = optim.MAKERS[options.name](of_update, options.momentum, options.weight_decay)
    if settings.subspace.fixed_ends:
        optimizer = optim.fix_first(optimizer, 2)
    if options.accumulate_steps > 1:
        optimizer = optax.MultiSteps(optimizer, options.accumulate_steps).gradient_transformation()
    return averages.averaged(optimizer, options.ema_decay) if options.ema_decay else optimizer


def clipping(settings: ml_collections.ConfigDict) -> PointFn | None:
    """The function that shortens the gradient at the point to ``optimizer.clip_norm``, or None for no limit."""
    limit = settings.optimizer.clip_norm
    if limit == 0:
        return None
    clip = optax.clip_by_global_norm(limit)

    def clipped(gradient: Params) -> Params:
        return clip.update(gradient, clip.init(gradient))[0]

    return clipped


def check_length(settings: ml_collections.ConfigDict, total_steps: int) -> None:
    """Raises a UsageError if a run is too short for a single update."""
    num_steps = settings.optimizer.accumulate_steps
    if 0 < total_steps < num_steps:
        raise UsageError(
            f"optimizer.accumulate_steps is {num_steps}, but the run has only {total_steps} steps and would never change the "
            "network. Lower it, or train for more epochs."
        )


def has_a_rate_of_its_own(optimizer: Any) -> bool:
    """Whether a problem's optimizer does not take the run's schedule, so that nobody but the problem knows its rate."""
    return _is_optimizer(optimizer)


def check_own(settings: ml_collections.ConfigDict, optimizer: Any, point: Params) -> None:
    """Checks a problem's optimizer on the shapes of a network.

    Raises:
      UsageError: if it is not an optimizer, the settings name another one, it accumulates gradients, or it fails.
    """
    if optimizer is None:
        return
    name = settings.optimizer.name
    if name != OWN:
        raise UsageError(
            f"the problem brings an optimizer, but optimizer.name is {name!r}. Set it to {OWN!r}, so that the record of the run "
            "is right, or leave out optimizer= of the problem."
        )

    def one_step(point: Params) -> tuple[Params, Any]:
        transform = _made(optimizer, lambda step: 0.1)
        updates, state = transform.update(point, transform.init(point), point)
        return optax.apply_updates(point, updates), state

    try:
        found, state = jax.eval_shape(one_step, point)
    except UsageError:
        raise
    except Exception as error:  # The optimizer is the user's, and may raise anything.
        raise UsageError(f"the optimizer of the problem failed on one network: {error}") from error
    if jax.tree.map(lambda leaf: leaf.shape, found) != jax.tree.map(lambda leaf: leaf.shape, point):
        raise UsageError("the optimizer of the problem returns updates of other shapes than the network's parameters.")
    if any(map(_accumulates, jax.tree.leaves(state, is_leaf=_accumulates))):
        raise UsageError(
            "the optimizer of the problem has an optax.MultiSteps in it. Its schedule would count updates and not steps, and would end "
            "too early. Give the optimizer inside of it to training.Problem(..., optimizer=), and set optimizer.accumulate_steps=k "
            "for an update from k steps."
        )
    if any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
        raise UsageError(
            "the optimizer of the problem has a typed key of jax.random in its state, which no checkpoint holds. Keep the key as "
            "jax.random.key_data, or choose an optimizer without random numbers."
        )


def _made(own: Any, schedule: optax.Schedule) -> Any:
    """An optimizer of one network, from itself or from a function of the schedule."""
    made = own(schedule) if callable(own) and not _is_optimizer(own) else own
    if not _is_optimizer(made):
        raise UsageError(
            f"the optimizer of the problem is of type {type(made).__name__}. It must be an object of optax with init and update, such as "
            "optax.adafactor(1e-3), or a function from the schedule to such an object, such as optax.adafactor."
        )
    return made.gradient_transformation() if hasattr(made, "gradient_transformation") else made


def _accumulates(state: Any) -> bool:
    return isinstance(state, optax.MultiStepsState)


def _is_optimizer(value: Any) -> bool:
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("init", "update"))


def _at_last_batch(schedule: optax.Schedule, num_steps: int) -> Callable[[Any], Any]:
    """The schedule as a function of the count of updates: an update has the rate of the last of its batches."""
    return schedule if num_steps == 1 else lambda count: schedule((count + 1) * num_steps - 1)
