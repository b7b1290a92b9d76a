"""Handwritten digits, and other images of 8 x 8 pixels that are none: scikit-learn's two photographs, and Fashion-MNIST."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import optax

from jsubspace.data import examples, prepare, sets
from jsubspace.examples import mlp
from jsubspace.types import Params

CENTER, SPREAD = 0.305, 0.376
"""Mean and standard deviation of the digits' pixels, which all images are standardised by."""


class Digits(NamedTuple):
    """``(x [n, 64], y [n])`` for each use: 1,077 digits for training, 360 for validation and 360 for the test."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


@functools.cache  # scikit-learn parses a text file of 1,797 lines.
def digits() -> Digits:
    """scikit-learn's digits in a fixed random order. The test digits are those of the data set "digits" of this library."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    x, y = _standardised(data.images / 16)[order], data.target[order].astype(np.int32)
    return Digits((x[720:], y[720:]), (x[360:720], y[360:720]), (x[:360], y[:360]))


def photographs() -> np.ndarray:
    """520 patches ``[520, 64]`` of scikit-learn's two photographs, in grey. A pixel of a patch is the mean of 4 x 4 pixels."""
    from sklearn.datasets import load_sample_images

    images = np.stack(load_sample_images().images).mean(-1) / 255  # [2, 427, 640]
    return _standardised(_patches(_pooled(images, 4)))


def fashion_mnist() -> np.ndarray:
    """The 10,000 test images of Fashion-MNIST ``[10000, 64]``. A border of two pixels makes 32 x 32, and 4 x 4 are averaged.

    Raises:
      UsageError: if Fashion-MNIST is not on the disk. The message has the command that prepares it.
    """
    images = examples.read(sets.find("fashion_mnist"), "", "test").images[..., 0] / 255
    return _standardised(_pooled(np.pad(images, ((0, 0), (2, 2), (2, 2))), 4))


def is_fashion_mnist_prepared() -> bool:
    """Whether `fashion_mnist` finds its images: ``python -m jsubspace.data.prepare fashion_mnist``."""
    return prepare.is_prepared(sets.find("fashion_mnist"))


def init_fn(key: jax.Array) -> Params:
    """One network of two hidden layers."""
    return mlp.init(key, (64, 128, 128, 10))


def loss_fn(point: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(mlp.apply(point, x), y).mean()


def _standardised(images: np.ndarray) -> np.ndarray:
    return ((images.reshape(len(images), -1) - CENTER) / SPREAD).astype(np.float32)


def _pooled(images: np.ndarray, side: int) -> np.ndarray:
    n, h, w = images.shape
    h, w = h // side, w // side
    return images[:, : h * side, : w * side].reshape(n, h, side, w, side).mean((2, 4))


def _patches(images: np.ndarray) -> np.ndarray:
    n, h, w = images.shape
    h, w = h // 8, w // 8
    return images[:, : 8 * h, : 8 * w].reshape(n, h, 8, w, 8).swapaxes(2, 3).reshape(-1, 8, 8)
