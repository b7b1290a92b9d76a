"""ImageNet: JPEGs read by Grain, decoded and cropped in worker processes, each host its share of every batch.

What a batch holds is a function of the seed and the step. Nothing else is kept: an item of the Grain data set is
a part of a step's batch, found by arithmetic, so that a run resumes at any step without reading what was before.
"""

import dataclasses
import functools
import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from absl import flags, logging

from jsubspace.data import augment, jpeg, labels, prepare
from jsubspace.data.sets import DataSet
from jsubspace.errors import UsageError

Batch = dict[str, np.ndarray]

PART_SIZE = 32
"""Images a worker makes at a time, at most: 4.8 MB of 224 x 224. Small, so that read-ahead and start are."""


@dataclasses.dataclass(frozen=True)
class Records:
    """One split on the disk: ``source[i]`` has ``image`` (bytes), ``label`` and ``file_name``; i < len."""

    source: Any
    where: str
    data_set: DataSet

    def __len__(self) -> int:
        return len(self.source)

    def read(self, i: int, crop: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, int]:
        """``crop`` of the decoded image i, and its label."""
        name = f"example {i} of {self.where}"
        mend = "delete the folder and prepare the data set again."
        try:
            record = self.source[i]
            name += f" ({record['file_name'].decode()})"
        except Exception as error:
            raise UsageError(f"{name} cannot be read ({error}); {mend}") from error
        label = int(record["label"])
        if not 0 <= label < self.data_set.num_classes:
            raise UsageError(f"{name} has the label {label}, not one of 0 to {self.data_set.num_classes - 1}; {mend}")
        try:
            return crop(jpeg.decode(record["image"])), label
        except Exception as error:
            raise UsageError(f"{name} is not a readable image ({error}); {mend}") from error


