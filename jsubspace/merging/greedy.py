"""Greedy soups: networks enter one after the other, and stay if the validation loss does not rise."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jsubspace.evaluation import paired
from jsubspace.merging.folds import Folds, means


class Step(NamedTuple):
    """One try of a greedy soup.

    Attributes:
      network: the network that was tried.
      part: the part of the network in which it was tried.
      before, after: the mean losses without and with it.
      change: the loss with it minus the loss without it.
      interval: the 95 % interval of the change, paired over examples. The order of the networks was chosen on the same
        examples, so it describes this step alone. The gains of the report are about new data.
      is_kept: whether the network stays.
    """

    network: str
    part: str
    before: float
    after: float
    change: float
    interval: tuple[float, float] | None
    is_kept: bool


class Soups(NamedTuple):
    """Greedy soups of f fits.

    Attributes:
      positions: ``[f, parts, m]``, the weights of the networks.
      steps: every try of the first fit, in order.
    """

    positions: np.ndarray
    steps: tuple[Step, ...]


def greedy(
    per_example: Callable[[np.ndarray], np.ndarray],
    singles: np.ndarray,
    split: Folds,
    networks: Sequence[str],
    part_names: Sequence[str],
) -> Soups:
    """Greedy soups (Wortsman et al., 2022), one per fit.

    The best network comes first. The others are tried in the order of their losses. In every part, a network stays if the mean
    loss of the average does not rise. All fits take their steps together.

    Args:
      per_example: ``positions [p, parts, m] -> losses [p, n]``.
      singles: ``[m, n]``, the losses of the networks.
      split: what each of the f fits sees.
      networks: m names.
      part_names: one name per part.
    """
    weights = split.weights
    fits = np.arange(len(weights))
    order = np.argsort(split.seen(singles), axis=-1, kind="stable")
    inside = np.zeros((len(weights), len(part_names), len(networks)), bool)
    inside[fits, :, order[:, 0]] = True
    losses, steps = singles[order[:, 0]], []
    for rank in range(1, len(networks)):
        for part, part_name in enumerate(part_names):
            tried = inside.copy()
            tried[fits, part, order[:, rank]] = True
            found = per_example(tried / tried.sum(-1, keepdims=True))
            before, after = means(losses, weights), means(found, weights)
            is_kept = after <= before
            steps.append(_step(networks[order[0, rank]], part_name, losses[0], found[0], bool(is_kept[0])))
            inside = np.where(is_kept[:, None, None], tried, inside)
            losses = np.where(is_kept[:, None], found, losses)
    return Soups(inside / inside.sum(-1, keepdims=True), tuple(steps))


def _step(network: str, part: str, before: np.ndarray, after: np.ndarray, is_kept: bool) -> Step:
    found = paired.of_means([after], [before])
    interval = None if found is None else (found[1][0], found[1][1])
    low, high = float(before.mean()), float(after.mean())
    return Step(network, part, low, high, high - low, interval, is_kept)
