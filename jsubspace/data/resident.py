"""Training examples that live on the devices. A step gets the numbers of rows, and gathers its batch itself."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.data import epochs
from jsubspace.data.shards import Shard

BLOCK_STEPS = 512
"""The devices get the rows of at most this number of steps at once."""


class Block(NamedTuple):
    """The rows of consecutive steps of one epoch. Their batches have one size.

    Attributes:
      first: the number of steps before the block.
      num_steps: the number of steps in the block.
      rows: int32 ``[b, 2]`` for every step: this host's rows of the arrays, and their places in the batch. Blocks of full
        batches have one length, because the compiler knows lengths. A shorter one is filled with rows that no step reads.
    """

    first: int
    num_steps: int
    rows: list[np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Resident:
    """tuple[Any, ...] with a row per training example. Which rows are in which batch is a function of the seed and the step.

    Attributes:
      arrays: arrays ``[n, ...]``.
      batch_size: the number of examples in a training batch, over all devices and hosts.
      seed: determines the order of the examples.
      with_places: whether the places of the examples in the batch are the last array of a batch.

    Example:
      >>> data = Resident((np.arange(5, dtype=np.int32),), batch_size=2, seed=0, with_places=False)
      >>> [len(x) for (x,) in itertools.islice(data.batches(0, Shard()), 3)]
      [2, 2, 1]
      >>> [(block.first, block.num_steps) for block in itertools.islice(data.blocks(0, Shard()), 3)]
      [(0, 2), (2, 1), (3, 2)]
    """

    arrays: tuple[Any, ...]
    batch_size: int
    seed: int
    with_places: bool = True

    @property
    def num_examples(self) -> int:
        """The number n of training examples."""
        return len(self.arrays[0])

    @property
    def num_bytes(self) -> int:
        """The memory that the arrays take on a device."""
        return sum(array.size * jax.dtypes.canonicalize_dtype(array.dtype).itemsize for array in self.arrays)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches of an epoch. The last one may be smaller."""
        return epochs.steps_per_epoch(self.num_examples, self.batch_size)

    @property
    def block_steps(self) -> int:
        """The number of steps in a block of full batches."""
        return max(1, min(BLOCK_STEPS, self.num_examples // self.batch_size))

    def batches(self, start_step: int, shard: Shard) -> Iterator[tuple[Any, ...]]:
        """Endless training batches from step ``start_step`` on, which the host gathers."""
        for rows, places in self._rows(start_step, shard):
            batch = tuple(array[rows] for array in self.arrays)
            yield (*batch, places) if self.with_places else batch

    def blocks(self, start_step: int, shard: Shard) -> Iterator[Block]:
        """Endless blocks. The first one has the step after ``start_step`` steps."""
        full, length, whole = self.num_examples // self.batch_size, self.block_steps, self.steps_per_epoch
        bounds = list(itertools.pairwise(sorted({*range(0, full, length), full, whole})))
        epoch, place = divmod(start_step, whole)
        for first in itertools.count(epoch * whole, whole):
            for begin, end in bounds:
                if place < end:
                    pairs = itertools.islice(self._rows(first + begin, shard), end - begin)
                    rows = [np.stack(pair, axis=1).astype(np.int32) for pair in pairs]
                    rows += rows[-1:] * (length - len(rows) if begin < full else 0)
                    yield Block(first + begin, end - begin, rows)
            place = 0

    def gather(self, examples: tuple[Any, ...], rows: jax.Array, step: jax.Array) -> tuple[Any, ...]:
        """The batch that `batches` yields for a step, gathered inside of the step.

        Args:
          examples: the arrays, whole on this device.
          rows: int32 ``[s, b, 2]``, this device's part of the block that has the step.
          step: the number of steps that were taken before.
        """
        # A block of full batches begins at a multiple of its length. The smaller last batch is a block of its own.
        place = jnp.minimum(step % self.steps_per_epoch % self.block_steps, len(rows) - 1)
        chosen = jax.lax.dynamic_index_in_dim(rows, place, keepdims=False)
        batch = tuple(array.at[chosen[:, 0]].get(mode="promise_in_bounds") for array in examples)
        # XLA must not compute the gathering together with what follows: the step then has the same bits as a step that
        # gets its batch from the host.
        return jax.lax.optimization_barrier((*batch, chosen[:, 1]) if self.with_places else batch)

    def _rows(self, start_step: int, shard: Shard) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = epochs.shuffled(self.seed, self.num_examples)
        return epochs.endless(order, self.num_examples, self.batch_size, shard, start_step)
