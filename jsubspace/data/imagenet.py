"""ImageNet: JPEGs read by Grain, decoded and cropped in worker processes, each host its share of every batch.

What a batch holds is a function of the seed and the step. Nothing else is kept: an item of the Grain data set is
a part of a step's batch, found by arithmetic, so that a run resumes at any step without reading what was before.
"""

import contextlib
import dataclasses
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from jsubspace.data import augment, jpeg, labels, prepare, workers
from jsubspace.data.sets import DataSet
from jsubspace.data.shards import Hosts
from jsubspace.errors import UsageError

Batch = dict[str, np.ndarray]

_MEND = "delete the folder and prepare the data set again."


@dataclasses.dataclass(frozen=True)
class Records:
    """One split on the disk: ``source[i]``, i < len, is a serialised ``tf.Example`` of image, label and file name."""

    source: Any
    where: str
    data_set: DataSet

    def __len__(self) -> int:
        return len(self.source)

    def read(self, i: int) -> tuple[str, bytes, int]:
        """What to call record i in a message, its encoded image and its label.

        TFDS would parse the record as well, but takes four times as long: 6 % of what decoding takes.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        name = f"example {i} of {self.where}"
        try:
            features = tf_example_pb2.Example.FromString(self.source[i]).features.feature
            name += f" ({features['file_name'].bytes_list.value[0].decode()})"
            encoded, label = features["image"].bytes_list.value[0], features["label"].int64_list.value[0]
        except Exception as error:
            raise UsageError(f"{name} cannot be read ({error}); {_MEND}") from error
        if not 0 <= label < self.data_set.num_classes:
            raise UsageError(f"{name} has the label {label}, not one of 0 to {self.data_set.num_classes - 1}; {_MEND}")
        return name, encoded, label

    def image(self, i: int, crop: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, int]:
        """``crop`` of the decoded image i, and its label."""
        name, encoded, label = self.read(i)
        try:
            return crop(jpeg.decode(encoded)), label
        except Exception as error:
            raise UsageError(f"{name} is not a readable image ({error}); {_MEND}") from error


@dataclasses.dataclass(frozen=True)
class TrainParts:
    """Endless training batches of one host.

    Attributes:
      records: of the training split.
      noisy_labels: ``[n]``, -1 where the label is not replaced; or None.
      batch_size: over all hosts.
      seed: of order, crops and flips.
      host_index, host_count: this host is one of so many.
      num_parts: number of parts of a host's share of a batch.
      multiple: see `Hosts`.
    """

    records: Records
    noisy_labels: np.ndarray | None
    batch_size: int
    seed: int
    host_index: int
    host_count: int
    num_parts: int
    multiple: int = 1

    def __len__(self) -> int:
        return 2**62  # Grain wants a length.

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.records) // self.batch_size)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.records.data_set.image_shape

    def batch(self, step: int) -> tuple[int, int, range]:
        """The epoch, the place in it where the step's batch begins, and this host's places in the batch."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        size = min(self.batch_size, len(self.records) - first)
        return epoch, first, Hosts(self.host_index, self.host_count, self.multiple).share(size)

    def size(self, item: int) -> int:
        step, part = divmod(item, self.num_parts)
        return len(_share(self.batch(step)[2], part, self.num_parts))

    def fill(self, item: int, images: np.ndarray, labels: np.ndarray) -> None:
        step, part = divmod(item, self.num_parts)
        epoch, first, places = self.batch(step)
        order = _order(self.seed, epoch, len(self.records))
        for i, place in enumerate(_share(places, part, self.num_parts)):
            position = first + place
            record = int(order[position])
            crop = functools.partial(self._augment, epoch=epoch, position=position)
            images[i], labels[i] = self.records.image(record, crop)
            if self.noisy_labels is not None and self.noisy_labels[record] >= 0:
                labels[i] = self.noisy_labels[record]

    def _augment(self, image: np.ndarray, epoch: int, position: int) -> np.ndarray:
        # Python's generator: to seed it takes a tenth of the time that numpy's takes, which is 3 % of a decode.
        rng = random.Random(self.seed << 80 | epoch << 40 | position)
        box, mirror = jpeg.random_box(rng, *image.shape[:2]), rng.random() < 0.5
        return jpeg.resized_crop(image, box, self.image_shape[0], mirror)


