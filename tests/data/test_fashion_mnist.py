"""The one real data set that the tests can have: Fashion-MNIST, from its archives, and by its official builder."""

import gzip
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
def archives():
    folder = ARCHIVES / "fashion_mnist"
    if not all((folder / name).is_file() for name in FASHION_MNIST.archives):
        pytest.skip(f"no Fashion-MNIST archives in {folder}; set JSUBSPACE_TEST_ARCHIVES to the folder above them")
    return folder


def read(archives, name):
    """Images or labels of an archive, without the header."""
    header = 16 if "images" in name else 8
    return np.frombuffer(gzip.decompress((archives / f"{name}-ubyte.gz").read_bytes()), np.uint8)[header:]


def test_statistics_are_those_of_the_table(archives):
    pixels = read(archives, "train-images-idx3").reshape(60_000, 28 * 28) / np.float32(255)
    assert abs(pixels.mean(dtype=np.float64) - FASHION_MNIST.mean[0]) < 5e-4
    assert abs(pixels.std(dtype=np.float64) - FASHION_MNIST.std[0]) < 5e-4
    assert np.bincount(read(archives, "train-labels-idx1")).tolist() == [6000] * 10


@pytest.mark.slow
def test_the_official_builder_yields_all_images(archives, tmp_path):
    """Its path with few images is in `test_data_sets`."""
    if not fake_archives.has_tensorflow():
        pytest.skip("preparing fashion_mnist takes TensorFlow, which is not installed")
    done = fake_archives.run("fashion_mnist", data_dir=tmp_path, manual_dir=archives)  # the original checksums hold
    assert done.returncode == 0, done.stderr
    for split, name, count in (("train", "train", 6000), ("test", "t10k", 1000)):
        found = examples.read(FASHION_MNIST, str(tmp_path), split)
        assert found.images.shape == (10 * count, 28, 28, 1)
        assert np.bincount(found.labels).tolist() == [count] * 10
        assert found.images.sum(dtype=np.int64) == read(archives, f"{name}-images-idx3").sum(dtype=np.int64)
