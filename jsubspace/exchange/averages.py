"""Averages of networks in files, leaf by leaf: memory holds the result and two leaves, whatever the number of files."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, machine, preemption, tree
from jsubspace.errors import UsageError
from jsubspace.exchange import saved, state_parts
from jsubspace.exchange.leaf_files import FORMAT, TREE, Stored

LEAST_COSINE = 0.1
"""Kernels of two states of one run have a higher cosine. Kernels of independent networks have a lower one."""

_ENOUGH = 1000
"""With fewer numbers, chance alone gives such cosines."""

_CHUNK = 2**14
"""How many numbers are added at a time, so that products need no memory to speak of."""

_CALL = "average_checkpoints(checkpoints, weights, like)"


def average_checkpoints(
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    weights: Any,
    like: Any = None,
    *,
    part: str = "",
    unrelated: bool = False,
) -> Any:
    """The weighted average of checkpoints in files, sum_k w_k theta_k.

    The files are read leaf by leaf: beside the result, memory holds two leaves. Sums are taken in float32 or wider, and the result
    has the dtypes of the files. An array of integers must be the same in all files. BatchNorm statistics are left out: estimate
    them again for the average (`jsubspace.reestimate_batch_stats`).

    Args:
      checkpoints: files or folders (`leaf_files.find`), or the folder of a run with one checkpoint per step
        (`step_folders.steps`).
      weights: ``[n]`` in the order of the checkpoints, with the sum 1 (`jsubspace.checkpoint_weights`). A checkpoint of weight 0
        is not read.
      like: a tree for the result, as in `jsubspace.load`. Without it the result is dictionaries, lists and tuples.
      part: the part of a training state that is averaged, as "ema". By default it is the network.
      unrelated: whether to average networks although their kernels have a cosine below `LEAST_COSINE`. The average of independent
        networks is worse than each of them.

    Returns:
      One network, numpy arrays ``[*s]``, or arrays on the devices of the arrays of ``like``.

    Raises:
      UsageError: if a checkpoint cannot be read, is given twice, is not finite, or differs from the first in names, shapes or
        dtypes. Also if the weights do not fit, the networks are unrelated, or the result is too large for the memory.

    Example:
      >>> import pathlib, tempfile, jsubspace
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> for step in (10, 20, 30):
      ...   jsubspace.save(folder / f"step-{step}.safetensors", {"w": np.full(2, step, np.float32)})
      >>> average_checkpoints(folder, [0.25, 0.5, 0.25])["w"].tolist()
      [20.0, 20.0]
    """
    _, stored = state_parts.find(checkpoints, _CALL)
    found = average(stored, checked_weights(weights, len(stored)), part, unrelated)
    return saved.read(found, like, _CALL)


def average(stored: Sequence[Stored], weights: np.ndarray, part: str = "", unrelated: bool = False) -> Stored:
    """The average as a network in memory that can be read like one on the disk. `average_checkpoints` says what the arguments are."""
    counted = [(one, weight) for one, weight in zip(stored, weights, strict=True) if weight]
    names = state_parts.same_networks(stored, part)
    chosen = [of_one for of_one, weight in zip(names, weights, strict=True) if weight]
    first, shapes = counted[0][0], {name: stored[0].shapes[theirs] for name, theirs in names[0].items()}
    sizes = [
        math.prod(leaf.shape) * tree.accumulator(leaf.dtype).itemsize
        for leaf in shapes.values()
        if _is_float(leaf.dtype)
    ]
    _check_memory(sum(sizes) + 3 * max(sizes, default=0), first)
    readers = [iter(one.read(list(of_one.values()))) for (one, _), of_one in zip(counted, chosen, strict=True)]
    relation = _Relation([str(one.path) for one, _ in counted])
    arrays = {name: _leaf(name, leaf, counted, readers, relation) for name, leaf in shapes.items()}
    if not unrelated:
        relation.check()
    is_whole = all(name == theirs for name, theirs in names[0].items()) and len(shapes) == len(stored[0].shapes)
    texts = {name: text for name, text in stored[0].texts.items() if all(one.texts.get(name) == text for one in stored)}
    kept = {name: text for name, text in texts.items() if name == FORMAT or (name == TREE and is_whole)}
    theirs = {name: stored[0].theirs.get(inside, name) for name, inside in names[0].items()} if stored[0].theirs else {}
    return Stored(
        first.path, shapes, (), first.path, lambda wanted: ((name, arrays[name]) for name in wanted), kept, theirs
    )


def network(stored: Stored, part: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of the network in a checkpoint, by their names in the network."""
    names = state_parts.network_in(stored, part)
    ours = {theirs: name for name, theirs in names.items()}
    return ((ours[theirs], array) for theirs, array in stored.read(list(ours)))


