"""The names of a network's layers. Each layer has an alpha of its own in layerwise training."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments
from jsubspace.leaf_kinds import names_of, without_boxes
from jsubspace.tree import leaf_name, num_endpoints
from jsubspace.types import Endpoints, LayerNames, Params

_CALL = 'layers(tree, scanned="blocks")'


@dataclasses.dataclass(frozen=True)
class ScannedLayers:
    """The name of L layers that are stacked for a scan, in leaves ``[m, L, *s]``. Each of them has an alpha of its own.

    Attributes:
      name: the name that the layers share.
      length: L.
    """

    name: str
    length: int


def layers(tree: Params | Endpoints, scanned: str | Sequence[str] = ()) -> LayerNames:
    """The name of every leaf's layer: the path of the module that holds the leaf, without the leaf's own name.

    A kernel and its bias are therefore one layer, and so are scale and bias of a BatchNorm. A convolution and the
    BatchNorm behind it are two layers, as in the paper's layerwise training. Layers that are stacked for a scan are leaves of
    one array. A tree does not say which leaves these are. Without ``scanned``, all layers of such an array are one layer.

    Args:
      tree: a network or endpoints. With ``scanned`` it must be endpoints, with leaves ``[m, L, *s]`` for L stacked layers.
      scanned: the names of the modules with stacked layers, as "blocks". A name may have several parts, as
        "decoder/blocks", and the wildcards of a shell. "*" stands for all modules. Every layer of such a module gets an alpha
        of its own.

    Returns:
      A tree like ``tree`` with a string per leaf, or `ScannedLayers` for stacked layers.

    Raises:
      ValueError: if there is no module with a name in ``scanned``, or its leaves do not share an axis of layers.

    Example:
      >>> layers({"conv": {"kernel": 0.0}, "norm": {"scale": 0.0, "bias": 0.0}})
      {'conv': {'kernel': "['conv']"}, 'norm': {'bias': "['norm']", 'scale': "['norm']"}}
      >>> layers({"blocks": {"w": jnp.zeros((2, 12, 8, 8))}, "head": {"w": jnp.zeros((2, 8, 5))}}, scanned="blocks")
      {'blocks': {'w': ScannedLayers(name="['blocks']", length=12)}, 'head': {'w': "['head']"}}
    """
    arguments.check_arrays("tree", tree, "a network", "layers(tree)")
    unboxed = without_boxes(tree)
    names = jax.tree_util.tree_map_with_path(lambda path, _: jax.tree_util.keystr(unboxed(path)[:-1]), tree)
    patterns = _patterns(scanned)
    if not patterns:
        return names
    num_endpoints(tree, _CALL)
    lengths = _lengths(jax.tree_util.tree_leaves_with_path(tree), patterns, unboxed)
    leaves, structure = jax.tree.flatten(names)
    return jax.tree.unflatten(
        structure,
        [name if length is None else ScannedLayers(name, length) for name, length in zip(leaves, lengths, strict=True)],
    )


def check_layers(name: str, layers: LayerNames, allowed: str = "a tree like the endpoints", call: str = "") -> None:
    """Raises a ValueError if ``layers`` is no tree of names of layers: strings, integers or `ScannedLayers`.

    Args:
      name: what the argument is called, for a message.
      layers: a name per leaf.
      allowed: what the argument may be, for a message.
      call: shows the order of the arguments in a message.
    """
    must = f"it must be {allowed} with the name of a layer per leaf (see jsubspace.layers)."
    leaves = jax.tree_util.tree_leaves_with_path(layers)
    if not leaves or isinstance(layers, int):
        raise ValueError(f"{name} is {arguments.described(layers)}, but {must}{arguments.order(call)}")
    for path, leaf in leaves:
        if isinstance(leaf, bool) or not isinstance(leaf, str | int | np.integer | ScannedLayers):
            place = f"leaf {leaf_name(path)} of {name}" if path else name
            raise ValueError(f"{place} is {arguments.described(leaf)}, but {must}{arguments.order(call)}")


def check_lengths(layers: LayerNames, endpoints: Endpoints) -> None:
    """Raises a ValueError if a leaf ``[m, L, *s]`` of the endpoints has not as many layers as its name says."""
    for (path, leaf), name in zip(jax.tree_util.tree_leaves_with_path(endpoints), jax.tree.leaves(layers), strict=True):
        shape = jnp.shape(leaf)
        if isinstance(name, ScannedLayers) and shape[1:2] != (name.length,):
            raise ValueError(
                f"leaf {leaf_name(path)} of the endpoints has the shape {list(shape)}, but its name says that it holds "
                f"{name.length} layers, [m, {name.length}, ...]. Make the names from these endpoints, by "
                'jsubspace.layers(endpoints, scanned="blocks").'
            )


def _patterns(scanned: str | Sequence[str]) -> tuple[str, ...]:
    patterns = (scanned,) if isinstance(scanned, str) else scanned
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(
            f"scanned is {arguments.described(scanned)}, but it must be the name of a module, or several names, as in "
            '("encoder/blocks", "decoder/blocks").'
        )
    return tuple(patterns)


def _lengths(leaves: Sequence[Any], patterns: tuple[str, ...], unboxed: Any) -> list[int | None]:
    """L of every leaf ``[m, L, *s]`` of stacked layers, and None for the other leaves."""
    lengths: list[int | None] = []
    found: dict[str, Any] = {}
    matched = set()
    for path, leaf in leaves:
        module, pattern = module_of(names_of(unboxed(path)), patterns)
        if module is None:
            lengths.append(None)
            continue
        matched.add(pattern)
        shape = jnp.shape(leaf)
        if len(shape) < 2:
            raise ValueError(
                f"leaf {leaf_name(path)} belongs to the scanned layers of {module}, but its shape {list(shape)} has no axis for "
                "the layers behind the endpoint axis."
            )
        first_path, length = found.setdefault(module, (path, shape[1]))
        if shape[1] != length:
            raise ValueError(
                f"the leaves of {module} are scanned, but leaf {leaf_name(first_path)} has {length} layers and leaf "
                f"{leaf_name(path)} of shape {list(shape)} has {shape[1]}. Layers that are stacked for a scan share the length of the axis "
                "behind the endpoint axis."
            )
        lengths.append(length)
    for pattern in patterns:
        if pattern not in matched:
            modules = dict.fromkeys("/".join(names_of(unboxed(path))[:-1]) for path, _ in leaves)
            raise ValueError(
                f"scanned names {pattern!r}, but there is no such module. The modules are {', '.join(filter(None, modules)) or 'none'}."
            )
    return lengths


def module_of(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str | None, str]:
    """The outermost module or leaf on a path that a pattern names, and the pattern: ``(None, "")`` without a match.

    Args:
      names: the names on the path.
      patterns: a name, which may have several parts with slashes between and the wildcards of a shell.

    Example:
      >>> module_of(("encoder", "blocks", "w"), ("head", "blocks"))
      ('encoder/blocks', 'blocks')
    """
    for end in range(1, len(names) + 1):
        module = "/".join(names[:end])
        for pattern in patterns:
            if fnmatch.fnmatchcase(module, pattern) or fnmatch.fnmatchcase(module, f"*/{pattern}"):
                return module, pattern
    return None, ""
