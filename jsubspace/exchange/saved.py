"""One network of any tree as a safetensors file, and back: dictionaries, lists, tuples, Flax nnx, Equinox."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace import arguments, machine, preemption
from jsubspace.errors import UsageError
from jsubspace.exchange import leaf_files, matching, named_leaves, network_files, tensor_header
from jsubspace.exchange.leaf_files import SUFFIX, TREE, Stored
from jsubspace.exchange.named_leaves import ARRAY, KEY, NUMBER, Entry
from jsubspace.storage import documents
from jsubspace.storage.places import located

_SAVE = "save(path, network)"


def save(path: str | os.PathLike[str], network: Any) -> None:
    """Writes one network as a safetensors file, which any program can read. A file that exists is replaced.

    A process that is killed leaves the old file or the new one. An array's name is its path, as ``blocks/0/kernel``. Arrays of
    devices are copied to the host one after the other. Functions and other things that are no arrays are not written.

    Args:
      path: ``NAME.safetensors``, on the disk or in a bucket.
      network: a tree of arrays: dictionaries, lists, tuples, Python's numbers, PRNG keys, or modules, for example of Flax nnx or
        Equinox, or ``nnx.state(model)``. With BatchNorm, ``{"params": ..., "batch_stats": ...}``.

    Raises:
      UsageError: if the file cannot be written there.
      ValueError: if the network has no arrays, or arrays of a dtype that the format lacks (`tensor_header.DTYPES`).

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.safetensors"
      >>> save(path, {"blocks": [{"kernel": np.eye(2, dtype=np.float32)}, {"kernel": np.ones((2, 1), np.float32)}]})
      >>> load(path)["blocks"][1]["kernel"].tolist()
      [[1.0], [1.0]]
    """
    target = located(path, "path")
    if target.suffix != SUFFIX:
        raise UsageError(f"{target} is no name of a safetensors file. Call it {target.stem or 'network'}{SUFFIX}.")
    write(target, network, {}, "network", _SAVE)


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """One network from a file of `save`, of ``jsubspace.export`` or of another program. Nothing in the file is executed.

    Args:
      path: a safetensors file, an index of shards, or a folder with them or of Orbax (`leaf_files.find`).
      like: a tree of the network's structure, shapes and dtypes, as a module, ``nnx.split(model)`` or the result of
        ``jax.eval_shape(init_fn, key)``. Names that do not fit are one message. Narrower floats are widened.

    Returns:
      Without ``like``, dictionaries, lists and tuples of numpy arrays ``[*s]``. The attributes of a module are keys of a
      dictionary. With ``like``, its tree with the arrays of the file. They lie where the arrays of ``like`` lie, as numpy arrays
      or on the same devices. What is no array is kept from ``like``.

    Raises:
      UsageError: if there is no such file, it is damaged or too large for the memory of this machine, it does not fit
        ``like``, or its tree held something else than arrays and ``like`` is missing.
    """
    return read(leaf_files.find(located(path, "path")), like, "load(path, like)")


def write(path: pathlib.Path, tree: Any, texts: Mapping[str, str], what: str, call: str) -> str:
    """Writes the arrays of a tree, with metadata, and returns their digest.

    ``what`` names the tree in a message, and ``call`` shows the order of the arguments.
    """
    entries = named_leaves.entries(tree)
    arrays = {entry.name: _writable(entry.name, entry.array) for entry in entries if entry.kind in (ARRAY, KEY)}
    if not arrays:
        raise ValueError(
            f"{what} is {arguments.described(tree)}, but it must be a tree of arrays.{arguments.order(call)}"
        )
    record = named_leaves.record(entries)
    texts = {**texts, **({TREE: record} if record else {})}
    digest = network_files.digest(arrays)
    try:
        tensor_header.write(path, arrays, {**texts, network_files.DIGEST: json.dumps(digest)})
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}. Choose another place, or make room.") from error
    return digest


def read(stored: Stored, like: Any, call: str) -> Any:
    """What `load` returns, of a network that `leaf_files.find` has found."""
    needed, available = stored.num_bytes(stored.shapes), machine.memory()
    if available is not None and needed > available:
        raise UsageError(
            f"{stored.path} has {needed / 2**30:.1f} GiB of arrays, and this machine has {available / 2**30:.1f} GiB of memory. Use "
            "a larger machine, or store the network in a narrower dtype."
        )
    try:
        found = named_leaves.read_record(stored.texts[TREE]) if TREE in stored.texts else None
        if like is not None:
            return _like(stored, found or [], like, call)
        arrays = dict(_checked(stored, sorted(stored.shapes)))
        return network_files.unflatten(arrays) if found is None else named_leaves.rebuilt(found, arrays)
    except UsageError:
        raise
    except LookupError as error:
        raise UsageError(
            f"{stored.path} holds {error.args[0]}, which is no array and was not written. Pass like=, a tree that has it, for example "
            "a new network of the same kind."
        ) from error
    except ValueError as error:
        raise UsageError(f"{stored.path} is damaged: {error}. Write it again.") from error


def _like(stored: Stored, found: Sequence[Entry], like: Any, call: str) -> Any:
    entries = named_leaves.entries(like)
    leaves = {entry.name: entry.array for entry in entries if entry.kind in (ARRAY, KEY)}
    if not leaves:
        must = "a tree of arrays, or of their shapes and dtypes"
        raise UsageError(f"like is {arguments.described(like)}, but it must be {must}.{arguments.order(call)}")
    expected = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    theirs = matching.matched(stored.shapes, expected, str(stored.path), of=matching.LIKE)
    ours = {their: name for name, their in theirs.items()}
    arrays = {
        ours[their]: _placed(array.astype(leaves[ours[their]].dtype, copy=False), leaves[ours[their]])
        for their, array in _checked(stored, sorted(ours))
    }
    numbers = {entry.steps: named_leaves.number_of(entry) for entry in found if entry.kind == NUMBER}
    return named_leaves.with_arrays(like, entries, arrays, numbers)


def _checked(stored: Stored, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays in the order of their names. If the whole file was read, its digest is compared at the end."""
    expected = stored.texts.get(network_files.DIGEST)
    is_whole = expected is not None and len(names) == len(stored.shapes) and not stored.theirs
    total = network_files.Digest()
    for name, array in stored.read(names):
        preemption.check()
        if is_whole:
            total.add(name, array)
        yield name, array
    if is_whole and json.dumps(total.text) != expected:
        raise UsageError(f"{stored.path} is damaged: its arrays have changed since they were written. Write it again.")


