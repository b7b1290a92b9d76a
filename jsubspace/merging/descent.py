"""Several small minimisations side by side: gradient steps that stay in a domain, with lengths that adapt.

Every fit of a cross-fitting minimises the same loss over other examples. The fits take their steps together, so that one
program serves them all and the data is read once per step.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jsubspace.merging.domains import Projection

Slopes = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``positions [f, parts, *alpha_shape] -> (losses [f], slopes like the positions)``, the mean losses of f fits."""

_FIRST = 0.1
"""How far the first step moves the number with the largest slope."""

_DECREASE = 1e-4
"""The part of the decrease that a slope promises and a step must reach (Armijo)."""

_STEPS = (1e-12, 1e12)
"""The range of a step's length."""


class Found(NamedTuple):
    """The result of f fits.

    Attributes:
      positions: ``[f, parts, *alpha_shape]``, the best positions.
      losses: ``[f]``, the losses there.
      steps: how often the losses and slopes were taken.
      is_done: ``[f]``, whether the fit could not be improved by more than the tolerance. Else the steps were used up.
    """

    positions: np.ndarray
    losses: np.ndarray
    steps: int
    is_done: np.ndarray


def minimised(slopes_at: Slopes, start: np.ndarray, project: Projection, num_steps: int, tolerance: float) -> Found:
    """The positions with the smallest losses that ``num_steps`` gradients find.

    A step goes against the slope and is projected into the domain. Its length is Barzilai and Borwein's (1988), from the last
    two slopes. A step that does not decrease the loss is taken back and tried again at a quarter of the length, so the loss
    of a fit never rises.

    Args:
      slopes_at: one gradient per fit.
      start: ``[f, parts, *alpha_shape]``, inside of the domain.
      project: of `domains.projection`.
      num_steps: how many gradients are taken at most, at least 1.
      tolerance: a fit ends when its step moves no number by more.

    Example:
      >>> bowl = lambda x: (((x - 0.3) ** 2).sum((1, 2)), 2 * (x - 0.3))
      >>> found = minimised(bowl, np.full((1, 1, 1), 0.5), lambda x: np.clip(x, 0, 1), 20, 1e-9)
      >>> found.positions.round(6).tolist(), found.is_done.tolist()
      ([[[0.3]]], [True])
    """
    at, axes = start, tuple(range(1, start.ndim))
    losses, slopes = slopes_at(at)
    steepest = np.abs(slopes).max(axes, initial=0)
    lengths = np.where(steepest > 0, _FIRST / np.where(steepest > 0, steepest, 1), 1.0)
    is_done = np.zeros(len(start), bool)
    steps = 1
    while True:
        tried = project(at - _spread(lengths, at) * slopes)
        moved = tried - at
        is_done |= np.abs(moved).max(axes, initial=0) <= tolerance
        if steps == num_steps or is_done.all():
            return Found(at, losses, steps, is_done)
        tried = np.where(_spread(is_done, at), at, tried)
        new_losses, new_slopes = slopes_at(tried)
        steps += 1
        promised = -np.sum(moved * slopes, axes)
        with np.errstate(invalid="ignore"):
            is_better = ~is_done & (new_losses <= losses - _DECREASE * promised) & np.isfinite(new_losses)
        bend = np.sum(moved * (new_slopes - slopes), axes)
        squares = np.sum(moved * moved, axes)
        grown = np.where(bend > 0, squares / np.where(bend > 0, bend, 1), 4 * lengths)
        lengths = np.clip(np.where(is_better, grown, lengths / 4), *_STEPS)
        at = np.where(_spread(is_better, at), tried, at)
        losses = np.where(is_better, new_losses, losses)
        slopes = np.where(_spread(is_better, at), new_slopes, slopes)


def _spread(per_fit: np.ndarray, like: np.ndarray) -> np.ndarray:
    """``[f]`` as ``[f, 1, ..., 1]``."""
    return per_fit.reshape(per_fit.shape + (1,) * (like.ndim - 1))
