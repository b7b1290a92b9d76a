"""Which examples are in which batch: a function of the seed and the step, and of the part of a batch that a host reads."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from jsubspace.data.shards import Shard


def shuffled(seed: int, num_examples: int) -> Callable[[int], np.ndarray]:
    """``epoch -> order``: the order of the examples in an epoch, a function of the seed and the epoch."""
    return lambda epoch: np.random.default_rng([seed, epoch]).permutation(num_examples)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """The number of batches that hold every example once. The last batch may be smaller."""
    return -(-num_examples // batch_size)


def endless(
    order: Callable[[int], np.ndarray], num_examples: int, batch_size: int, shard: Shard, start_step: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of one host in every training batch from ``start_step`` on, and their places in the batch.

    Every epoch has all examples once, in an order of its own. The last batch of an epoch may be smaller.

    Args:
      order: ``epoch -> rows [num_examples]``.
      num_examples: the number of training examples.
      batch_size: examples in a batch, over all hosts.
      shard: the part of each batch that this host reads.
      start_step: the first step.

    Yields:
      Rows and places int32 ``[b]``.
    """
    first_epoch, first = divmod(start_step, steps_per_epoch(num_examples, batch_size))
    for epoch in itertools.count(first_epoch):
        rows_of_epoch = order(epoch)
        for start in range(first * batch_size, num_examples, batch_size):
            rows = rows_of_epoch[start : start + batch_size]
            places = np.array(shard.places(len(rows)), np.int32)
            yield rows[places], places
        first = 0


def padded(num_examples: int, size: int, shard: Shard) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of one host in batches of ``size`` that hold every example once, and a mask that is False for padding."""
    for start in range(0, num_examples, size):
        rows = start + np.array(shard.places(size))
        inside = rows < num_examples
        yield np.where(inside, rows, 0), inside
