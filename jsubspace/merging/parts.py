"""Parts of a network that get weights of their own: the whole, its layers, its leaves, or what patterns name."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jsubspace import arguments, layer_names, tree
from jsubspace.errors import UsageError
from jsubspace.layer_names import ScannedLayers
from jsubspace.leaf_kinds import names_of, without_boxes
from jsubspace.types import Alpha, Endpoints, LayerNames

LAYER, LEAF = "layer", "leaf"
"""Words for ``by``: every layer, or every leaf, is a part."""

REST = "other leaves"
"""The part with the leaves that no pattern names."""

By = LayerNames | Sequence[str] | str | None


class Parts(NamedTuple):
    """Which part every leaf belongs to. Every part has one position.

    Attributes:
      names: one name per part. L layers that are stacked for a scan are L parts.
      places: for each leaf in order, its first part, and L for stacked layers or None. It is empty for the whole network.
      structure: of the tree of leaves.
    """

    names: tuple[str, ...]
    places: tuple[tuple[int, int | None], ...]
    structure: Any

    @property
    def is_whole(self) -> bool:
        """Whether the network is one part."""
        return not self.places

    def alpha(self, positions: Any) -> Alpha:
        """Positions ``[parts, *alpha_shape]`` as `jsubspace.interpolate` takes them: one array, or a tree with one per leaf."""
        if self.is_whole:
            return positions[0]
        found = [
            positions[first] if length is None else positions[first : first + length] for first, length in self.places
        ]
        return jax.tree.unflatten(self.structure, found)

    def leaves(self, part: int) -> list[int]:
        """The places of the leaves that belong to a part, in the order of the tree."""
        if self.is_whole:
            return list(range(self.structure.num_leaves))
        return [i for i, (first, length) in enumerate(self.places) if first <= part < first + (length or 1)]


def parts_of(endpoints: Endpoints, by: By = None, caller: str = "soup") -> Parts:
    """The parts of the endpoints.

    Args:
      endpoints: leaves ``[m, *s]``.
      by: None for the whole network, "layer" or "leaf" for each of them, or names with the wildcards of a shell
        ("head", ["encoder/*", "head"]). The leaves below each name are then a part, and the other leaves are one part more. A
        tree of names as from `jsubspace.layers` is taken as well.
      caller: the function that a message names.

    Raises:
      UsageError: if ``by`` is something else, or a name is found nowhere.

    Example:
      >>> import jax.numpy as jnp
      >>> endpoints = {"head": {"kernel": jnp.zeros((2, 3, 4)), "bias": jnp.zeros((2, 4))}, "body": jnp.zeros((2, 3))}
      >>> parts_of(endpoints, "layer").names, parts_of(endpoints, "head").names
      (('', "['head']"), ('other leaves', 'head'))
    """
    structure = jax.tree.structure(endpoints)
    if by is None:
        return Parts(("whole",), (), structure)
    names = _names(endpoints, by, caller)
    starts: dict[Any, int] = {}
    counted: list[str] = []
    for name in names:
        if name not in starts:
            starts[name] = len(counted)
            is_scanned = isinstance(name, ScannedLayers)
            counted += [f"{name.name}[{i}]" for i in range(name.length)] if is_scanned else [str(name)]
    places = tuple((starts[name], name.length if isinstance(name, ScannedLayers) else None) for name in names)
    return Parts(tuple(counted), places, structure)


def _names(endpoints: Endpoints, by: By, caller: str) -> list[Any]:
    """The name of every leaf's part."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(endpoints)]
    if isinstance(by, str) and by == LAYER:
        return jax.tree.leaves(layer_names.layers(endpoints))
    if isinstance(by, str) and by == LEAF:
        return [tree.leaf_name(path) for path in paths]
    if tree.same_structure(by, endpoints) and not isinstance(by, str):
        try:
            layer_names.check_layers("by", by)
            layer_names.check_lengths(by, endpoints)
        except ValueError as error:
            raise UsageError(f"{caller}: {error}") from None
        return jax.tree.leaves(by)
    patterns = (by,) if isinstance(by, str) else by
    if not isinstance(patterns, list | tuple) or not all(isinstance(name, str) for name in patterns) or not patterns:
        raise UsageError(
            f'{caller}: by is {arguments.described(by)}, but it must be None for the whole network, "layer", "leaf", names of '
            'leaves or modules as in ["encoder/*", "head"], or a tree of names (see jsubspace.layers).'
        )
    unboxed = without_boxes(endpoints)
    of_leaves = [names_of(unboxed(path)) for path in paths]
    found = [layer_names.module_of(names, tuple(patterns))[1] for names in of_leaves]
    for pattern in patterns:
        if pattern not in found:
            known = ", ".join("/".join(names) for names in of_leaves[:5])
            raise UsageError(
                f"{caller}: by names {pattern!r}, but no leaf of its own has this name or lies below it. The leaves are {known}"
                f"{', ...' if len(of_leaves) > 5 else ''}. Slashes separate the names on a path, and wildcards are allowed."
            )
    return [name or REST for name in found]
