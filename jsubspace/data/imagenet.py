"""ImageNet: JPEGs that Grain reads and worker processes decode and crop. Each host reads its part of every batch.

The content of a batch is a function of the seed and the step, and no other state is kept. An item of the Grain data set
is a part of a step's batch, found by arithmetic, so a run resumes at any step without reading earlier batches.
"""

import contextlib
import dataclasses
import functools
import random
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging

from jsubspace.data import augment, jpeg, labels, prepare, records, validation, workers
from jsubspace.data.batching import Batch, Batching
from jsubspace.data.records import Records
from jsubspace.data.sets import DataSet
from jsubspace.data.shards import Shard, of_this_process
from jsubspace.errors import UsageError


@dataclasses.dataclass(frozen=True)
class TrainParts:
    """Endless training batches of one host.

    Attributes:
      records: the training split.
      noisy_labels: ``[n]``, -1 where the label is not replaced, or None.
      batch_size: the number of examples in a batch, over all hosts.
      seed: determines the order, crops and flips.
      shard: the part of each batch that this host reads.
      num_parts: the number of parts into which this host's part is cut for its worker processes.
    """

    records: Records
    noisy_labels: np.ndarray | None
    batch_size: int
    seed: int
    shard: Shard
    num_parts: int

    def __len__(self) -> int:
        return 2**62  # Grain wants a length.

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.records) // self.batch_size)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.records.data_set.image_shape

    def batch(self, step: int) -> tuple[int, int, range]:
        """The epoch, the place in the epoch where the step's batch begins, and this host's places in the batch."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        size = min(self.batch_size, len(self.records) - first)
        return epoch, first, self.shard.places(size)

    def size(self, item: int) -> int:
        step, part = divmod(item, self.num_parts)
        return len(_part(self.batch(step)[2], part, self.num_parts))

    def fill(self, item: int, images: np.ndarray, labels: np.ndarray) -> None:
        step, part = divmod(item, self.num_parts)
        epoch, first, places = self.batch(step)
        order = _order(self.seed, epoch, len(self.records))
        for i, place in enumerate(_part(places, part, self.num_parts)):
            position = first + place
            record = int(order[position])
            crop = functools.partial(self._augment, epoch=epoch, position=position)
            images[i], labels[i] = self.records.image(record, crop)
            if self.noisy_labels is not None and self.noisy_labels[record] >= 0:
                labels[i] = self.noisy_labels[record]

    def _augment(self, image: np.ndarray, epoch: int, position: int) -> np.ndarray:
        # Seeding numpy's generator takes 3 % of a decode, and seeding Python's takes a tenth of this time.
        rng = random.Random(self.seed << 80 | epoch << 40 | position)
        box, mirror = jpeg.random_box(rng, *image.shape[:2]), rng.random() < 0.5
        return jpeg.resized_crop(image, box, self.image_shape[0], mirror)


@dataclasses.dataclass(frozen=True)
class TestParts:
    """Every test example once, in the order of the files, padded with black images.

    Attributes:
      records: the test split.
      batch_size, num_parts: as in `TrainParts`.
      shard: the part of each batch that this host reads. The hosts must divide the batch.
      cropped: whether the images on the disk are the central crops already, as in ImageNet-C.
    """

    __test__ = False  # The name would make pytest collect the class as a test.

    records: Records
    batch_size: int
    shard: Shard
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
        return _part(range(self.batch_size), self.shard.index, self.shard.count)

    def size(self, item: int) -> int:
        return len(_part(self.places, item % self.num_parts, self.num_parts))

    def fill(self, item: int, images: np.ndarray, labels: np.ndarray) -> None:
        step, part = divmod(item, self.num_parts)
        images[:], labels[:] = 0, 0
        side = self.image_shape[0]
        resize = side if self.cropped else side * 8 // 7  # 256 for 224
        crop = functools.partial(jpeg.central_crop, resize=resize, size=side)
        for i, place in enumerate(_part(self.places, part, self.num_parts)):
            record = step * self.batch_size + place
            if record < len(self.records):
                images[i], labels[i] = self.records.image(record, crop)


@dataclasses.dataclass(frozen=True)
class ImageNet:
    """A `Pipeline` over `TrainParts` and `TestParts`, which do the work in ``num_workers`` processes.

    Validation images are records of the training split. They are cropped as test images. The processes crop and flip when they decode, while the image is still large. `augment` only normalises.
    """

    data_set: DataSet
    train: TrainParts
    test: TestParts
    num_workers: int
    validation: TestParts | None = None

    @property
    def resident(self) -> None:
        return None

    @property
    def num_validation(self) -> int:
        return len(self.validation.records) if self.validation is not None else 0

    @property
    def num_train(self) -> int:
        return len(self.train.records)

    @property
    def num_test(self) -> int:
        return len(self.test.records)

    @property
    def num_bytes(self) -> int:
        return 0  # Each image is read when it is needed.

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

    def validation_batches(self) -> Iterator[Batch]:
        if self.validation is not None:
            yield from padded_batches(self.validation, self.num_workers)

    def augment(self, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
        del key, index  # The images are cropped and mirrored already.
        return self.preprocess(images)

    def preprocess(self, images: jax.Array) -> jax.Array:
        return augment.normalize(images, self.data_set.mean, self.data_set.std)


def load(data_set: DataSet, data_dir: str, batching: Batching, shard: Shard | None = None) -> ImageNet:
    """Opens a prepared data set of JPEGs. See `pipeline.make_pipeline`.

    Args:
      data_set, data_dir, batching: as in `pipeline.make_pipeline`.
      shard: the part of each batch that this host reads, or None for the part of this process.

    Raises:
      UsageError: if the data does not exist or is not complete, or the hosts do not divide a batch.
    """
    shard = of_this_process() if shard is None else shard
    shard = dataclasses.replace(shard, multiple=batching.num_samples)
    num_workers = workers.num_cores() if batching.num_workers is None else batching.num_workers
    for name, size in (("batch_size", batching.batch_size), ("eval_batch_size", batching.eval_batch_size)):
        if size % shard.count:
            raise UsageError(
                f"{name} is {size}, but it must be a multiple of {shard.count}, the number of hosts: each host reads an "
                "equal part."
            )
    builder = prepare.prepared(data_set, data_dir)
    whole, test = (records.open_split(builder, split, data_set) for split in ("train", data_set.test_split))
    trained, kept = validation.split(len(whole), 0, batching.num_validation)
    train = dataclasses.replace(whole, rows=trained) if len(kept) else whole
    noisy = None
    if batching.label_noise:
        # Neither the choice of the replaced labels nor the new ones depend on the old labels, so no label is read.
        noisy = labels.add_noise(np.full(len(train), -1, np.int32), batching.label_noise, data_set.num_classes)
    largest = shard.largest(batching.batch_size, len(train))
    parts, eval_parts = (-(-n // workers.PART_SIZE) for n in (largest, batching.eval_batch_size // shard.count))
    kept_parts = TestParts(dataclasses.replace(whole, rows=kept), batching.eval_batch_size, shard, eval_parts)
    logging.info("%s: %d processes decode by %s.", data_set.name, num_workers, jpeg.DECODER)
    return ImageNet(
        data_set,
        TrainParts(train, noisy, batching.batch_size, batching.seed, shard, parts),
        TestParts(test, batching.eval_batch_size, shard, eval_parts),
        num_workers,
        kept_parts if len(kept) else None,
    )


def padded_batches(test: TestParts, num_workers: int) -> Iterator[Batch]:
    """Every test example once: ``image``, ``label`` and ``mask``. The last batch is padded with black images."""
    made = workers.batches(test, 0, num_workers, jpeg.use_one_thread)
    with contextlib.closing(made):
        for step, (images, targets) in enumerate(made):
            rows = step * test.batch_size + np.array(test.places)
            yield {"image": images, "label": targets, "mask": rows < len(test.records)}


def corrupted_batches(
    data_set: DataSet, data_dir: str, *, eval_batch_size: int, num_workers: int | None = None
) -> Iterator[Batch]:
    """Every example of a corrupted test set once, decoded when it is read. See `padded_batches`.

    Args:
      data_set: a result of `corruptions.corrupted`.
      data_dir: the folder of prepared data, or "" for the default folder.
      eval_batch_size, num_workers: as in `Batching`.

    Raises:
      UsageError: if the set is not prepared.
    """
    num_workers = workers.num_cores() if num_workers is None else num_workers
    opened = records.open_split(prepare.prepared(data_set, data_dir), data_set.test_split, data_set)
    shard = of_this_process()
    parts = -(-eval_batch_size // shard.count // workers.PART_SIZE)
    test = TestParts(opened, eval_batch_size, shard, parts, cropped=True)
    return padded_batches(test, num_workers)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _part(places: range, part: int, num_parts: int) -> range:
    """Part number ``part`` of ``num_parts`` parts of consecutive places. The sizes differ by one at most."""
    n = len(places)
    return places[n * part // num_parts : n * (part + 1) // num_parts]
