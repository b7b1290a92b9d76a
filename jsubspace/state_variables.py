"""What a framework keeps in a network beside its parameters: running statistics, caches, and values that were recorded.

Such a variable may be an array of floats like a parameter. As a part of the endpoints it would be interpolated, decayed
by the optimizer and never updated, without an error. So it is refused. It is known by its name or by its class's name,
because no framework is imported.
"""

from collections.abc import Mapping
from typing import Any

import jax

from jsubspace import axis_names

_OF_NNX = {"BatchStat", "Cache", "Intermediate", "Perturbation"}
"""Classes of Flax nnx's variables."""

_OF_LINEN = {"batch_stats", "cache", "intermediates", "perturbations"}
"""Collections of Flax linen beside the collection params."""

_OF_EQUINOX = "StateIndex"
"""The class that holds the first value of a layer's state in Equinox, until ``equinox.nn.make_with_state`` takes it out."""

_IN_NNX = "nnx.state(model, nnx.Param) in Flax nnx"
_IN_EQUINOX = "equinox.filter(model, equinox.is_inexact_array) in Equinox"

REMEDY = f"The parameters alone are {_IN_NNX} and {_IN_EQUINOX}."
"""Where a user of a framework finds the parameters without the rest."""


def check(endpoints: Any) -> None:
    """Checks that nothing in the endpoints is a variable that its framework calls something else than a parameter.

    Raises:
      ValueError: if there is one. The message names it, and says how the parameters are taken without it.
    """
    if isinstance(endpoints, Mapping) and "params" in endpoints:
        for name in sorted(_OF_LINEN & {str(name) for name in endpoints}):
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


_NO_PARAMETER = "Such state belongs to one network and has no points between the endpoints."


def _is_state(node: Any) -> bool:
    names = {cls.__name__ for cls in type(node).__mro__}
    if axis_names.is_box(node):
        return not names.isdisjoint(_OF_NNX)
    return _OF_EQUINOX in names and bool(jax.tree.leaves(node))
