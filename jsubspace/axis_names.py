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
import jax.numpy as jnp

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


def removed(tree: Tree, *, before_the_axis: bool = False) -> Tree:
    """The tree without the first name of every leaf. It is the inverse of `added`.

    Args:
      tree: leaves ``[*s]`` with the names of ``[m, *s]``.
      before_the_axis: whether the leaves are ``[m, *s]`` still, because a vmap will remove the axis.

    Raises:
      ValueError: if a leaf has no name for the endpoint axis, or its first name is another one.
    """
    lost = 0 if before_the_axis else 1

    def without(box: Any) -> Any:
        _check_count(vars(box), box, lost)
        return box.remove_axis(0, _OF_LINEN)

    return _with_boxes(
        tree, without, _rest, "remove_axis", lambda variable: _check_count(variable.get_metadata(), variable, lost)
    )


def bare(tree: Any) -> Any:
    """The tree without boxes and variables, so that the structures of a network and of its endpoints are equal."""

    def content(node: Any) -> Any:
        if not is_box(node):
            return node
        leaves = jax.tree.leaves(node)
        return leaves[0] if len(leaves) == 1 else leaves

    return jax.tree.map(content, tree, is_leaf=is_box)


def _with_boxes(
    tree: Tree,
    of_linen: Callable[[Any], Any],
    of_nnx: Callable[[tuple[Any, ...]], Any],
    hook: str,
    check: Callable[[Any], None] = lambda variable: None,
) -> Tree:
    if not any(map(is_box, jax.tree.leaves(tree, is_leaf=is_box))):
        return tree

    def renamed(path: tuple[Any, ...], node: Any) -> Any:
        if not is_box(node):
            return node
        try:
            if not hasattr(node, "set_metadata"):
                return of_linen(node)
            variable = jax.tree.map(lambda leaf: leaf, node)  # A copy, because its metadata is changed in place.
            check(variable)
            metadata = variable.get_metadata()
            for kind in _OF_NNX:
                if metadata.get(kind):
                    variable.set_metadata(kind, _of_its_type(metadata[kind], of_nnx))
            getattr(variable, hook)(0, NAME)
        except (AssertionError, IndexError, ValueError) as error:
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)} has names for its axes, but none for the endpoint axis, which is None and comes "
                "first. Stack networks with jsubspace.stack or jsubspace.init_endpoints, which add this name."
            ) from error
        return variable

    return jax.tree_util.tree_map_with_path(renamed, tree, is_leaf=is_box)


def is_box(node: Any) -> bool:
    """Whether this is a box of linen or a variable of nnx around one array."""
    return callable(getattr(node, "add_axis", None)) and callable(getattr(node, "remove_axis", None))


def _check_count(metadata: Any, box: Any, lost: int) -> None:
    """Raises ValueError if the names do not fit the axes of the array, which has lost as many axes.

    None may also be the name of the first axis of one network. A PartitionSpec may leave out names at its end.
    """
    for kind in ("names", *_OF_NNX):
        names = metadata.get(kind)
        full = isinstance(names, list | tuple) and not isinstance(names, jax.sharding.PartitionSpec)
        if full and any(len(names) != jnp.ndim(leaf) + lost for leaf in jax.tree.leaves(box)):
            raise ValueError(f"there are {len(names)} names")


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
