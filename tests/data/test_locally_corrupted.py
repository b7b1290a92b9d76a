"""Corruptions computed here, of the data sets that have no published corrupted test set."""

import pathlib
import shutil

import fake_archives
import numpy as np
import pytest

from jsubspace.data import corruptions, examples, memory, prepare, sets
from jsubspace.data.locally_corrupted import corrupt
from jsubspace.errors import UsageError

pytest.importorskip("imagecorruptions", reason="the corruptions are computed by imagecorruptions-imaug")

GREY, COLOUR = fake_archives.images((28, 28, 1), 6, seed=1), fake_archives.images((32, 32, 3), 6, seed=2)


def by_content(images, labels):
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("corruption", corruptions.CORRUPTIONS)
@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
def test_computed_corruptions(images, corruption):
    state = np.random.get_state()[1].copy()
    weak, strong = (corrupt(images, corruption, severity) for severity in (1, 5))
    assert (np.random.get_state()[1] == state).all()  # numpy's global generator is left alone
    assert weak.shape == images.shape
    assert weak.dtype == np.uint8

    def change(corrupted):
        return np.abs(corrupted.astype(int) - images).mean()

    assert change(weak) > 0 or (corruption == "saturate" and images is GREY)  # grey has no saturation
    if corruption not in _NOT_MONOTONE:
        assert change(weak) < change(strong)
    np.testing.assert_array_equal(corrupt(images, corruption, 5), strong)  # the same every time
    np.testing.assert_array_equal(corrupt(images[:2], corruption, 5), strong[:2])  # and each image by itself
    if corruption in _RANDOM:
        assert (corrupt(images, corruption, 5, "another set") != strong).any()


_RANDOM = {
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur"),
    *("snow", "frost", "fog", "elastic_transform", "spatter"),
}
# ImageNet-C's severities of these do not grow in the distance of pixels: 32 x 32 is small for them.
_NOT_MONOTONE = {"elastic_transform", "glass_blur", "snow", "frost", "fog", "spatter", "saturate"}


def test_contrast_is_the_formula_of_imagenet_c():
    """Against the benchmark's definition: (x - mean) * c + mean, c = .05 at severity 5; grey and padded as documented."""
    for images in (GREY, COLOUR):
        side = 32 - images.shape[1]
        padded = np.pad(images, ((0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)), mode="edge") / 255
        mean = padded.mean(axis=(1, 2), keepdims=True)
        expected = 255 * np.clip((images / 255 - mean) * 0.05 + mean, 0, 1)
        assert np.abs(corrupt(images, "contrast", 5) - expected).max() <= 1  # rounding


def test_computed_set_is_prepared_on_demand_and_kept(fake_data, monkeypatch):
    from jsubspace.data import locally_corrupted

    data_set = sets.find("fashion_mnist")
    clean = examples.read(data_set, fake_data, "test")
    found = memory.load_corrupted(data_set, "brightness", 3, fake_data)
    expected = locally_corrupted.corrupt(clean.images, "brightness", 3, "fashion_mnist")
    assert by_content(found.images, found.labels) == by_content(expected, clean.labels)
    monkeypatch.setattr(locally_corrupted, "corrupt", None)  # to compute it again would fail
    again = memory.load_corrupted(data_set, "brightness", 3, fake_data)
    np.testing.assert_array_equal(found.images, again.images)


def test_computed_set_of_a_data_set_that_is_not_prepared(tmp_path):
    with pytest.raises(UsageError, match="cifar100 is not prepared in"):
        memory.load_corrupted(sets.find("cifar100"), "fog", 1, str(tmp_path))


def test_prepare_returns_the_common_folder(fake_data, tmp_path):
    shutil.copytree(pathlib.Path(fake_data) / "fashion_mnist", tmp_path / "fashion_mnist")
    folder = prepare.prepare("fashion_mnist_corrupted/contrast", str(tmp_path))
    assert folder == tmp_path / "fashion_mnist_corrupted"
    assert sorted(path.name for path in folder.iterdir() if path.name != ".config") == [
        f"contrast_{i}" for i in range(1, 6)
    ]
