"""Small data sets, held in memory as uint8. Batches are gathered on the host and augmented in the step."""

import dataclasses
from collections.abc import Iterator

import jax

from jsubspace.data import augment, corruptions, epochs, examples, labels, validation
from jsubspace.data.batching import Batch, Batching
from jsubspace.data.examples import Examples
from jsubspace.data.resident import Resident
from jsubspace.data.sets import DataSet
from jsubspace.data.shards import WHOLE_BATCH, Shard, of_this_process


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A `Pipeline` over arrays. Its position is the step, so a run resumes at any step without reading earlier batches.

    Attributes:
      data_set: the facts about the data set.
      train, test: the examples, after label noise and pooling.
      batching: the batch sizes and the seed.
      shard: the part of each batch that this host reads.
      validation: the examples of the training split that are kept for validation, or None.
    """

    data_set: DataSet
    train: Examples
    test: Examples
    batching: Batching
    shard: Shard = WHOLE_BATCH
    validation: Examples | None = None

    @property
    def num_validation(self) -> int:
        return len(self.validation) if self.validation is not None else 0

    @property
    def num_train(self) -> int:
        return len(self.train)

    @property
    def num_test(self) -> int:
        return len(self.test)

    @property
    def num_bytes(self) -> int:
        splits = [split for split in (self.train, self.test, self.validation) if split is not None]
        return sum(split.images.nbytes + split.labels.nbytes for split in splits)

    @property
    def resident(self) -> Resident:
        return Resident((self.train.images, self.train.labels), self.batching.batch_size, self.batching.seed)

    @property
    def steps_per_epoch(self) -> int:
        return epochs.steps_per_epoch(len(self.train), self.batching.batch_size)

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        for images, targets, places in self.resident.batches(start_step, self.shard):
            yield {"image": images, "label": targets, "index": places}

    def test_batches(self) -> Iterator[Batch]:
        return padded_batches(self.test, self.batching.eval_batch_size, self.shard)

    def validation_batches(self) -> Iterator[Batch]:
        if self.validation is not None:
            yield from padded_batches(self.validation, self.batching.eval_batch_size, self.shard)

    def augment(self, key: jax.Array, images: jax.Array, index: jax.Array) -> jax.Array:
        images = augment.random_crop_and_flip(key, images, index, self.data_set.crop_padding, self.data_set.flip)
        return self.preprocess(images)

    def preprocess(self, images: jax.Array) -> jax.Array:
        return augment.normalize(images, self.data_set.mean, self.data_set.std)


def load(data_set: DataSet, data_dir: str, batching: Batching) -> InMemory:
    """Reads a prepared data set into memory. See `pipeline.make_pipeline`."""
    whole, test = (examples.read(data_set, data_dir, split) for split in ("train", data_set.test_split))
    trained, kept = validation.split(len(whole), batching.num_train, batching.num_validation)
    train = (whole.chosen(trained) if len(trained) < len(whole) else whole).pooled(batching.pooling)
    if batching.label_noise:
        noisy = labels.add_noise(train.labels, batching.label_noise, data_set.num_classes)
        train = dataclasses.replace(train, labels=noisy)
    return InMemory(
        data_set.pooled(batching.pooling),
        train,
        test.pooled(batching.pooling),
        batching,
        of_this_process(batching.num_samples),
        whole.chosen(kept).pooled(batching.pooling) if len(kept) else None,
    )


def padded_batches(examples: Examples, size: int, shard: Shard = WHOLE_BATCH) -> Iterator[Batch]:
    """Every example once, in batches of ``size``. The last batch is padded with examples whose mask is False."""
    for rows, inside in epochs.padded(len(examples), size, shard):
        yield {"image": examples.images[rows], "label": examples.labels[rows], "mask": inside}


def load_corrupted(data_set: DataSet, corruption: str, severity: int, data_dir: str = "") -> Examples:
    """The corrupted test split of ``data_set``. BatchNorm statistics still come from its clean training images.

    A set that has to be computed here is computed the first time it is asked for.

    Args:
      data_set: the clean data set.
      corruption: one of `corruptions.CORRUPTIONS`.
      severity: 1 to 5.
      data_dir: the folder of prepared data, or "" for the default folder.

    Raises:
      UsageError: as `corruptions.corrupted` and `examples.read`.
    """
    corrupted = corruptions.corrupted(data_set, corruption, severity)
    # 95 decoded copies would fill the disk.
    return examples.read(corrupted, data_dir, corrupted.test_split, keep_decoded=False)
