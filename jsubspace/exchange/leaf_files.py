"""A network that any program has written, read array by array: safetensors, one file or shards of it, or Orbax.

A large network never has to fit into the memory of the host beside its copy on the devices. Nothing in a file is executed.
"""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace import preemption
from jsubspace.errors import UsageError
from jsubspace.exchange import orbax_trees, tensor_header
from jsubspace.storage import documents, files
from jsubspace.storage.schema import Named, Record, Text

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"

TREE = "tree"
"""The metadata in which `saved.save` keeps the tree of a network. The names of such a file are taken as they are."""

FORMAT = "format"
"""The metadata in which other programs keep the framework that wrote a file, without which some do not read it."""

INDEX_BYTES = 2**26
"""The largest size of an index of shards: some hundred thousand arrays."""

_INDEX = Record({"weight_map": Named(Text(r"[^/\\]+\.safetensors"))})


@dataclasses.dataclass(frozen=True)
class Stored:
    """A network on the disk.

    Attributes:
      path: the file or folder that was named.
      shapes: the shape and dtype of every array, by its name. The parts of a name have slashes between.
      files: all files that hold the network.
      folder: the folder in which the names of ``files`` are told apart.
      read: names -> pairs of a name and its array ``[*s]``, in this order, one after the other.
      texts: the metadata of one safetensors file, or the `FORMAT` of shards.
      theirs: the names of the arrays in the file, by the names in ``shapes``. It is empty if they are the same.
    """

    path: pathlib.Path
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    files: tuple[pathlib.Path, ...]
    folder: pathlib.Path
    read: Callable[[Sequence[str]], Iterable[tuple[str, np.ndarray]]]
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    theirs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def num_bytes(self, names: Iterable[str]) -> int:
        """The size of some of its arrays."""
        return sum(math.prod(self.shapes[name].shape) * self.shapes[name].dtype.itemsize for name in names)

    def digest(self) -> str:
        """The SHA-256 of the file. For several files it is the SHA-256 of the lines that ``sha256sum`` prints for them."""
        sums = {}
        for path in self.files:
            preemption.check()
            try:
                with path.open("rb") as file:
                    sums[path.relative_to(self.folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _damaged(path, error) from error
        if len(sums) == 1:
            return next(iter(sums.values()))
        return hashlib.sha256("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()).hexdigest()


def find(path: pathlib.Path) -> Stored:
    """The network at a path. Names, shapes and dtypes are read, and no array.

    Args:
      path: a safetensors file, an index ``NAME.safetensors.index.json`` of shards, a folder that has ``model.safetensors`` or
        ``model.safetensors.index.json``, a folder of ``jsubspace.export``, or a folder that Orbax has written, as a step's.

    Raises:
      UsageError: if there is no such thing, or it is damaged.
    """
    if files.is_unfinished(path):
        raise UsageError(f"{path} is not complete: whoever wrote it was interrupted. Write it again.")
    if path.is_file():
        return _shards(path) if path.name.endswith(INDEX_SUFFIX) else _one_file(path)
    if path.is_dir():
        for name in (f"model{INDEX_SUFFIX}", f"model{SUFFIX}"):
            if (path / name).is_file():
                return find(path / name)
        # `default` is what a CheckpointManager writes. With several items, the items have names.
        inside = [path, path / "network", path / "default", *sorted(path.iterdir())]
        trees = [folder for folder in inside if (folder / orbax_trees.MARK).is_file()]
        if len(trees) > 1 and trees[0] not in inside[:3]:
            names = ", ".join(folder.name for folder in trees)
            raise UsageError(f"{path} holds several trees of Orbax: {names}. Name one of these folders.")
        if trees:
            return _orbax(path, trees[0])
    what = "holds no network" if path.exists() else "does not exist"
    raise UsageError(
        f"{path} {what}. A network is a file NAME{SUFFIX}, an index NAME{INDEX_SUFFIX} with its shards beside it, or a folder "
        "of Orbax."
    )


def name_of(path: tuple[Any, ...]) -> str:
    """The name of an array from the keys of jax that lead to it, with slashes between: ``hidden/kernel``, ``blocks/0/bias``."""
    return "/".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)


def _one_file(path: pathlib.Path) -> Stored:
    header = _header(path)
    names = {name: name for name in header.arrays} if TREE in header.texts else _with_slashes(header.arrays)
    shapes = {name: _shape(header.arrays[theirs]) for name, theirs in names.items()}

    def read(wanted: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        for name in wanted:
            yield name, _array(path, header, names[name])

    return Stored(path, shapes, (path,), path.parent, read, header.texts, _if_other(names))


def _shards(index: pathlib.Path) -> Stored:
    fix = "Download it again."
    where = documents.read(index, INDEX_BYTES, fix, _INDEX)["weight_map"]
    headers = {}
    for shard in sorted(set(where.values())):
        if not (index.parent / shard).is_file():
            raise UsageError(f"{index} names the shard {shard}, which is not beside it. {fix}")
        headers[shard] = _header(index.parent / shard)
        listed = {name for name, place in where.items() if place == shard}
        if odd := sorted(listed ^ set(headers[shard].arrays)):
            raise UsageError(
                f"{index} and its shard {shard} do not belong together: {odd[0][:200]} is in one and not in the other. {fix}"
            )
    names = _with_slashes(where)
    shapes = {name: _shape(headers[where[theirs]].arrays[theirs]) for name, theirs in names.items()}

    def read(wanted: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        for name in wanted:
            shard = where[names[name]]
            yield name, _array(index.parent / shard, headers[shard], names[name])

    shards = (index, *(index.parent / shard for shard in headers))
    formats = {header.texts.get(FORMAT, "") for header in headers.values()} - {""}
    texts = {FORMAT: formats.pop()} if len(formats) == 1 else {}
    return Stored(index, shapes, shards, index.parent, read, texts, _if_other(names))


def _orbax(path: pathlib.Path, folder: pathlib.Path) -> Stored:
    tree = orbax_trees.shapes(folder)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths = {name_of(place): place for place, _ in leaves}

    def read(wanted: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        pairs = orbax_trees.arrays(folder, tree, [paths[name] for name in wanted])
        return ((name_of(pair[0]), pair[1]) for pair in pairs)

    shapes = {name_of(place): leaf for place, leaf in leaves}
    return Stored(path, shapes, tuple(files.all_files(folder)), folder, read)


def _with_slashes(names: Iterable[str]) -> dict[str, str]:
    """The names with slashes between their parts -> the names in the file. Without any slash, dots stand between the parts."""
    names = list(names)
    dots = not any("/" in name for name in names)
    return {name.replace(".", "/") if dots else name: name for name in names}


def _if_other(names: Mapping[str, str]) -> Mapping[str, str]:
    return {} if all(name == theirs for name, theirs in names.items()) else names


def _header(path: pathlib.Path) -> tensor_header.Header:
    try:
        return tensor_header.read(path)
    except (OSError, ValueError, MemoryError) as error:
        raise _damaged(path, error) from error


def _shape(array: dict[str, Any]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(array["shape"]), tensor_header.DTYPES[array["dtype"]])


def _array(path: pathlib.Path, header: tensor_header.Header, name: str) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return tensor_header.array(file, header, name)
    except (OSError, ValueError, MemoryError) as error:
        raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Exception) -> UsageError:
    return UsageError(f"{path} is not a safetensors file of a network, or damaged: {error}.")
