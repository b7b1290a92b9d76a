"""The permutations of units that do not change what a network computes.

The units of a hidden layer have no order. If the columns of one kernel, the rows of the next and the biases between them are
permuted alike, the network computes the same function. Two networks that were trained independently have their units in
different orders, and their average is meaningless before one of them is permuted (Entezari et al., 2022).
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, leaf_kinds
from jsubspace.errors import UsageError
from jsubspace.merging import labels, tracing
from jsubspace.types import Params

_CALL = "symmetries(function, network, *batch)"

_SHOWN = 4
"""Axes that a line of the table names."""

Axis = tuple[tuple[str | None, int], ...]
"""The factors of an axis, from the slowest to the fastest: the name of the units, or None for a fixed order, and their number."""


@dataclasses.dataclass(frozen=True)
class Symmetries:
    """The axes of leaves that are permuted together.

    `symmetries` finds them. They can also be written by hand: ``{"hidden/kernel": ((None, 8),), (("a", 5),)), ...}``.

    Attributes:
      axes: for every leaf, by its names with slashes between, the factors of each axis. An axis has several factors if it
        enumerates several things, as pixels times channels behind a flattening. Axes of length 1 have no factor.
      unknown: the names of jax's operations that are not understood. The axes that they touch keep their order.

    Example:
      >>> def apply(point, x):
      ...     return jax.nn.relu(x @ point["hidden"]["kernel"]) @ point["head"]["kernel"]
      >>> network = {"hidden": {"kernel": jnp.ones((8, 5))}, "head": {"kernel": jnp.ones((5, 3))}}
      >>> print(symmetries(apply, network, jnp.ones((2, 8))).table())
      units                number  leaves
      head/kernel[0]            5  head/kernel[0], hidden/kernel[1]
    """

    axes: Mapping[str, tuple[Axis, ...]]
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths: dict[str, int] = {}
        for leaf, axes in self.axes.items():
            for name, length in (factor for axis in axes for factor in axis if factor[0] is not None):
                if lengths.setdefault(str(name), length) != length:
                    raise UsageError(
                        f"Symmetries: leaf {leaf} has {length} units of {name!r}, and another leaf has {lengths[str(name)]}. Axes "
                        "that are permuted together have the same number of units."
                    )
        object.__setattr__(self, "axes", types.MappingProxyType(dict(self.axes)))

    @property
    def lengths(self) -> dict[str, int]:
        """The number of units by their name."""
        found = (factor for axes in self.axes.values() for axis in axes for factor in axis)
        return {name: length for name, length in found if name is not None}

    def table(self) -> str:
        """The units with the axes that enumerate them, for a terminal."""
        lines = [f"{'units':<20} {'number':>6}  leaves"]
        for name, length in self.lengths.items():
            places = [
                f"{leaf}[{i}]"
                for leaf, axes in self.axes.items()
                for i, axis in enumerate(axes)
                if name in [factor for factor, _ in axis]
            ]
            more = f", and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
            lines.append(f"{name:<20} {length:>6}  {', '.join(places[:_SHOWN])}{more}")
        if self.unknown:
            lines.append(f"Axes that these operations touch keep their order: {', '.join(self.unknown)}.")
        return "\n".join(lines)


def symmetries(function: Callable[..., Any], network: Params, *batch: Any, **free: Any) -> Symmetries:
    """Which units of a network may be permuted, found by following the units through the program of a function.

    Dense layers, convolutions, normalisation, residual connections, pooling, flattening, embeddings and attention are
    followed. An operation that is not known fixes the axes that it touches. Layers that are stacked for a scan are permuted
    alike. Only shapes are read, and nothing is computed.

    Args:
      function: ``(network, *batch) -> outputs``, for example log_prob_fn or a forward pass in evaluation mode. The order of its
        outputs is kept.
      network: leaves ``[*s]``.
      batch: the arrays of one batch, or their shapes and dtypes.
      free: further trees of arrays that follow the units of the network, by the name of their argument. BatchNorm statistics are
        such a tree.

    Returns:
      The symmetries of the network's leaves.

    Raises:
      ValueError: if an argument is of a wrong kind.

    References:
      Ainsworth, Hayase and Srinivasa, Git Re-Basin, 2023, section 3, where they are written by hand.
    """
    arguments.function("symmetries: function", function, "(network, *batch) -> outputs", _CALL)
    arguments.check_arrays("network", network, "one network", _CALL)

    def of_leaves(network: Params, free: Mapping[str, Any], *batch: Any) -> Any:
        return function(network, *batch, **free)

    program = jax.make_jaxpr(of_leaves)(network, free, *batch)
    if not program.out_avals:
        raise ValueError(
            f"symmetries: the function returned no array. Like log_prob_fn, it must return outputs of the network.{arguments.order(_CALL)}"
        )
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(part)] for part in (network, free, batch)]
    followed = [labels.of_shape(shape) for shape in (*shapes[0], *shapes[1])]
    given = [labels.of_shape(shape, fixed=True) for shape in shapes[2]]
    unknown: set[str] = set()
    for result in tracing.follow(program, [*followed, *given], unknown):
        labels.fix(*result)
    names: dict[int, str] = {}
    found: dict[str, tuple[Axis, ...]] = {}
    for leaf, axes in zip(leaf_names(network), followed, strict=False):
        found[leaf] = tuple(_named(label, f"{leaf}[{i}]", names) for i, label in enumerate(axes))
    return Symmetries(found, tuple(sorted(unknown)))


def leaf_names(network: Params) -> list[str]:
    """The names of all leaves, as `Symmetries` has them: ``hidden/kernel``."""
    unboxed = leaf_kinds.without_boxes(network)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(network)]
    return ["/".join(leaf_kinds.names_of(unboxed(path))) for path in paths]


def permuted(network: Params, found: Symmetries, permutations: Mapping[str, np.ndarray]) -> Params:
    """The network with its units in another order. It computes the same function.

    Args:
      network: leaves ``[*s]``.
      found: which axes are permuted together.
      permutations: for some or all units an array of integers ``[n]``. Unit k of the result is unit ``permutation[k]`` of the network.

    Returns:
      A network like the first, divided among devices as the first is.

    Raises:
      UsageError: if the symmetries belong to another network, there are no such units, or an array is no permutation.

    Example:
      >>> network = {"a": jnp.arange(3.0), "b": jnp.arange(3.0)}
      >>> found = Symmetries({"a": ((("units", 3),),), "b": (((None, 3),),)})
      >>> permuted(network, found, {"units": np.array([2, 0, 1])})["a"].tolist()
      [2.0, 0.0, 1.0]
    """
    check_fit(network, found, "permuted(network, symmetries, permutations)")
    if not isinstance(permutations, Mapping):
        raise UsageError(
            f"permuted: permutations is {arguments.described(permutations)}, but it must be a dictionary with an array of integers by "
            "the name of the units."
        )
    lengths = found.lengths
    for name, order in permutations.items():
        if name not in lengths:
            raise UsageError(
                f"permuted: permutations names {name!r}, but there are no such units. The units are {', '.join(lengths)}."
            )
        given = np.asarray(order)
        if given.dtype.kind not in "iu" or sorted(given.ravel().tolist()) != list(range(lengths[name])):
            raise UsageError(f"permuted: the array for {name!r} is no permutation of 0, ..., {lengths[name] - 1}.")

    def of_leaf(leaf: Any, axes: tuple[Axis, ...]) -> Any:
        factors = [factor for axis in axes for factor in axis]
        if not any(name in permutations for name, _ in factors):
            return leaf
        made = np.reshape(np.asarray(leaf), [length for _, length in factors])
        for i, (name, _) in enumerate(factors):
            if name is not None and name in permutations:
                made = np.take(made, permutations[name], axis=i)
        made = np.reshape(made, np.shape(leaf))
        return jax.device_put(made, leaf.sharding) if isinstance(leaf, jax.Array) else made

    leaves, structure = jax.tree.flatten(network)
    return jax.tree.unflatten(structure, map(of_leaf, leaves, found.axes.values()))


def check_fit(network: Params, found: Symmetries, call: str) -> None:
    """Raises a UsageError if the symmetries have other leaves than the network, or leaves of other shapes.

    ``call`` shows the order of the arguments in a message.
    """
    if not isinstance(found, Symmetries):
        raise UsageError(f"the symmetries are {arguments.described(found)}. They come from jsubspace.merging.{_CALL}.")
    arguments.check_arrays("network", network, "one network", call)
    names = leaf_names(network)
    if names != list(found.axes):
        differing = sorted({*names} ^ {*found.axes}) or ["the order of the leaves"]
        raise UsageError(
            f"the symmetries belong to another network than the one that was given: {differing[0]} is in one of them alone."
        )
    for leaf, (name, axes) in zip(jax.tree.leaves(network), found.axes.items(), strict=True):
        shape = tuple(int(np.prod([length for _, length in axis])) for axis in axes)
        if shape != jnp.shape(leaf):
            raise UsageError(
                f"leaf {name} has the shape {list(jnp.shape(leaf))}, but in the symmetries it is {list(shape)}. Find them again from "
                "a network of this width."
            )


def _named(label: labels.Label, place: str, names: dict[int, str]) -> Axis:
    """The factors of an axis by name. Units are named after the first place where they are found."""
    made: list[tuple[str | None, int]] = []
    for factor in labels.resolved(label):
        if factor.fixed and made and made[-1][0] is None:
            made[-1] = (None, made[-1][1] * factor.length)
        elif factor.fixed:
            made.append((None, factor.length))
        else:
            taken = {*names.values()}
            fallback = place if place not in taken else f"{place}.{len(taken)}"
            made.append((names.setdefault(id(factor), fallback), factor.length))
    return tuple(made)