@dataclasses.dataclass(frozen=True)
class TestParts:
    """Every test example once, in the files' order, padded with black.

    Attributes as `TrainParts` has them, and ``cropped``: whether the images on the disk are the central crops already, as
    those of ImageNet-C are.
    """

    __test__ = False  # for pytest, which takes it for a test by its name

    records: Records
    batch_size: int
    host_index: int
    host_count: int
    num_parts: int
    cropped: bool = False

    def __len__(self) -> int:
        return -(-len(self.records) // self.batch_size) * self.num_parts

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.records.data_set.image_shape

    @property
    def places(self) -> range:
        """This host's places in every batch."""
        return _share(range(self.batch_size), self.host_index, self.host_count)

    def size(self, item: int) -> int:
        return len(_share(self.places, item % self.num_parts, self.num_parts))

    def fill(self, item: int, images: np.ndarray, labels: np.ndarray) -> None:
        step, part = divmod(item, self.num_parts)
        images[:], labels[:] = 0, 0
        side = self.image_shape[0]
        resize = side if self.cropped else side * 8 // 7  # 256 for 224
        crop = functools.partial(jpeg.central_crop, resize=resize, size=side)
        for i, place in enumerate(_share(self.places, part, self.num_parts)):
            record = step * self.batch_size + place
            if record < len(self.records):
                images[i], labels[i] = self.records.image(record, crop)


@dataclasses.dataclass(frozen=True)
class ImageNet:
    """A `Pipeline` over `TrainParts` and `TestParts`, which do the work in ``num_workers`` processes.

    Crops and flips are done with the decoding, where the image is still large; `augment` only normalises.
    """

    data_set: DataSet
    train: TrainParts
    test: TestParts
    num_workers: int

    @property
    def steps_per_epoch(self) -> int:
        return self.train.steps_per_epoch

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        made = workers.batches(self.train, start_step, self.num_workers, jpeg.use_one_thread)
        with contextlib.closing(made):
            for step, (images, targets) in enumerate(made, start_step):
                yield {"image": images, "label": targets, "index": np.array(self.train.batch(step)[2], np.int32)}

    def test_batches(self) -> Iterator[Batch]:
        return padded_batches(self.test, self.num_workers)

    def augment(self, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
        del key, index  # Cropped and mirrored already.
        return self.preprocess(images)

    def preprocess(self, images: jax.Array) -> jax.Array:
        return augment.normalize(images, self.data_set.mean, self.data_set.std)


def load(
    data_set: DataSet,
    data_dir: str,
    *,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    label_noise: float = 0.0,
    host_index: int | None = None,
    host_count: int | None = None,
    num_workers: int | None = None,
    num_samples: int = 1,
) -> ImageNet:
    """Opens a prepared data set of JPEGs. See `pipeline.make_pipeline`.

    Args:
      data_set, data_dir, batch_size, eval_batch_size, seed, label_noise: as there.
      host_index, host_count: which share of each batch to yield, host_index of host_count; None for jax's.
      num_workers: processes that decode; None for one a core; 0 for threads in this process.
      num_samples: see `pipeline.make_pipeline`.

    Raises:
      UsageError: if the data is not there or not whole, or the hosts do not divide a batch.
    """
    host_index = jax.process_index() if host_index is None else host_index
    host_count = jax.process_count() if host_count is None else host_count
    num_workers = workers.num_cores() if num_workers is None else num_workers
    for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
        if size % host_count:
            raise UsageError(f"{name} is {size}, which {host_count} hosts do not divide; make it a multiple.")
    builder = prepare.prepared(data_set, data_dir)
    train, test = (_open(builder, split, data_set) for split in ("train", data_set.test_split))
    noisy = None
    if label_noise:
        # Which labels are replaced, and by what, does not depend on the labels: none is read.
        noisy = labels.add_noise(np.full(len(train), -1, np.int32), label_noise, data_set.num_classes)
    largest = Hosts(host_index, host_count, num_samples).largest_share(batch_size, len(train))
    parts, eval_parts = (-(-size // workers.PART_SIZE) for size in (largest, eval_batch_size // host_count))
    logging.info("%s: %d processes decode by %s.", data_set.name, num_workers, jpeg.DECODER)
    return ImageNet(
        data_set,
        TrainParts(train, noisy, batch_size, seed, host_index, host_count, parts, num_samples),
        TestParts(test, eval_batch_size, host_index, host_count, eval_parts),
        num_workers,
    )


def padded_batches(test: TestParts, num_workers: int) -> Iterator[Batch]:
    """Every test example once: ``image``, ``label`` and ``mask``; the last batch is padded with black."""
    made = workers.batches(test, 0, num_workers, jpeg.use_one_thread)
    with contextlib.closing(made):
        for step, (images, targets) in enumerate(made):
            records = step * test.batch_size + np.array(test.places)
            yield {"image": images, "label": targets, "mask": records < len(test.records)}


def corrupted_batches(
    data_set: DataSet, data_dir: str, *, eval_batch_size: int, num_workers: int | None = None
) -> Iterator[Batch]:
    """Every example of a corrupted test set once, decoded as it is read; see `padded_batches`.

    Args:
      data_set: of `corruptions.corrupted`.
      data_dir, eval_batch_size, num_workers: as `load` takes them.

    Raises:
      UsageError: if the set is not prepared.
    """
    num_workers = workers.num_cores() if num_workers is None else num_workers
    records = _open(prepare.prepared(data_set, data_dir), data_set.test_split, data_set)
    hosts = jax.process_count()
    parts = -(-eval_batch_size // hosts // workers.PART_SIZE)
    test = TestParts(records, eval_batch_size, jax.process_index(), hosts, parts, cropped=True)
    return padded_batches(test, num_workers)


def _open(builder: Any, split: str, data_set: DataSet) -> Records:
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        raise UsageError(
            f"{builder.data_path} has no {split} split; delete the folder and prepare {data_set.name} again with all its "
            f"archives: {', '.join(data_set.archives)}."
        )
    source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    return Records(source, f"{split} in {builder.data_path}", data_set)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _share(places: range, part: int, num_parts: int) -> range:
    """``part`` of ``num_parts`` of consecutive places, as equal as can be."""
    n = len(places)
    return places[n * part // num_parts : n * (part + 1) // num_parts]
