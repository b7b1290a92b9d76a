"""Label noise: which labels change, to what, and that nothing else does."""

import numpy as np
import pytest

from jsubspace.data import labels

N, K = 20_000, 10
CLEAN = np.random.default_rng(7).integers(K, size=N).astype(np.int32)


def replaced(fraction):
    """The places that `labels.add_noise` draws anew, seen by giving it labels that are no class."""
    return labels.add_noise(np.full(N, -1, np.int32), fraction, K) >= 0


@pytest.mark.parametrize("fraction", [0, 0.05, 0.1, 0.33333, 0.5, 1])
def test_the_fraction_is_exact(fraction):
    assert replaced(fraction).sum() == int(N * fraction)
    changed = labels.add_noise(CLEAN, fraction, K) != CLEAN
    assert not (changed & ~replaced(fraction)).any()


def test_new_labels_are_uniform_over_all_classes_the_true_one_included():
    noisy = labels.add_noise(CLEAN, 1.0, K)
    assert abs((noisy == CLEAN).mean() - 1 / K) < 4 * np.sqrt(0.1 * 0.9 / N)
    counts = np.bincount(noisy, minlength=K)
    chi_squared = ((counts - N / K) ** 2 / (N / K)).sum()
    assert chi_squared < 27.9  # 9 degrees of freedom: one seed in a thousand is above


def test_more_noise_contains_less():
    little, much = labels.add_noise(CLEAN, 0.1, K), labels.add_noise(CLEAN, 0.4, K)
    assert not (replaced(0.1) & ~replaced(0.4)).any()
    np.testing.assert_array_equal(little[replaced(0.1)], much[replaced(0.1)])


def test_the_same_for_everyone():
    np.testing.assert_array_equal(labels.add_noise(CLEAN, 0.3, K), labels.add_noise(CLEAN, 0.3, K))
    np.random.seed(3)  # noise must not come from the global generator
    np.testing.assert_array_equal(labels.add_noise(CLEAN, 0.3, K), labels.add_noise(CLEAN, 0.3, K))
    # A golden value, from numpy's default_rng(0): a changed order of draws would change every noisy run.
    assert labels.add_noise(np.arange(8), 0.5, 8).tolist() == [0, 1, 5, 7, 4, 5, 7, 7]


def test_the_argument_is_left_alone():
    before = CLEAN.copy()
    labels.add_noise(CLEAN, 1.0, K)
    np.testing.assert_array_equal(CLEAN, before)
    assert labels.add_noise(CLEAN, 0.5, K).dtype == CLEAN.dtype


@pytest.mark.parametrize("fraction", [-0.1, 1.5, 20])
def test_fraction_outside_zero_and_one(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        labels.add_noise(CLEAN, fraction, K)
