"""How a pipeline reads examples and puts them into batches."""

import dataclasses

import numpy as np

Batch = dict[str, np.ndarray]
"""The arrays of a batch by their names: ``image``, ``label`` and ``index`` or ``mask`` (see `pipeline.Pipeline`)."""


@dataclasses.dataclass(frozen=True)
class Batching:
    """How a pipeline reads examples and puts them into batches.

    Attributes:
      batch_size: the number of examples in a training batch, over all devices.
      eval_batch_size: the number of examples in a test batch, over all devices.
      seed: determines the order of the training examples and what is done to them on the host.
      label_noise: the fraction of the training labels that is replaced (`labels.add_noise`).
      num_train: the number of training examples, the first ones, or 0 for all. Only for data held in memory.
      num_validation: the number of examples of the training split that are kept for validation (`validation.split`).
      pooling: the side in pixels of the squares that are averaged. Only for data held in memory.
      num_workers: the number of processes that decode JPEGs, None for one per core, or 0 for threads. Data held in
        memory needs no processes.
      num_samples: the number of parts into which a step cuts its batch. A host reads a multiple of this number.
    """

    batch_size: int
    eval_batch_size: int
    seed: int
    label_noise: float = 0.0
    num_train: int = 0
    pooling: int = 1
    num_workers: int | None = None
    num_samples: int = 1
    num_validation: int = 0
