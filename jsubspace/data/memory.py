"""Small data sets, held in memory as uint8: batches are gathered on the host and augmented in the step."""

import dataclasses
import io
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jsubspace.data import augment, labels, prepare
from jsubspace.data.sets import DataSet
from jsubspace.errors import UsageError

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split: ``images`` uint8 ``[n, h, w, c]`` and ``labels`` int32 ``[n]``."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A `Pipeline` over arrays. Its position is the step: to resume at one costs nothing."""

    data_set: DataSet
    train: Examples
    test: Examples
    batch_size: int
    eval_batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        epoch, first = divmod(start_step, self.steps_per_epoch)
        for epoch in itertools.count(epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train))
            for start in range(first * self.batch_size, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                yield {
                    "image": self.train.images[rows],
                    "label": self.train.labels[rows],
                    "index": np.arange(len(rows), dtype=np.int32),
                }
            first = 0

    def test_batches(self) -> Iterator[Batch]:
        size = self.eval_batch_size
        for start in range(0, len(self.test), size):
            rows = np.arange(start, start + size)
            inside = rows < len(self.test)
            rows = np.where(inside, rows, 0)
            yield {"image": self.test.images[rows], "label": self.test.labels[rows], "mask": inside}

    def augment(self, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
        images = augment.random_crop_and_flip(key, images, index, self.data_set.crop_padding, self.data_set.flip)
        return self.preprocess(images)

    def preprocess(self, images: jax.Array) -> jax.Array:
        return augment.normalize(images, self.data_set.mean, self.data_set.std)


def load(
    data_set: DataSet, data_dir: str, *, batch_size: int, eval_batch_size: int, seed: int, label_noise: float = 0.0
) -> InMemory:
    """Reads a prepared data set into memory. See `pipeline.make_pipeline`."""
    builder = prepare.prepared(data_set, data_dir)
    train, test = (_read(builder, split, data_set) for split in ("train", data_set.test_split))
    if label_noise:
        train = dataclasses.replace(train, labels=labels.add_noise(train.labels, label_noise, data_set.num_classes))
    return InMemory(data_set, train, test, batch_size, eval_batch_size, seed)


def _read(builder: Any, split: str, data_set: DataSet) -> Examples:
    import tensorflow_datasets as tfds

    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.empty((len(source), *data_set.image_shape), np.uint8)
    targets = np.empty(len(source), np.int32)
    for i, example in enumerate(source.__getitems__(range(len(source)))):
        images[i] = _decode(example["image"], data_set, f"{split} example {i} of {builder.data_path}")
        targets[i] = example["label"]
        if not 0 <= targets[i] < data_set.num_classes:
            raise UsageError(
                f"{split} example {i} of {builder.data_path} has the label {targets[i]}, but {data_set.name} has the classes "
                f"0 to {data_set.num_classes - 1}: the files are damaged; delete the folder and prepare the data set again."
            )
    return Examples(images, targets)


def _decode(encoded: bytes, data_set: DataSet, where: str) -> np.ndarray:
    from PIL import Image

    try:
        image = np.asarray(Image.open(io.BytesIO(encoded)))
    except Exception as error:
        raise UsageError(
            f"{where} is not a readable image ({error}); delete the folder and prepare the data set again."
        ) from error
    image = image[..., None] if image.ndim == 2 else image
    if image.shape != data_set.image_shape:
        raise UsageError(
            f"{where} has shape {list(image.shape)}, but images of {data_set.name} have {list(data_set.image_shape)}."
        )
    return image
