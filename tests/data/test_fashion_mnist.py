"""The one real data set that the tests can have: Fashion-MNIST, from its archives, by its official builder."""

import os
import pathlib

import fake_archives
import numpy as np
import pytest
from places import REPOSITORY

from jsubspace.data import examples, sets

ARCHIVES = pathlib.Path(os.environ.get("JSUBSPACE_TEST_ARCHIVES") or REPOSITORY.parent / "shared" / "data")
FASHION_MNIST = sets.find("fashion_mnist")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = ARCHIVES / "fashion_mnist"
    if not all((folder / name).is_file() for name in FASHION_MNIST.archives):
        pytest.skip(f"no Fashion-MNIST archives in {folder}; set JSUBSPACE_TEST_ARCHIVES to the folder above them")
    if not fake_archives.has_tensorflow():
        pytest.skip("preparing fashion_mnist takes TensorFlow, which is not installed")
    data_dir = tmp_path_factory.mktemp("real")
    done = fake_archives.run("fashion_mnist", data_dir=data_dir, manual_dir=folder)  # the original checksums hold
    assert done.returncode == 0, done.stderr
    return {split: examples.read(FASHION_MNIST, str(data_dir), split) for split in ("train", "test")}


def test_sizes_and_classes(real):
    assert real["train"].images.shape == (60_000, 28, 28, 1)
    assert real["test"].images.shape == (10_000, 28, 28, 1)
    assert np.bincount(real["train"].labels).tolist() == [6000] * 10
    assert np.bincount(real["test"].labels).tolist() == [1000] * 10


def test_statistics_are_those_of_the_table(real):
    pixels = real["train"].images / 255
    assert abs(pixels.mean() - FASHION_MNIST.mean[0]) < 5e-4
    assert abs(pixels.std() - FASHION_MNIST.std[0]) < 5e-4
