"""Which examples of a batch a host reads."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of every batch that one host reads.

    Attributes:
      index: the number of this host, from 0.
      count: the number of hosts that share a batch.
      multiple: the size of a part is a multiple of this number, because the step cuts each part into this many pieces.
    """

    index: int = 0
    count: int = 1
    multiple: int = 1

    def places(self, size: int) -> range:
        """This host's places in a batch of ``size`` examples. The hosts have equal parts, in order.

        If the hosts do not divide a batch (the last one of an epoch), each host reads the whole batch. Then all hosts
        compute the same, and the mean of equal gradients is the gradient, as with the devices of one host.

        Example:
          >>> Shard(1, 2).places(8), Shard(1, 2).places(5)
          (range(4, 8), range(0, 5))
        """
        if size % (self.count * self.multiple):
            return range(size)
        part = size // self.count
        return range(self.index * part, (self.index + 1) * part)

    def largest(self, batch_size: int, num_examples: int) -> int:
        """The largest number of examples that this host reads of one batch of an epoch."""
        last = num_examples % batch_size
        return max(len(self.places(batch_size)), len(self.places(last)))


def of_this_process(multiple: int = 1) -> Shard:
    """The part of this process among the processes of `jax.distributed`."""
    return Shard(jax.process_index(), jax.process_count(), multiple)


WHOLE_BATCH = Shard()
"""The part of the only host, which reads every batch whole."""
