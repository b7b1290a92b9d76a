"""What may be a leaf of a network: a parameter, which is an array of floats and stands in one place.

A module of a framework holds more: running statistics, caches, keys, functions, and the same variable twice where weights
are tied. Running statistics are arrays of floats, too. As a part of the endpoints they would be interpolated, decayed by the
optimizer and never updated, and tied weights would part, all without an error. So they are refused. They are known by
their names or by their classes' names, because no framework is imported.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, axis_names
from jsubspace.types import Params

_STATE_OF_NNX = {"BatchStat", "Cache", "Intermediate", "Perturbation"}
"""Classes of Flax nnx's variables."""

_STATE_OF_LINEN = {"batch_stats", "cache", "intermediates", "perturbations"}
"""Collections of Flax linen beside the collection params."""

_STATE_OF_EQUINOX = "StateIndex"
"""The class that holds the first value of a layer's state in Equinox, until ``equinox.nn.make_with_state`` takes it out."""

_IN_NNX = "nnx.state(model, nnx.Param) in Flax nnx"
_IN_EQUINOX = "equinox.filter(model, equinox.is_inexact_array) in Equinox"

REMEDY = f"The parameters alone are {_IN_NNX} and {_IN_EQUINOX}."
"""Where a user of a framework finds the parameters without the rest."""

_NO_PARAMETER = "Such state belongs to one network and has no points between the endpoints."


def check_endpoints(endpoints: Any) -> None:
    """Checks that the endpoints hold nothing that a framework calls something else than a parameter.

    Raises:
      ValueError: if they do. The message names the leaf, and says how the parameters are taken without it.
    """
    if isinstance(endpoints, Mapping) and "params" in endpoints:
        for name in sorted(_STATE_OF_LINEN & {str(name) for name in endpoints}):
            raise ValueError(
                f"the tree holds linen's collection {name!r} beside 'params'. {_NO_PARAMETER} The parameters alone are "
                'variables["params"].'
            )
    for path, node in jax.tree_util.tree_leaves_with_path(endpoints, is_leaf=_is_state):
        if _is_state(node):
            remedy = (
                _IN_NNX if axis_names.is_box(node) else f"{_IN_EQUINOX}, of a model from equinox.nn.make_with_state"
            )
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)} is a {type(node).__name__} and no parameter. {_NO_PARAMETER} The "
                f"parameters alone are {remedy}."
            )


def check_network(network: Params) -> None:
    """Checks that the leaves of a network are arrays or numbers, and that no variable stands in two places.

    Raises:
      ValueError: if a leaf is something else, or if a module of nnx with tied weights was given as a tree of its own.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(network):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex | np.generic):
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)} is a {type(leaf).__name__} and no array. A network is a tree of arrays. {REMEDY}"
            )
    places: dict[int, str] = {}
    for path, node in jax.tree_util.tree_leaves_with_path(network, is_leaf=axis_names.is_box):
        place = jax.tree_util.keystr(path)
        if axis_names.is_box(node) and places.setdefault(id(node), place) != place:
            raise ValueError(
                f"leaves {places[id(node)]} and {place} are one variable. In a tree they are two, and training would part them. "
                f"A tied weight is one leaf of {_IN_NNX}."
            )


def checked(init_fn: Callable[[jax.Array], Params]) -> Callable[[jax.Array], Params]:
    """``init_fn`` with a check of the network that it returns (`check_network`)."""

    def init(key: jax.Array) -> Params:
        network = init_fn(key)
        if not jax.tree.leaves(network):
            raise ValueError(
                f"init_fn returned {arguments.described(network)}, but it must return a network, a tree of arrays."
            )
        check_network(network)
        return network

    return init


def are_finite(leaves: Sequence[Any]) -> list[bool]:
    """Whether all numbers of each array are finite. Each array is read once, where it lies. They must not be traced."""
    with jax.ensure_compile_time_eval():  # Arrays may be constants of a program that is traced.
        found = [_is_finite(leaf) if isinstance(leaf, jax.Array) else np.isfinite(leaf).all() for leaf in leaves]
    return [bool(is_finite) for is_finite in jax.device_get(found)]


@jax.jit
def _is_finite(leaf: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(leaf))


def _is_state(node: Any) -> bool:
    names = {cls.__name__ for cls in type(node).__mro__}
    if axis_names.is_box(node):
        return not names.isdisjoint(_STATE_OF_NNX)
    return _STATE_OF_EQUINOX in names and bool(jax.tree.leaves(node))
