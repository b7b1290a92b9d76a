"""Prepared data that is damaged or of a stranger: the documents agree with the files, or one message says what does not."""

import json
import shutil

import numpy as np
import pytest

from jsubspace.data import corruptions, examples, prepare, sets
from jsubspace.errors import UsageError

DIGITS = sets.find("digits")


@pytest.fixture
def folder(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "data")
    return tmp_path / "data" / "digits" / "1.0.0"


def read(folder, split="train"):
    return examples.read(DIGITS, str(folder.parent.parent), split)


def change(folder, **changes):
    """Changes fields of the document, or of its first split."""
    info = json.loads((folder / "dataset_info.json").read_text())
    for name, value in changes.items():
        (info["splits"][0] if name in info["splits"][0] else info)[name] = value
    (folder / "dataset_info.json").write_text(json.dumps(info))


DAMAGED = ["", "garbage", "[]", "[" * 100_000, '{"a":' * 100_000]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dataset_info.json", "{}"),
        *((f"{name}.json", text) for name in ("dataset_info", "features") for text in DAMAGED),
    ],
)
def test_a_document_that_is_damaged(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(UsageError, match=rf"{name} is damaged .*prepare the data set again"):
        read(folder)


WRONG = [
    ({"shardLengths": ["0"]}, r"damaged .*shardLengths\[0\] is '0'"),
    ({"shardLengths": ["-5"]}, "damaged"),
    ({"shardLengths": [100]}, "damaged"),
    ({"shardLengths": []}, "damaged"),
    ({"shardLengths": ["100"]}, "has 1437 records, and dataset_info.json says 100"),
    ({"shardLengths": ["100000000000"]}, "has 1437 records, and dataset_info.json says 100000000000"),
    ({"shardLengths": ["1437", "1437"]}, "array_record-00000-of-00002 is missing"),
    ({"shardLengths": ["9" * 5000]}, "damaged"),
    ({"filepathTemplate": "{SPLIT}.txt"}, "names files in another way"),
    ({"fileFormat": "tfrecord"}, "another file format than array_record: 'tfrecord'"),
    ({"fileFormat": 5}, "damaged"),
    ({"splits": []}, "damaged"),
    ({"splits": [{"name": "../x"}]}, "damaged"),
    ({"name": "\x1b[2J"}, "damaged"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_document_that_does_not_agree_with_the_files(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(UsageError, match=message):
        read(folder)


def test_files_that_are_missing(folder):
    records = next(folder.glob("*-train.*"))
    records.rename(folder / "elsewhere")
    with pytest.raises(UsageError, match=r"digits-train.array_record-00000-of-00001 is missing"):
        read(folder)
    records.write_bytes(b"no records")
    with pytest.raises(UsageError, match=r"00000-of-00001 (is damaged|has 0 records)"):
        read(folder)
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UsageError, match=r"is no prepared data set: it has no dataset_info.json"):
        read(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(UsageError, match="is no prepared data set"):
        prepare.is_prepared(DIGITS, str(folder.parent.parent))
    folder.rmdir()
    folder.write_text("")
    with pytest.raises(UsageError, match=r"1.0.0 is not a folder"):
        read(folder)


def lie(folder, split, **arrays):
    """Writes a decoded copy with the right fingerprint."""
    cache = folder / f"{split}.decoded.npz"
    with np.load(cache) as file:
        content = dict(file)
    np.savez(cache, **content | arrays)
    return cache.read_bytes()


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": np.full(360, 99, np.int32)},
        {"labels": np.full(360, -1, np.int32)},
        {"labels": np.zeros(3, np.int32)},
        {"labels": np.zeros(360, np.float32)},
        {"images": np.full((360, 8, 8, 1), np.nan, np.float32)},
        {"images": np.zeros((5, 9, 9, 3), np.uint8)},
        {"images": np.zeros((360, 8, 8, 1), object)},
        {"fingerprint": np.array(5)},
    ],
    ids=str,
)
def test_a_decoded_copy_is_believed_only_if_it_can_be_true(folder, arrays):
    first = read(folder, "test")
    wrong = lie(folder, "test", **arrays)
    again = read(folder, "test")
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert (folder / "test.decoded.npz").read_bytes() != wrong


def test_a_true_copy_is_believed(folder):
    read(folder, "test")
    lie(folder, "test", images=np.zeros((360, 8, 8, 1), np.uint8))
    assert read(folder, "test").images.max() == 0


@pytest.mark.parametrize("name", ["fog_²", "fog_٣", "fog_6", "fog_"])
def test_severities_are_digits(name):
    for call in (lambda: corruptions.parse(name), lambda: corruptions.find(f"cifar10_corrupted/{name}")):
        with pytest.raises(UsageError, match="corruption"):
            call()
