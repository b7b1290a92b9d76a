"""Cross-fitting: examples in folds, so that every example is scored by a fit that has not seen it."""

from typing import Any, NamedTuple

import numpy as np

from jsubspace import arguments
from jsubspace.errors import UsageError

FEWEST = 5
"""The smallest number of folds. A fit then sees at least four fifths of the examples."""


class Folds(NamedTuple):
    """Examples in folds.

    Attributes:
      fold: ``[n]``, the fold of every example.
      group: ``[n]``, the group of every example, from 0 on. Examples of a group are in one fold.
      num_folds: their number.
    """

    fold: np.ndarray
    group: np.ndarray
    num_folds: int

    @property
    def weights(self) -> np.ndarray:
        """``[1 + folds, n]``: what every fit sees, as weights that sum to 1. The first fit sees all, fit 1 + k not fold k."""
        seen = np.concatenate([np.ones((1, len(self.fold)), bool), self.fold != np.arange(self.num_folds)[:, None]])
        return seen / seen.sum(-1, keepdims=True)

    def seen(self, losses: np.ndarray) -> np.ndarray:
        """``[1 + folds, p]``: of losses ``[p, n]``, the mean over the examples that every fit sees (`means`)."""
        return np.stack([means(losses, of_fit) for of_fit in self.weights])

    def unseen(self, losses: np.ndarray) -> np.ndarray:
        """``[n]``: of the losses ``[1 + folds, n]`` of all fits, each example's loss by the fit that has not seen it."""
        return losses[1 + self.fold, np.arange(len(self.fold))]


def folds(num_examples: int, groups: Any = None, count: int = FEWEST, caller: str = "fit_alpha") -> Folds:
    """The folds of n examples. They are drawn at random, the same in every call.

    Args:
      num_examples: n.
      groups: one label per example, in the order of the batches, as the patient of an image. None if all examples are
        independent.
      count: the number of folds, at least 5.
      caller: the function that a message names.

    Raises:
      UsageError: if there are fewer folds than 5, fewer examples or groups than folds, or the labels do not fit.

    Example:
      >>> folds(10, groups=np.arange(10) // 2).group.tolist()
      [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """
    if arguments.integer(f"{caller}: num_folds", count) < FEWEST:
        raise UsageError(f"{caller}: num_folds is {count}, but it must be at least {FEWEST}.")
    group = np.arange(num_examples) if groups is None else _numbered(groups, num_examples, caller)
    num_groups = int(group.max()) + 1
    if num_groups < count:
        units = "examples" if groups is None else "groups"
        raise UsageError(
            f"{caller}: there are {num_groups} {units}, but {count} folds need at least {count}. Give more validation data."
        )
    of_group = np.empty(num_groups, int)
    of_group[np.random.default_rng(0).permutation(num_groups)] = np.arange(num_groups) % count
    return Folds(of_group[group], group, count)


def means(losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means of losses ``[..., n]`` with weights ``[..., n]``. A loss of weight 0 does not count, even if infinite.

    A mean that is no finite number is infinite, so that nothing prefers it.
    """
    with np.errstate(invalid="ignore"):
        found: np.ndarray = np.sum(np.where(weights > 0, losses, 0) * weights, axis=-1)
    return np.where(np.isfinite(found), found, np.inf)


def _numbered(groups: Any, num_examples: int, caller: str) -> np.ndarray:
    labels = np.asarray(groups)
    if labels.shape != (num_examples,) or labels.dtype == object:
        raise UsageError(
            f"{caller}: groups is {arguments.described(groups)}, but it must hold one label per example, [{num_examples}], in the "
            "order of the batches."
        )
    given = np.asarray(groups, object)  # Beside a text, numpy makes the text "nan" of a NaN.
    missing = np.flatnonzero((labels != labels) | (given != given))
    if len(missing):
        raise UsageError(
            f"{caller}: groups holds {labels[missing[0]]} for {len(missing)} of {num_examples} examples, the first of them example "
            f"{missing[0]}. Every example must have a label. If such an example depends on no other, give it a label of its own. "
            "Else leave it out of the batches."
        )
    return np.unique(labels, return_inverse=True)[1]
