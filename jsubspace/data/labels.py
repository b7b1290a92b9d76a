"""Label noise: the same wrong labels for every method and seed."""

import numpy as np

DATA_SEED = 0
"""Of the permutation and the random labels. Not the run's seed: runs are compared on one noisy data set."""


def add_noise(labels: np.ndarray, fraction: float, num_classes: int) -> np.ndarray:
    """``labels [n]`` with the first ``int(n * fraction)`` of a fixed permutation drawn anew from all k classes.

    The true class is among those drawn from, so a share 1 / k of the noisy labels is right by chance. A larger
    fraction changes the labels that a smaller one does, to the same values, and more.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"label noise is the fraction of labels replaced, between 0 and 1, not {fraction}.")
    rng = np.random.default_rng(DATA_SEED)
    order, random_labels = rng.permutation(len(labels)), rng.integers(num_classes, size=len(labels))
    noisy = order[: int(len(labels) * fraction)]
    result = labels.copy()
    result[noisy] = random_labels[noisy]
    return result
