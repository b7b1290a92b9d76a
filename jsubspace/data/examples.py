"""A split of a prepared data set as arrays.

Decoding takes 0.2 ms per image, about half of it in TFDS and half in Pillow. So the arrays are kept beside the prepared
files and read from there the next time. This takes less than 0.2 s for the 60,000 images of Fashion-MNIST.
"""

import contextlib
import dataclasses
import io
import pathlib
from typing import Any

import numpy as np

from jsubspace.data import prepare
from jsubspace.data.sets import DataSet
from jsubspace.errors import UsageError
from jsubspace.storage import array_files, files
from jsubspace.storage.array_files import Array

_CHUNK = 1024
_CACHE = ".decoded.npz"


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split: ``images`` uint8 ``[n, h, w, c]`` and ``labels`` int32 ``[n]``."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, rows: np.ndarray) -> "Examples":
        """The examples in these rows."""
        return Examples(self.images[rows], self.labels[rows])

    def pooled(self, side: int) -> "Examples":
        """The examples with squares of ``side`` x ``side`` pixels averaged and rounded: ``[n, h / side, w / side, c]``."""
        if side == 1:
            return self
        n, h, w, c = self.images.shape
        squares = self.images.reshape(n, h // side, side, w // side, side, c)
        return Examples(np.round(squares.mean(axis=(2, 4))).astype(np.uint8), self.labels)


def read(data_set: DataSet, data_dir: str, split: str, keep_decoded: bool = True) -> Examples:
    """All examples of a split, in the order of the files.

    Images of an RGB data set that are grey, or have an alpha or a black channel, are converted to RGB.

    Args:
      data_set: the data set to read.
      data_dir: the folder of prepared data, or "" for the default folder.
      split: TFDS's name of the split.
      keep_decoded: whether to write and read the decoded copy, which is as large as the arrays.

    Raises:
      UsageError: if the data set is not prepared or has no such split, a record is damaged, an image has another size, or
        a label is out of range.
    """
    if keep_decoded and (kept := _kept(data_set, data_dir, split)) is not None:
        return kept
    builder = prepare.prepared(data_set, data_dir)
    if split not in builder.info.splits:
        raise UsageError(
            f"{builder.data_path} has no split {split!r}, only {', '.join(sorted(builder.info.splits))}: "
            f"{data_set.name} was prepared from other archives than these: {', '.join(data_set.archives)}."
        )
    if not keep_decoded:
        return _decode_all(builder, split, data_set)
    fingerprint = _fingerprint([pathlib.Path(file) for file in builder.info.splits[split].filepaths])
    cache = pathlib.Path(builder.data_path) / f"{split}{_CACHE}"
    examples = _load(cache, fingerprint, data_set, builder.info.splits[split].num_examples)
    if examples is None:
        examples = _decode_all(builder, split, data_set)
        _save(cache, examples, fingerprint)
    return examples


def _kept(data_set: DataSet, data_dir: str, split: str) -> Examples | None:
    """The decoded copy, if it can be found without TFDS. To import TFDS takes more than half as long as to import jax."""
    found = prepare.only_version(data_set, data_dir)
    if found is None or split not in found[1]:
        return None
    folder, (files, num_examples) = found[0], found[1][split]
    return _load(folder / f"{split}{_CACHE}", _fingerprint(files), data_set, num_examples)


def _fingerprint(files: list[pathlib.Path]) -> str:
    """Names, sizes and times of files. Files that were prepared again, or damaged since, have others and are decoded again."""
    return str([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _load(cache: pathlib.Path, fingerprint: str, data_set: DataSet, length: int) -> Examples | None:
    """The decoded copy, or None if it does not exist, is damaged, or belongs to other files. It is then made again."""
    declared = {
        "images": Array("uint8", (length, *data_set.image_shape)),
        "labels": Array("int32", (length,)),
        "fingerprint": Array("U", ()),
    }
    try:
        found = array_files.read(cache, declared)  # The zip's checksums detect a damaged file.
    except (OSError, ValueError):
        return None
    labels = found["labels"]
    if str(found["fingerprint"]) != fingerprint or not ((labels >= 0) & (labels < data_set.num_classes)).all():
        return None
    return Examples(found["images"], labels)


def _save(cache: pathlib.Path, examples: Examples, fingerprint: str) -> None:
    """Writes the whole copy or nothing, also if another process writes it. Does nothing if the folder cannot be written."""
    with contextlib.suppress(OSError), files.new_file(cache) as file:
        np.savez(file, images=examples.images, labels=examples.labels, fingerprint=np.array(fingerprint))


def _decode_all(builder: Any, split: str, data_set: DataSet) -> Examples:
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.empty((len(source), *data_set.image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    with tqdm(total=len(source), desc=f"decoding {data_set.name} {split}", disable=None, leave=False) as progress:
        for start in range(0, len(source), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(source)))
            for i, example in zip(rows, _records(source, rows, split, builder), strict=True):
                where = f"{split} example {i} of {builder.data_path}"
                images[i] = _decode(example["image"], data_set, where)
                label = int(example["label"])
                if not 0 <= label < data_set.num_classes:
                    raise UsageError(
                        f"{where} has the label {label}, but {data_set.name} has the classes 0 to {data_set.num_classes - 1}: "
                        "the files are damaged. Delete the folder and prepare the data set again."
                    )
                labels[i] = label
            progress.update(len(rows))
    return Examples(images, labels)


def _records(source: Any, rows: range, split: str, builder: Any) -> Any:
    try:
        return source.__getitems__(rows)
    except Exception as error:  # The reader and the parser raise exceptions of many kinds.
        raise UsageError(
            f"{split} examples {rows.start} to {rows.stop - 1} of {builder.data_path} hold a record that cannot be read "
            f"({error}). Delete the folder and prepare the data set again."
        ) from error


def _decode(encoded: bytes, data_set: DataSet, where: str) -> np.ndarray:
    from PIL import Image

    height, width, channels = data_set.image_shape
    try:
        image = Image.open(io.BytesIO(encoded))
        array = np.asarray(image.convert("RGB") if channels == 3 else image)
    except Exception as error:
        raise UsageError(
            f"{where} is not a readable image ({error}). Delete the folder and prepare the data set again."
        ) from error
    array = array[..., None] if array.ndim == 2 else array
    if array.shape != (height, width, channels):
        raise UsageError(
            f"{where} has shape {list(array.shape)}, but images of {data_set.name} have {[height, width, channels]}."
        )
    return array
