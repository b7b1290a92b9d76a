"""Any tree of arrays as nested dictionaries, which every file format of networks can hold."""

from collections.abc import Sequence
from typing import Any

import jax


def as_dictionary(tree: Any) -> dict[str, Any]:
    """The arrays of any tree in nested dictionaries, by the names in their paths.

    Example:
      >>> as_dictionary([{"a": 1.0}, (2.0, None)])
      {'0': {'a': 1.0}, '1': {'0': 2.0}}
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *groups, last = _names(path)
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = leaf
    return found


def from_dictionary(dictionary: dict[str, Any], like: Any) -> Any:
    """The inverse of `as_dictionary`, for a tree like ``like``."""

    def leaf_at(path: Sequence[Any], _: Any) -> Any:
        inner: Any = dictionary
        for name in _names(path):
            inner = inner[name]
        return inner

    return jax.tree_util.tree_map_with_path(leaf_at, like)


def _names(path: Sequence[Any]) -> list[str]:
    return [jax.tree_util.keystr((entry,), simple=True) for entry in path] or ["value"]