def check_memory(networks: int, like: Stored) -> None:
    """Raises a UsageError if as many networks like this one are too large for the memory of this machine."""
    _check_memory(networks * like.num_bytes(like.shapes), like)


def checked_weights(weights: Any, n: int) -> np.ndarray:
    """``[n]`` in float64.

    Raises:
      UsageError: if they are no n finite numbers with the sum 1.
    """
    is_list = arguments.are_real_numbers(weights) and np.ndim(weights) == 1 and np.size(weights)
    found = np.asarray(weights, np.float64) if is_list else np.zeros(0)
    if len(found) != n or not np.isfinite(found).all() or abs(found.sum() - 1) > 1e-6:
        given = f"{len(found)} numbers with the sum {found.sum():g}" if is_list else arguments.described(weights)
        raise UsageError(
            f"weights is {given}, but there are {n} checkpoints: weights must be {n} finite numbers with the sum 1. See "
            "jsubspace.checkpoint_weights."
        )
    return found


class _Relation:
    """The inner products of every checkpoint's kernels with the kernels of the checkpoint before."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places
        self._products = np.zeros((len(places), 2))  # with the checkpoint before, and with itself
        self._count = 0

    def add(self, k: int, before: np.ndarray | None, array: np.ndarray) -> None:
        """Takes in one leaf of checkpoint k."""
        self._count += array.size if k == 0 else 0
        one = array.reshape(-1)
        for start in range(0, one.size, _CHUNK):
            part = one[start : start + _CHUNK].astype(np.float64)
            self._products[k, 1] += np.sum(part * part)  # `@` would wake the threads of BLAS for every part.
            if before is not None:
                self._products[k, 0] += np.sum(part * before.reshape(-1)[start : start + _CHUNK])

    def check(self) -> None:
        """Raises a UsageError if two checkpoints are no states of one run."""
        if self._count < _ENOUGH:
            return
        norms = np.sqrt(self._products[:, 1])
        for k in range(1, len(norms)):
            cosine = self._products[k, 0] / max(norms[k] * norms[k - 1], np.finfo(float).tiny)
            if cosine < LEAST_COSINE:
                raise UsageError(
                    f"{self._places[k - 1]} and {self._places[k]} are not two states of one run: their kernels have the cosine {cosine:.3f}. "
                    "An average of independent networks is worse than each of them. Give checkpoints of one run, or fine-tunings of one "
                    "network. Say unrelated to average them anyway."
                )


def _leaf(
    name: str, like: Any, counted: Sequence[tuple[Stored, float]], readers: Sequence[Any], relation: _Relation
) -> np.ndarray:
    """The average of one leaf. Memory holds the sum and two arrays."""
    is_float = _is_float(like.dtype)
    total = np.zeros(like.shape, tree.accumulator(like.dtype)) if is_float else None
    before = None
    for k, ((stored, weight), reader) in enumerate(zip(counted, readers, strict=True)):
        preemption.check()
        _, array = next(reader)
        if total is None:
            if before is not None and array.tobytes() != before.tobytes():
                raise UsageError(
                    f"{name} is {like.dtype} and differs between {counted[k - 1][0].path} and {stored.path}. Only floats have an average. Leave "
                    "it out of the files."
                )
        else:
            _add(total.reshape(-1), weight, array.reshape(-1), name, stored)
            if array.ndim >= 2:
                relation.add(k, before, array)
        before = array
    del array
    if total is None:
        return before if before is not None else np.zeros(like.shape, like.dtype)
    before = None
    return total.astype(like.dtype, copy=False)


def _add(total: np.ndarray, weight: float, array: np.ndarray, name: str, stored: Stored) -> None:
    for start in range(0, array.size, _CHUNK):
        part = array[start : start + _CHUNK].astype(total.dtype)
        if not np.isfinite(part).all():
            raise UsageError(
                f"the network in {stored.path} is not finite: the leaf {name} holds NaN or infinity. Take another checkpoint."
            )
        total[start : start + _CHUNK] += total.dtype.type(weight) * part


def _check_memory(needed: int, stored: Stored) -> None:
    available = machine.memory()
    if available is not None and needed > available:
        raise UsageError(
            f"an average of {stored.path} needs {needed / 2**30:.1f} GiB of memory, and this machine has {available / 2**30:.1f} GiB. Use a "
            "larger machine, or store the networks in a narrower dtype."
        )


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))
