"""Trees of arrays in folders of Orbax: written whole, and read whole or array by array."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace.errors import UsageError, one_line
from jsubspace.storage import late_writes

MARK = "_METADATA"
"""The file by which a folder with a tree is known."""

Path = tuple[Any, ...]
"""The keys of jax that lead to an array."""


def save(folder: pathlib.Path, tree: Any) -> None:
    """Writes dictionaries of numpy arrays into a new folder, which any program can read with Orbax.

    Raises:
      OSError: if they cannot be written.
    """
    import orbax.checkpoint as ocp

    late_writes.ignore()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder.absolute(), tree)
    except Exception as error:  # A full disk is a ValueError of TensorStore or an OSError.
        raise OSError(one_line(error)) from error


def load(folder: pathlib.Path) -> Any:
    """The tree of numpy arrays in a folder.

    Raises:
      UsageError: if the folder is damaged, or holds something else.
    """
    import orbax.checkpoint as ocp

    like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes(folder))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder.absolute(), like)
    except Exception as error:  # Orbax, JSON and TensorStore raise errors of many types.
        raise _damaged(folder, error) from error


def shapes(folder: pathlib.Path) -> Any:
    """The tree in a folder, with a `jax.ShapeDtypeStruct` in the place of every array. No array is read.

    Raises:
      UsageError: if the folder is damaged, or holds something else.
    """
    import orbax.checkpoint as ocp

    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(folder.absolute()).item_metadata.tree
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype), saved)
    except Exception as error:
        raise _damaged(folder, error) from error


def arrays(folder: pathlib.Path, tree: Any, wanted: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Arrays of a folder with their paths, one after the other. Memory holds one of them.

    Args:
      folder: the folder.
      tree: its `shapes`.
      wanted: the paths of the arrays.

    Raises:
      UsageError: if the folder is damaged.
    """
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        for path in wanted:  # A name for the array would keep it in memory until the next one is asked for.
            yield path, _array(checkpointer, folder, tree, path)


def _array(checkpointer: Any, folder: pathlib.Path, tree: Any, path: Path) -> np.ndarray:
    import orbax.checkpoint as ocp

    like = jax.tree_util.tree_map_with_path(lambda place, leaf: leaf if place == path else ocp.PLACEHOLDER, tree)
    as_numpy = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    try:
        found = checkpointer.restore(folder.absolute(), args=ocp.args.PyTreeRestore(item=like, restore_args=as_numpy))
    except Exception as error:
        raise _damaged(folder, error) from error
    array, expected = np.asarray(_at(found, path)), _at(tree, path)
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise _damaged(folder, ValueError(f"{jax.tree_util.keystr(path)} is not what its metadata says"))
    return array


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key.key if isinstance(key, jax.tree_util.DictKey) else key.idx]
    return tree


def _damaged(folder: pathlib.Path, error: Exception) -> UsageError:
    return UsageError(f"{folder} is damaged or not a network of Orbax: {one_line(error)}")
