"""A digest of test examples, by which a comparison knows whether two runs were tested on the same examples."""

import hashlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_BYTES = 8
"""The length of the digest of one example."""


class Digest:
    """The SHA-256 of the targets of all examples in their order, from batches as they pass by on the host.

    It depends neither on the size of a batch nor on the number of hosts. Integers of all types with equal values have one
    digest, and so have floats that are equal in float32.

    Example:
      >>> whole, parts = Digest(), Digest()
      >>> whole.add((np.array([1, 2, 3]),), np.array([True, True, True]))
      >>> parts.add((np.array([1, 2], np.uint8),), np.array([True, True]))
      >>> parts.add((np.array([3, 0], np.uint8),), np.array([True, False]))
      >>> whole.hexdigest() == parts.hexdigest()
      True
    """

    def __init__(self) -> None:
        self._of_examples: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []

    def add(self, targets: tuple[Any, ...], mask: Any) -> None:
        """Takes this host's part of a batch.

        Args:
          targets: arrays ``[n, ...]``.
          mask: bool ``[n]``, False for padding.
        """
        arrays = [_canonical(array) for array in targets]
        inside = np.asarray(mask, bool)
        found = np.zeros((len(inside), _BYTES), np.uint8)
        for row in np.flatnonzero(inside):
            content = b"".join(array[row].tobytes() for array in arrays)
            found[row] = np.frombuffer(hashlib.blake2b(content, digest_size=_BYTES).digest(), np.uint8)
        self._of_examples.append(found)
        self._masks.append(inside)

    def hexdigest(self) -> str:
        """The digest in 64 hexadecimal digits. All hosts call it, and it is the same on all of them."""
        of_examples, masks = self._of_examples, self._masks
        if jax.process_count() > 1:  # The batches have equal sizes, and their parts lie in the order of the hosts.
            parts = multihost_utils.process_allgather((np.stack(of_examples), np.stack(masks)))
            of_examples, masks = (np.swapaxes(part, 0, 1) for part in parts)
        together = hashlib.sha256()
        for found, mask in zip(of_examples, masks, strict=True):
            together.update(found[mask].tobytes())
        return together.hexdigest()


def _canonical(array: Any) -> np.ndarray:
    """An array of integers as int64, of complex numbers as complex64, and of other numbers as float32."""
    found = np.asarray(array)
    kind: Any = np.int64 if found.dtype.kind in "biu" else np.complex64 if found.dtype.kind == "c" else np.float32
    with np.errstate(all="ignore"):  # What is too large for float32 is infinite on the devices, too.
        return found.astype(kind)
