"""Which examples of a batch a host reads."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The hosts that share each batch, and which of them this is.

    Attributes:
      index, count: this host is one of so many.
      multiple: of what a host's part must be a multiple: the number of parts into which the step cuts it.
    """

    index: int = 0
    count: int = 1
    multiple: int = 1

    def share(self, size: int) -> range:
        """This host's places in a batch of ``size`` examples: equal parts, in order.

        A batch that does not divide, the last of an epoch, each host reads whole: they then compute the same, and the
        mean of equal gradients is the gradient, as with the devices of one host.

        Example:
          >>> Hosts(1, 2).share(8), Hosts(1, 2).share(5)
          (range(4, 8), range(0, 5))
        """
        if size % (self.count * self.multiple):
            return range(size)
        part = size // self.count
        return range(self.index * part, (self.index + 1) * part)

    def largest_share(self, batch_size: int, num_examples: int) -> int:
        """The most examples that one host reads of a batch."""
        last = num_examples % batch_size
        return max(len(self.share(batch_size)), len(self.share(last)))


def of_this_process(multiple: int = 1) -> Hosts:
    """The processes of `jax.distributed`."""
    return Hosts(jax.process_index(), jax.process_count(), multiple)


ONE_HOST = Hosts()
"""Which reads all."""