def _placed(array: np.ndarray, like: Any) -> Any:
    """The array where the array ``like`` lies: on its devices, or on the host."""
    sharding = getattr(like, "sharding", None)
    return array if sharding is None else jax.device_put(array, sharding)


def _writable(name: str, array: Any) -> Any:
    if not getattr(array, "is_fully_addressable", True):
        raise ValueError(
            f"{name} lies on devices of several hosts. Gather it first, as by jax.experimental.multihost_utils.process_allgather."
        )
    if isinstance(array, jax.ShapeDtypeStruct | jax.core.Tracer):
        raise ValueError(
            f"{name} is {arguments.described(array)} without numbers. Save outside of jit, and real arrays."
        )
    if isinstance(array, np.ndarray | np.generic):
        array = np.asarray(array, array.dtype.newbyteorder("="))
    network_files.check_dtype(name, array)
    return array


def text(facts: Mapping[str, Any]) -> str:
    """Facts as the metadata of a file."""
    return documents.to_json(facts)


def write_stored(path: pathlib.Path, stored: Stored, facts: Mapping[str, Any]) -> None:
    """Writes a network under the names that its arrays have in their file, with its metadata and the facts ``merge``.

    Raises:
      UsageError: if the file cannot be written.
    """
    arrays = {stored.theirs.get(name, name): array for name, array in stored.read(list(stored.shapes))}
    texts = {**stored.texts, "merge": text(facts), network_files.DIGEST: json.dumps(network_files.digest(arrays))}
    try:
        tensor_header.write(path, arrays, texts)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}. Choose another place, or make room.") from error
