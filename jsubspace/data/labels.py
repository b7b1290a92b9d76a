"""Label noise: the same wrong labels for every method and seed."""

import math
from fractions import Fraction

import numpy as np

DATA_SEED = 0
"""The seed of the permutation and the random labels. It is not the run's seed: all runs see one noisy data set."""


def add_noise(labels: np.ndarray, fraction: float, num_classes: int) -> np.ndarray:
    """``labels [n]``, with the first ``floor(n * fraction)`` labels of a fixed permutation replaced by random labels.

    The fraction is taken as it is written: 0.58 of 50,000 labels are 29,000, although the nearest binary number to 0.58 is
    less than 0.58.

    A random label is one of all k classes, so a share 1 / k of the noisy labels is right by chance. A larger fraction
    changes the labels that a smaller fraction changes, to the same values, and more.

    Raises:
      ValueError: if the fraction is not between 0 and 1, or there is no class.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"label noise is the fraction of labels replaced, between 0 and 1, not {fraction}.")
    if num_classes < 1:
        raise ValueError(
            f"label noise draws one of num_classes classes, which is {num_classes}. It must be at least 1."
        )
    rng = np.random.default_rng(DATA_SEED)
    order, random_labels = rng.permutation(len(labels)), rng.integers(num_classes, size=len(labels))
    noisy = order[: math.floor(len(labels) * Fraction(str(fraction)))]
    result = labels.copy()
    result[noisy] = random_labels[noisy]
    return result
