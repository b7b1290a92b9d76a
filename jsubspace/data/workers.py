"""Batches that worker processes make in advance, part by part. Grain runs the processes.

Images come back in one piece of shared memory that is reused. Sending the images, or new shared memory for each part as
Grain does by default, would take a tenth or more of the time of decoding.
"""

import contextlib
import dataclasses
import itertools
import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Protocol

import numpy as np
from absl import flags

from jsubspace.errors import UsageError
from jsubspace.preemption import SIGNALS

Arrays = tuple[np.ndarray, np.ndarray]
"""Images uint8 ``[k, h, w, c]`` and labels int32 ``[k]``."""

PART_SIZE = 32
"""The largest number of images that a worker makes at a time.

The number is small, so that a start takes little time and reading ahead takes little memory.
"""


class Parts(Protocol):
    """Batches that are each cut into ``num_parts`` parts. Item ``step * num_parts + part`` is a part.

    The object is sent to other processes. The content of an item is a function of the item's number alone.
    """

    @property
    def num_parts(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def __len__(self) -> int: ...

    def size(self, item: int) -> int:
        """The number of images in a part, at most `PART_SIZE`."""

    def fill(self, item: int, images: np.ndarray, labels: np.ndarray) -> None:
        """Writes the images ``[k, h, w, c]`` and labels ``[k]`` of a part, where k is its size."""


def num_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(
    parts: Parts, start_step: int, num_workers: int, on_start: Callable[[], None] | None = None
) -> Generator[Arrays, None, None]:
    """The images and labels of each step from ``start_step`` on. Two batches are made in advance.

    Args:
      parts: makes the parts of the batches.
      start_step: the first step. Earlier steps take no time.
      num_workers: the number of processes, or 0 for threads in this process.
      on_start: called in each process when it starts.

    Raises:
      UsageError: if a process ends early, or there is not enough memory for its images. Exceptions of ``parts.fill`` are
        raised as they are.
    """
    import grain

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads its own flags, and a notebook does not parse flags.
    first = start_step * parts.num_parts
    ahead = 2 * parts.num_parts + max(num_workers, 1)
    if num_workers:
        ring = _Ring.create(ahead, parts.image_shape)
        source = grain.MapDataset.source(_InRing(parts, first, ring))[first:]
        inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        # The ring limits the number of parts made in advance. Grain's own buffers do not.
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=ahead)
        start = _Start(on_start)
        iterator = iter(source.to_iter_dataset(inline).mp_prefetch(options, worker_init_fn=start))
    else:
        ring = None
        threads = grain.ReadOptions(num_threads=num_cores(), prefetch_buffer_size=max(ahead, num_cores()))
        iterator = iter(grain.MapDataset.source(_InMemory(parts))[first:].to_iter_dataset(threads))
    try:
        for step in itertools.count(start_step):
            items = range(step * parts.num_parts, (step + 1) * parts.num_parts)
            if items.start >= len(parts):
                return
            ends = list(itertools.accumulate(map(parts.size, items), initial=0))
            images = np.empty((ends[-1], *parts.image_shape), np.uint8)
            labels = np.empty(ends[-1], np.int32)
            for item, begin, end in zip(items, ends[:-1], ends[1:], strict=True):
                with _born_deaf() if item == first else contextlib.nullcontext():  # Grain starts its processes now.
                    part = next(iterator)
                if ring is not None:
                    part = ring.slot(item - first)
                images[begin:end], labels[begin:end] = (array[: end - begin] for array in part)
                del part
                if ring is not None:
                    ring.free(item - first)
            yield images, labels
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise UsageError(
            f"a process that decodes images ended: {error} Exit code -9 usually means that memory ran out, -7 that /dev/shm "
            f"was full. Use fewer processes than {num_workers} (0: threads)."
        ) from error
    finally:
        if ring is not None:
            ring.free(2**62)  # No worker waits any longer.
        iterator.close()
        if ring is not None:
            ring.close()


