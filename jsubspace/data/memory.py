"""Small data sets, held in memory as uint8: batches are gathered on the host and augmented in the step."""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import numpy as np

from jsubspace.data import augment, corruptions, examples, labels
from jsubspace.data.examples import Examples
from jsubspace.data.sets import DataSet
from jsubspace.data.shards import ONE_HOST, Hosts, of_this_process

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A `Pipeline` over arrays. Its position is the step: to resume at one costs nothing."""

    data_set: DataSet
    train: Examples
    test: Examples
    batch_size: int
    eval_batch_size: int
    seed: int
    hosts: Hosts = ONE_HOST

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        first_epoch, first = divmod(start_step, self.steps_per_epoch)
        for epoch in itertools.count(first_epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train))
            for start in range(first * self.batch_size, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                places = np.array(self.hosts.share(len(rows)), np.int32)
                rows = rows[places]
                yield {
                    "image": self.train.images[rows],
                    "label": self.train.labels[rows],
                    "index": places,
                }
            first = 0

    def test_batches(self) -> Iterator[Batch]:
        return padded_batches(self.test, self.eval_batch_size, self.hosts)

    def augment(self, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
        images = augment.random_crop_and_flip(key, images, index, self.data_set.crop_padding, self.data_set.flip)
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
    num_train: int = 0,
    pooling: int = 1,
    num_samples: int = 1,
) -> InMemory:
    """Reads a prepared data set into memory. See `pipeline.make_pipeline`."""
    train, test = (examples.read(data_set, data_dir, split) for split in ("train", data_set.test_split))
    train, test = (train.first(num_train) if num_train else train).pooled(pooling), test.pooled(pooling)
    if label_noise:
        train = dataclasses.replace(train, labels=labels.add_noise(train.labels, label_noise, data_set.num_classes))
    return InMemory(
        data_set.pooled(pooling), train, test, batch_size, eval_batch_size, seed, of_this_process(num_samples)
    )


def padded_batches(examples: Examples, size: int, hosts: Hosts = ONE_HOST) -> Iterator[Batch]:
    """Every example once, in batches of ``size``; the last is padded with examples whose mask is False."""
    for start in range(0, len(examples), size):
        rows = start + np.array(hosts.share(size))
        inside = rows < len(examples)
        rows = np.where(inside, rows, 0)
        yield {"image": examples.images[rows], "label": examples.labels[rows], "mask": inside}


def load_corrupted(data_set: DataSet, corruption: str, severity: int, data_dir: str = "") -> Examples:
    """The corrupted test split of ``data_set``; BatchNorm statistics come from its clean training images all the same.

    One that has to be computed here is computed the first time it is asked for.

    Args:
      data_set: the clean one.
      corruption: one of `corruptions.CORRUPTIONS`.
      severity: 1 to 5.
      data_dir: the folder of prepared data; "" for the default one.

    Raises:
      UsageError: as `corruptions.corrupted` and `examples.read`.
    """
    corrupted = corruptions.corrupted(data_set, corruption, severity)
    # 95 decoded copies would fill the disk.
    return examples.read(corrupted, data_dir, corrupted.test_split, keep_decoded=False)
