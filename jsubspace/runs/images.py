"""The problems of the programs: the image data sets that the library knows, and its Flax networks."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jsubspace.data import corruptions, pipeline
from jsubspace.data.batching import Batching
from jsubspace.data.pipeline import Pipeline
from jsubspace.data.protocol import Arrays, Data
from jsubspace.data.shards import Shard
from jsubspace.evaluation.tasks import Classification
from jsubspace.models import adapters
from jsubspace.models.layers import Outputs
from jsubspace.runs import parts
from jsubspace.runs.problem import Batches, Problem


class ImageData(Data):
    """A pipeline as the data of a problem. Its batches are ``(images, labels, places in the batch)``, the images uint8.

    A pipeline knows which part of a batch its host reads.
    """

    def __init__(self, source: Pipeline, batch_size: int, eval_batch_size: int) -> None:
        self._pipeline = source
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.steps_per_epoch, self.num_bytes = source.steps_per_epoch, source.num_bytes
        self.num_train, self.num_test, self.num_validation = source.num_train, source.num_test, source.num_validation
        self.resident = source.resident

    def train_batches(
        self, start_step: int, shard: Shard, position: Any = None, positions: dict[int, Any] | None = None
    ) -> Iterator[Arrays]:
        """See `Data`."""
        del shard, position, positions
        return ((batch["image"], batch["label"], batch["index"]) for batch in self._pipeline.train_batches(start_step))

    def test_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """See `Data`."""
        del shard
        return _scored(self._pipeline.test_batches())

    def validation_batches(self, shard: Shard) -> Iterator[tuple[Arrays, np.ndarray]]:
        """See `Data`."""
        del shard
        return _scored(self._pipeline.validation_batches())

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """See `Data`. No image is read."""
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.ShapeDtypeStruct(self._pipeline.data_set.image_shape, jnp.uint8), number, number

    def augment(self, key: jax.Array, *batch: jax.Array) -> Arrays:
        """See `Data`."""
        images, labels, places = batch
        return self._pipeline.augment(key, images, places), labels

    def prepare(self, *batch: jax.Array) -> Arrays:
        """See `Data`."""
        images, *labels = batch[:2]
        return self._pipeline.preprocess(images), *labels


@dataclasses.dataclass(frozen=True, eq=False)
class ImageProblem(Problem):
    """A problem of the programs.

    Attributes:
      pipeline: the data set.
      model: the Flax module of the network.
      shifted_sets: the settings by which `shifted` reads corrupted test sets.
    """

    pipeline: Pipeline = dataclasses.field(kw_only=True)
    model: Any = dataclasses.field(kw_only=True)
    shifted_sets: ml_collections.ConfigDict = dataclasses.field(kw_only=True)

    unit: ClassVar[str] = "images"

    def facts(self) -> dict[str, Any]:
        """The normalisation of images: subtract ``mean`` from pixels in [0, 1], then divide by ``std``."""
        data_set = self.pipeline.data_set
        return {"mean": list(data_set.mean), "std": list(data_set.std)}

    def shifted(self) -> Iterator[tuple[str, Batches]]:
        """Every corrupted test set that was asked for, with a name like ``"snow_3"``."""
        settings = self.shifted_sets
        for corruption, severity in corruptions.parse(settings.evaluation.corruptions):
            batches = pipeline.corrupted_batches(
                settings.data.name,
                settings.data.dir,
                corruption,
                severity,
                settings.evaluation.batch_size,
                settings.data.pooling,
                parts.num_workers(settings),
            )
            yield f"{corruption}_{severity}", _scored(batches)


def prepared_problem(settings: ml_collections.ConfigDict) -> ImageProblem:
    """The problem that settings name, with its data read from the disk.

    Raises:
      UsageError: if the data is not prepared.
    """
    source = pipeline.make_pipeline(
        settings.data.name,
        settings.data.dir,
        Batching(
            batch_size=settings.data.batch_size,
            eval_batch_size=settings.evaluation.batch_size,
            seed=settings.seed,
            label_noise=settings.data.label_noise,
            num_train=settings.data.num_train,
            num_validation=settings.data.num_validation,
            pooling=settings.data.pooling,
            num_workers=parts.num_workers(settings),
            num_samples=settings.subspace.num_samples,
        ),
    )
    pipeline.check_corrupted(settings.data.name, settings.data.dir, settings.evaluation.corruptions)
    return problem_of(settings, source)


def problem_of(settings: ml_collections.ConfigDict, source: Pipeline) -> ImageProblem:
    """The problem that settings name, with data that exists already."""
    model = parts.make_model(settings, source.data_set.num_classes)
    images = jnp.zeros((1, *source.data_set.image_shape))
    network = adapters.from_linen(model, images, outputs=_logits_and_features, momentum=0.0)
    return ImageProblem(
        network=dataclasses.replace(network, compute_dtype=parts.compute_dtype(settings)),
        task=Classification(settings.evaluation.num_bins, settings.optimizer.label_smoothing),
        data=ImageData(source, settings.data.batch_size, settings.evaluation.batch_size),
        pipeline=source,
        model=model,
        shifted_sets=settings,
    )


def _logits_and_features(outputs: Outputs) -> tuple[jax.Array, jax.Array]:
    return outputs.logits, outputs.features


def _scored(batches: Any) -> Iterator[tuple[Arrays, np.ndarray]]:
    for batch in batches:
        yield (batch["image"], batch["label"]), batch["mask"]