class Parts(Protocol):
    """Batches cut into parts, item ``step * num_parts + part``: what Grain reads, in any process."""

    num_parts: int

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> Batch: ...


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
    """

    records: Records
    noisy_labels: np.ndarray | None
    batch_size: int
    seed: int
    host_index: int
    host_count: int
    num_parts: int

    def __len__(self) -> int:
        return 2**62  # Grain wants a length.

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.records) // self.batch_size)

    def __getitem__(self, item: int) -> Batch:
        step, part = divmod(item, self.num_parts)
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        size = min(self.batch_size, len(self.records) - first)
        places = _share(size, self.host_index * self.num_parts + part, self.host_count * self.num_parts)
        order = _order(self.seed, epoch, len(self.records))
        side = self.records.data_set.image_shape[0]
        images = np.empty((len(places), side, side, 3), np.uint8)
        targets = np.empty(len(places), np.int32)
        for i, place in enumerate(places):
            record, position = int(order[first + place]), first + place
            images[i], targets[i] = self.records.read(
                record, functools.partial(self._augment, epoch=epoch, position=position, size=side)
            )
            if self.noisy_labels is not None and self.noisy_labels[record] >= 0:
                targets[i] = self.noisy_labels[record]
        return {"image": images, "label": targets, "index": np.arange(places.start, places.stop, dtype=np.int32)}

    def _augment(self, image: np.ndarray, epoch: int, position: int, size: int) -> np.ndarray:
        # Python's generator: to seed it takes a tenth of the time that numpy's takes, which is 3 % of a decode.
        rng = random.Random(self.seed << 80 | epoch << 40 | position)
        image = jpeg.resized_crop(image, jpeg.random_box(rng, *image.shape[:2]), size)
        return image[:, ::-1] if rng.random() < 0.5 else image


@dataclasses.dataclass(frozen=True)
class TestParts:
    """Every test example once, in the files' order, padded with black. Attributes as `TrainParts` has them."""

    __test__ = False  # for pytest, which takes it for a test by its name

    records: Records
    batch_size: int
    host_index: int
    host_count: int
    num_parts: int

    def __len__(self) -> int:
        return -(-len(self.records) // self.batch_size) * self.num_parts

    def __getitem__(self, item: int) -> Batch:
        step, part = divmod(item, self.num_parts)
        places = _share(self.batch_size, self.host_index * self.num_parts + part, self.host_count * self.num_parts)
        side = self.records.data_set.image_shape[0]
        images = np.zeros((len(places), side, side, 3), np.uint8)
        targets = np.zeros(len(places), np.int32)
        mask = np.arange(places.start, places.stop) + step * self.batch_size < len(self.records)
        for i in np.flatnonzero(mask):
            images[i], targets[i] = self.records.read(
                step * self.batch_size + places[i],
                # 256 for 224, as everybody does.
                functools.partial(jpeg.central_crop, resize=side * 8 // 7, size=side),
            )
        return {"image": images, "label": targets, "mask": mask}


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
        return _batches(self.train, start_step, self.num_workers)

    def test_batches(self) -> Iterator[Batch]:
        return _batches(self.test, 0, self.num_workers)

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
) -> ImageNet:
    """Opens a prepared data set of JPEGs. See `pipeline.make_pipeline`.

    Args:
      data_set, data_dir, batch_size, eval_batch_size, seed, label_noise: as there.
      host_index, host_count: which share of each batch to yield, host_index of host_count; None for jax's.
      num_workers: processes that decode; None for one a core; 0 for threads in this process.

    Raises:
      UsageError: if the data is not there or not whole, or the hosts do not divide a batch.
    """
    host_index = jax.process_index() if host_index is None else host_index
    host_count = jax.process_count() if host_count is None else host_count
    num_workers = _num_cores() if num_workers is None else num_workers
    for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
        if size % host_count:
            raise UsageError(f"{name} is {size}, which {host_count} hosts do not divide; make it a multiple.")
    builder = prepare.prepared(data_set, data_dir)
    train, test = (_open(builder, split, data_set) for split in ("train", data_set.test_split))
    noisy = None
    if label_noise:
        # Which labels are replaced, and by what, does not depend on the labels: none is read.
        noisy = labels.add_noise(np.full(len(train), -1, np.int32), label_noise, data_set.num_classes)
    parts, eval_parts = (-(-size // host_count // PART_SIZE) for size in (batch_size, eval_batch_size))
    logging.info("%s: %d processes decode by %s.", data_set.name, num_workers, jpeg.DECODER)
    return ImageNet(
        data_set,
        TrainParts(train, noisy, batch_size, seed, host_index, host_count, parts),
        TestParts(test, eval_batch_size, host_index, host_count, eval_parts),
        num_workers,
    )


def _open(builder: Any, split: str, data_set: DataSet) -> Records:
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        raise UsageError(
            f"{builder.data_path} has no {split} split; delete the folder and prepare {data_set.name} again with all its "
            f"archives: {', '.join(data_set.archives)}."
        )
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return Records(source, f"{split} in {builder.data_path}", data_set)


def _batches(parts: Parts, start_step: int, num_workers: int) -> Iterator[Batch]:
    """The batches of ``parts`` from step ``start_step`` on, with two or three of them made ahead."""
    import grain

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, and notebooks parse none.
    ahead = -(-parts.num_parts // max(num_workers, 1))  # Grain keeps two to three times as many.
    dataset = grain.MapDataset.source(parts)[start_step * parts.num_parts :]
    if num_workers:
        # At once, not later in a thread, where the end of the program would overtake it.
        grain.multiprocessing.SharedMemoryArray.enable_async_del(max_outstanding_requests=1)
        inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=ahead)
        iterator = iter(dataset.to_iter_dataset(inline).mp_prefetch(options, worker_init_fn=_start_worker))
    else:
        threads = grain.ReadOptions(num_threads=_num_cores(), prefetch_buffer_size=max(2 * ahead, _num_cores()))
        iterator = iter(dataset.to_iter_dataset(threads))
    try:
        while True:
            pieces = list(itertools.islice(iterator, parts.num_parts))
            if not pieces:
                return
            batch = {key: _join([piece[key] for piece in pieces]) for key in pieces[0]}
            del pieces  # and with them the shared memory that they lie in
            yield batch
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise UsageError(
            f"a process that decodes images ended: {error} Exit code -9 usually means that memory ran out, -7 that /dev/shm did; "
            f"use fewer processes than {num_workers} (0: threads)."
        ) from error
    finally:
        iterator.close()


def _join(pieces: list[np.ndarray]) -> np.ndarray:
    out = np.empty((sum(map(len, pieces)), *pieces[0].shape[1:]), pieces[0].dtype)
    return np.concatenate(pieces, out=out)


def _start_worker(index: int, count: int) -> None:
    del index, count
    jpeg.use_one_thread()


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _share(n: int, part: int, num_parts: int) -> range:
    """Where ``part`` of ``num_parts`` lies in n places."""
    return range(n * part // num_parts, n * (part + 1) // num_parts)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
