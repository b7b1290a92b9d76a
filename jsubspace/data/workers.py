"""Batches made in worker processes, part by part, ahead of need; Grain runs the processes.

Images come back in one piece of shared memory that is used again and again. To send them, or to have new shared
memory for each part as Grain does by itself, costs a tenth and more of decoding them.
"""

import dataclasses
import itertools
import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Generator
from multiprocessing.shared_memory import SharedMemory
from typing import Protocol

import numpy as np
from absl import flags

from jsubspace.errors import UsageError

Batch = dict[str, np.ndarray]
Arrays = tuple[np.ndarray, np.ndarray]
"""Images uint8 ``[k, h, w, c]`` and labels int32 ``[k]``."""

PART_SIZE = 32
"""Images that a worker makes at a time, at most. Few, so that a start takes little time and reading ahead little memory."""


class Parts(Protocol):
    """Batches, each cut into ``num_parts`` parts: item ``step * num_parts + part`` is a part.

    It is sent to other processes, and what it makes is a function of the item alone.
    """

    @property
    def num_parts(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def __len__(self) -> int: ...

    def size(self, item: int) -> int:
        """Number of images of a part, at most `PART_SIZE`."""

    def fill(self, item: int, images: np.ndarray, labels: np.ndarray) -> None:
        """Writes a part: ``[k, h, w, c]`` and ``[k]``, k its size."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(
    parts: Parts, start_step: int, num_workers: int, on_start: Callable[[], None] | None = None
) -> Generator[Arrays, None, None]:
    """Images and labels of each step from ``start_step`` on, two batches made ahead.

    Args:
      parts: what to make.
      start_step: where to begin; what is before costs nothing.
      num_workers: processes; 0 for threads in this one.
      on_start: called in each process when it starts.

    Raises:
      UsageError: if a process ends before its time, or memory for its images is not to be had. What
        ``parts.fill`` raises, this raises.
    """
    import grain

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, and a notebook parses none.
    first = start_step * parts.num_parts
    ahead = 2 * parts.num_parts + max(num_workers, 1)
    if num_workers:
        ring = _Ring.create(ahead, parts.image_shape)
        source = grain.MapDataset.source(_InRing(parts, first, ring))[first:]
        inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        # The ring bounds what is made ahead, Grain's own buffers do not.
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
            f"did; use fewer processes than {num_workers} (0: threads)."
        ) from error
    finally:
        if ring is not None:
            ring.free(2**62)  # Nobody waits any more.
        iterator.close()
        if ring is not None:
            ring.close()


class _Ring:
    """Slots for parts in shared memory, taken in turn: item n, counted from the first, lies in slot n mod their number.

    It begins with the number of items that have been read; an item may be written when the one that lay in its slot has been.
    """

    def __init__(self, name: str, num_slots: int, image_shape: tuple[int, int, int]):
        self.name, self.num_slots, self.image_shape = name, num_slots, image_shape
        self._memory: SharedMemory | None = None  # each process opens it for itself

    @classmethod
    def create(cls, num_slots: int, image_shape: tuple[int, int, int]) -> "_Ring":
        size = 64 + num_slots * PART_SIZE * (math.prod(image_shape) + 4)
        if os.path.isdir("/dev/shm") and (free := shutil.disk_usage("/dev/shm").free) < size:
            raise UsageError(
                f"/dev/shm has {free >> 20} MB left, but {(size >> 20) + 1} are needed for the images of worker processes; make "
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
        """The arrays of item n. They must be gone before `close`."""
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
                os._exit(1)  # The run was killed; nobody else would tell us.

    def free(self, n: int) -> None:
        """Item n has been read, and all before it."""
        self._num_read[0] = n + 1

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory.unlink()


@dataclasses.dataclass(frozen=True)
class _InRing:
    """``parts`` as a source for Grain, that writes into a ring and returns nothing of note."""

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
    """What a worker does first; Grain calls it with the worker's number and how many there are."""

    on_start: Callable[[], None] | None

    def __call__(self, index: int, count: int) -> None:
        del index, count
        for number in (signal.SIGINT, signal.SIGTERM):
            # A terminal's Ctrl-C and many schedulers signal the whole group. The run needs batches to finish its step,
            # and ends its processes itself.
            signal.signal(number, signal.SIG_IGN)
        if self.on_start is not None:
            self.on_start()
