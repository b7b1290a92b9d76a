"""Names of axes that a framework keeps beside an array, as a plan for sharding: stacking adds one, indexing removes it.

Flax linen puts such an array in a box (``nn.with_partitioning``, ``nn.with_logical_partitioning``). Flax nnx keeps the names
among the metadata of a variable (``out_sharding``). Both are part of the tree's structure, and ``nn.get_partition_spec``
and ``nnx.get_partition_spec`` read them. A leaf ``[*s]`` has the names of ``[*s]``, so ``[m, *s]`` needs one name more.

The endpoint axis gets the name None, which stands for an axis that is not sharded. No other name is offered: a step reads
all endpoints at every position, so an endpoint axis that is cut would send whole networks between the devices.

The boxes are known by their methods, ``add_axis`` and ``remove_axis``. No framework is imported.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

Tree = TypeVar("Tree")

NAME = None
"""The name of the endpoint axis: it is replicated."""

_OF_LINEN = {"partition_name": NAME}
"""What linen's boxes call the name of an axis that a transformation adds or removes."""

_OF_NNX = ("out_sharding", "sharding_names", "sharding", "optimizer_sharding")
"""Metadata of nnx variables with one name per axis. The second and the third are former names of the first."""


def added(tree: Tree) -> Tree:
    """The tree with the name of the endpoint axis before the names of every leaf ``[m, *s]``, which had those of ``[*s]``.

    A tree without names is returned as it is. The arrays stay as they are.
    """
    return _with_boxes(tree, lambda box: box.add_axis(0, _OF_LINEN), lambda names: (NAME, *names), "add_axis")


def removed(tree: Tree) -> Tree:
    """The tree without the first name of every leaf. It is the inverse of `added`.

    Raises:
      ValueError: if the first name of a leaf is not that of the endpoint axis.
    """
    return _with_boxes(tree, lambda box: box.remove_axis(0, _OF_LINEN), _rest, "remove_axis")


def bare(tree: Any) -> Any:
    """The tree without boxes and variables, so that the structures of a network and of its endpoints are equal."""

    def content(node: Any) -> Any:
        if not _is_box(node):
            return node
        leaves = jax.tree.leaves(node)
        return leaves[0] if len(leaves) == 1 else leaves

    return jax.tree.map(content, tree, is_leaf=_is_box)


def _with_boxes(
    tree: Tree, of_linen: Callable[[Any], Any], of_nnx: Callable[[tuple[Any, ...]], Any], hook: str
) -> Tree:
    if not any(map(_is_box, jax.tree.leaves(tree, is_leaf=_is_box))):
        return tree

    def renamed(path: tuple[Any, ...], node: Any) -> Any:
        if not _is_box(node):
            return node
        try:
            if not hasattr(node, "set_metadata"):
                return of_linen(node)
            variable = jax.tree.map(lambda leaf: leaf, node)  # A copy, because its metadata is changed in place.
            metadata = variable.get_metadata()
            for kind in _OF_NNX:
                if metadata.get(kind):
                    variable.set_metadata(kind, _of_its_type(metadata[kind], of_nnx))
            getattr(variable, hook)(0, NAME)
        except (AssertionError, IndexError, ValueError) as error:
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)} has names for its axes, and the first of them is not None, the name of the "
                "endpoint axis. Stack networks with jsubspace.stack or jsubspace.init_endpoints, which add this name."
            ) from error
        return variable

    return jax.tree_util.tree_map_with_path(renamed, tree, is_leaf=_is_box)


def _is_box(node: Any) -> bool:
    return callable(getattr(node, "add_axis", None)) and callable(getattr(node, "remove_axis", None))


def _rest(names: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *rest = names
    if first is not NAME:
        raise ValueError(f"the first name is {first!r}")
    return tuple(rest)


def _of_its_type(names: Any, change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Any:
    """The changed names as a tuple, a list or a PartitionSpec, whichever they were. A NamedSharding keeps its mesh."""
    if hasattr(names, "spec"):
        return names.update(spec=_of_its_type(names.spec, change))
    if isinstance(names, jax.sharding.PartitionSpec):
        return jax.sharding.PartitionSpec(*change(tuple(names)))
    return type(names)(change(tuple(names)))
