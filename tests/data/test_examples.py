"""Prepared files become arrays: converted, checked, never skipped; and the decoded copy is never trusted blindly."""

import dataclasses
import io
import pathlib
import shutil

import fake_archives
import numpy as np
import pytest
from PIL import Image

from jsubspace.data import examples, prepare, sets
from jsubspace.errors import UsageError
from jsubspace.storage import files


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    prepare.prepare("digits", str(folder))
    return folder


def damaged(digits, tmp_path, where):
    """A copy of the digits with a stretch of the training file overwritten."""
    shutil.copytree(digits, tmp_path / "data", ignore=shutil.ignore_patterns("*.npz"))
    file = next((tmp_path / "data").rglob("*train.array_record*"))
    content = bytearray(file.read_bytes())
    start = int(len(content) * where)
    content[start : start + 64] = bytes(64)
    file.write_bytes(content)
    return str(tmp_path / "data")


def test_corrupt_record(digits, tmp_path):
    data_dir = damaged(digits, tmp_path, where=0.02)
    with pytest.raises(
        UsageError, match=r"train examples \d+ to \d+ of .* cannot be read .* prepare the data set again"
    ):
        examples.read(sets.find("digits"), data_dir, "train")


def test_decoded_copy_is_the_same_and_used(digits, monkeypatch):
    data_set = sets.find("digits")
    first = examples.read(data_set, str(digits), "train")
    monkeypatch.setattr(examples, "_decode", None)  # a second decoding would fail
    second = examples.read(data_set, str(digits), "train")
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (second.images.dtype, second.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("damage", ["truncated", "one bit", "nonsense", "of other files"])
def test_damaged_decoded_copy_is_made_again(digits, tmp_path, damage):
    shutil.copytree(digits, tmp_path / "data")
    data_set, data_dir = sets.find("digits"), str(tmp_path / "data")
    first = examples.read(data_set, data_dir, "test")
    cache = next((tmp_path / "data").rglob("test.decoded.npz"))
    content = bytearray(cache.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "one bit":
        content[len(content) // 2] ^= 1
    elif damage == "nonsense":
        content = bytearray(b"nonsense")
    else:
        wrong = dataclasses.replace(first, labels=first.labels + 1)
        examples._save(cache, wrong, "files of another day")
        content = bytearray(cache.read_bytes())
    cache.write_bytes(content)
    again = examples.read(data_set, data_dir, "test")
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert cache.read_bytes() != content  # and a whole one is there again


def test_folder_that_takes_no_decoded_copy_is_read_all_the_same(digits, tmp_path, monkeypatch):
    shutil.copytree(digits, tmp_path / "data", ignore=shutil.ignore_patterns("*.npz"))

    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(files, "new_file", refuse)
    assert len(examples.read(sets.find("digits"), str(tmp_path / "data"), "test")) == 360
    monkeypatch.undo()
    monkeypatch.setattr(examples.np, "savez", refuse)
    assert len(examples.read(sets.find("digits"), str(tmp_path / "data"), "test")) == 360
    assert not [path for path in pathlib.Path(tmp_path).rglob("*") if "decoded" in path.name]


def test_missing_split_is_an_error(digits):
    with pytest.raises(UsageError, match=r"no split 'nonsense', only test, train"):
        examples.read(sets.find("digits"), str(digits), "nonsense")


def test_label_out_of_range_is_an_error(digits, tmp_path):
    shutil.copytree(digits, tmp_path, ignore=shutil.ignore_patterns("*.npz"), dirs_exist_ok=True)
    fewer = dataclasses.replace(sets.find("digits"), num_classes=9)
    with pytest.raises(UsageError, match=r"test example \d+ of .* has the label 9, but digits has the classes 0 to 8"):
        examples.read(fewer, str(tmp_path), "test")


def test_image_of_another_size_is_an_error(digits, tmp_path):
    shutil.copytree(digits, tmp_path, ignore=shutil.ignore_patterns("*.npz"), dirs_exist_ok=True)
    larger = dataclasses.replace(sets.find("digits"), image_shape=(9, 8, 1))
    with pytest.raises(UsageError, match=r"has shape \[8, 8, 1\], but images of digits have \[9, 8, 1\]"):
        examples.read(larger, str(tmp_path), "test")


COLOURED = fake_archives.images((64, 64, 3), 1)[0]


@pytest.mark.parametrize(
    "file",
    [
        fake_archives.jpeg(COLOURED, "L"),
        fake_archives.jpeg(COLOURED, "CMYK"),
        fake_archives.png(COLOURED, "L"),
        fake_archives.png(COLOURED, "RGBA"),
        fake_archives.png(COLOURED, "P"),
    ],
    ids=["grey jpeg", "cmyk jpeg", "grey png", "rgba png", "palette png"],
)
def test_other_channels_become_rgb(file):
    found = examples._decode(file, sets.find("tiny_imagenet"), "here")
    image = Image.open(io.BytesIO(file))
    assert found.shape == (64, 64, 3)
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
    expected = np.repeat(np.asarray(Image.fromarray(COLOURED).convert("L"))[..., None], 3, axis=-1)
    if image.mode != "L":
        expected = COLOURED
    assert np.abs(found.astype(int) - expected).mean() < (20 if image.mode == "P" else 2)


def test_a_coloured_image_in_a_grey_data_set_is_an_error():
    with pytest.raises(UsageError, match=r"here has shape \[8, 8, 3\], but images of digits have \[8, 8, 1\]"):
        examples._decode(fake_archives.png(COLOURED[:8, :8], "RGB"), sets.find("digits"), "here")


def test_bytes_that_are_no_image_are_an_error():
    with pytest.raises(UsageError, match="here is not a readable image"):
        examples._decode(b"nonsense", sets.find("digits"), "here")
    whole = fake_archives.jpeg(COLOURED)
    with pytest.raises(UsageError, match="here is not a readable image"):
        examples._decode(whole[: len(whole) // 2], sets.find("tiny_imagenet"), "here")