@contextlib.contextmanager
def _born_deaf() -> Iterator[None]:
    """Processes that start inside of this context get no signal before `_Start` ignores them.

    They import for a second, and Ctrl-C would end them with a traceback. A process inherits the signals that its parent
    blocks. The parent itself loses none: they reach another thread of it, or wait.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Ring:
    """Slots for parts in shared memory. Item n, counted from the first item, lies in slot n modulo the number of slots.

    The memory begins with the number of items that have been read. A worker may write an item as soon as the earlier item
    in the same slot has been read.
    """

    def __init__(self, name: str, num_slots: int, image_shape: tuple[int, int, int]):
        self.name, self.num_slots, self.image_shape = name, num_slots, image_shape
        self._memory: SharedMemory | None = None  # Each process opens the memory itself.

    @classmethod
    def create(cls, num_slots: int, image_shape: tuple[int, int, int]) -> "_Ring":
        size = 64 + num_slots * PART_SIZE * (math.prod(image_shape) + 4)
        if os.path.isdir("/dev/shm") and (free := shutil.disk_usage("/dev/shm").free) < size:
            raise UsageError(
                f"/dev/shm has {free >> 20} MB left, but {(size >> 20) + 1} are needed for the images of worker processes. Make "
                "it larger (docker: --shm-size), or use fewer processes (0: threads)."
            )
        memory = SharedMemory(create=True, size=size)
        ring = cls(memory.name, num_slots, image_shape)
        ring._memory = memory
        ring._num_read[0] = 0
        return ring

    def __reduce__(self):
        return type(self), (self.name, self.num_slots, self.image_shape)

    @property
    def _buffer(self) -> memoryview:
        if self._memory is None:
            self._memory = SharedMemory(self.name)
        assert self._memory.buf is not None  # It is not closed.
        return self._memory.buf

    @property
    def _num_read(self) -> np.ndarray:
        return np.frombuffer(self._buffer, np.int64, 1)

    def slot(self, n: int) -> Arrays:
        """The arrays of item n. No reference to them may exist when `close` is called."""
        num_pixels = PART_SIZE * math.prod(self.image_shape)
        start = 64 + n % self.num_slots * (num_pixels + 4 * PART_SIZE)
        images = np.frombuffer(self._buffer, np.uint8, num_pixels, start).reshape(PART_SIZE, *self.image_shape)
        return images, np.frombuffer(self._buffer, np.int32, PART_SIZE, start + num_pixels)

    def wait(self, n: int) -> None:
        """Returns when item n may be written."""
        while self._num_read[0] <= n - self.num_slots:
            time.sleep(0.001)
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                os._exit(1)  # The run was killed, and this process gets no other notice.

    def free(self, n: int) -> None:
        """Records that item n and all items before it have been read."""
        self._num_read[0] = n + 1

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory.unlink()


@dataclasses.dataclass(frozen=True)
class _InRing:
    """``parts`` as a source for Grain that writes into a ring and returns only the number of the item."""

    parts: Parts
    first: int
    ring: _Ring

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, item: int) -> int:
        self.ring.wait(item - self.first)
        images, labels = self.ring.slot(item - self.first)
        size = self.parts.size(item)
        self.parts.fill(item, images[:size], labels[:size])
        return item


@dataclasses.dataclass(frozen=True)
class _InMemory:
    """``parts`` as a source for Grain, for threads."""

    parts: Parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, item: int) -> Arrays:
        size = self.parts.size(item)
        part = np.empty((size, *self.parts.image_shape), np.uint8), np.empty(size, np.int32)
        self.parts.fill(item, *part)
        return part


@dataclasses.dataclass(frozen=True)
class _Start:
    """The first action of a worker. Grain calls it with the worker's number and the number of workers."""

    on_start: Callable[[], None] | None

    def __call__(self, index: int, count: int) -> None:
        del index, count
        for number in SIGNALS:
            # A terminal's Ctrl-C and many schedulers signal the whole group of processes. The run still needs batches to
            # finish its step, and it ends its processes itself.
            signal.signal(number, signal.SIG_IGN)
        if self.on_start is not None:
            self.on_start()
