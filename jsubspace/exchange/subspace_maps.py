"""The map from alpha to weights as JSON: the class of a subspace with its parameters, and positions with their weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments
from jsubspace.errors import UsageError
from jsubspace.storage.schema import ANYTHING, Listed, Mismatch, Named, Number, Record, Text, Whole
from jsubspace.subspaces import Chain, Curve, Line, Point, Simplex, Subspace

CLASSES: Mapping[str, Any] = {kind.__name__: kind for kind in (Point, Line, Curve, Chain, Simplex)}
"""The subspaces that a reader of the file knows. Another class is known by its full name alone."""

_SHOWN = 5
"""The number of positions along each axis of the grid that are written with their weights."""

SCHEMA = Record(
    {
        "class": Text(),
        "parameters": Named(Whole(1)),
        "num_endpoints": Whole(1),
        "alpha_shape": Listed(Whole(0), most=8),
        "positions": Listed(Record({"name": Text(), "alpha": ANYTHING, "weights": Listed(Number())}), 1),
    }
)


def to_json(subspace: Subspace) -> dict[str, Any]:
    """What a file says of a subspace. The first of its positions is the center.

    Example:
      >>> to_json(Curve())["parameters"], to_json(Curve())["positions"][0]
      ({'num_bends': 1}, {'name': 'center', 'alpha': 0.5, 'weights': [0.25, 0.25, 0.5]})
    """
    kind: Any = type(subspace)
    is_ours = CLASSES.get(kind.__name__) is kind
    alphas = [("center", subspace.center), *(("end", end) for end in subspace.ends)]
    alphas += [("grid", alpha) for alpha in np.asarray(subspace.grid(_SHOWN))]
    return {
        "class": kind.__name__ if is_ours else f"{kind.__module__}.{kind.__qualname__}",
        "parameters": {field.name: getattr(subspace, field.name) for field in dataclasses.fields(kind)}
        if is_ours
        else {},
        "num_endpoints": int(subspace.num_endpoints),
        "alpha_shape": [int(size) for size in subspace.alpha_shape],
        "positions": [
            {
                "name": name,
                "alpha": np.asarray(alpha, np.float64).tolist(),
                "weights": _weights(subspace, alpha).tolist(),
            }
            for name, alpha in alphas
        ],
    }


def from_json(content: Mapping[str, Any], given: Subspace | None, place: str) -> Subspace:
    """The subspace that `to_json` has written.

    Args:
      content: of the schema `SCHEMA`.
      given: the subspace that the caller expects. It is needed for a class that is not the library's.
      place: the folder, for a message.

    Raises:
      UsageError: if the class is not the library's and no subspace was given, or another one was given.
      ValueError: if the content is damaged.
    """
    name = content["class"]
    if given is not None:
        arguments.subspace(given)
        if not _fits(content, given):
            raise UsageError(
                f"{place} holds the subspace {described(content)}, but subspace= is {given!r}, which gives other weights to its "
                f"{given.num_endpoints} endpoints. Pass the subspace that was saved."
            )
        return given
    if name not in CLASSES:
        raise UsageError(
            f"{place} holds a subspace of the class {name}, which is not one of this library. Import the class, and pass an "
            f"instance: load_subspace(folder, subspace={name.rpartition('.')[2]}()). A file runs no code."
        )
    try:
        made: Subspace = CLASSES[name](**content["parameters"])
    except TypeError as error:
        raise Mismatch(f"the parameters of {name} are {content['parameters']}") from error
    if not _fits(content, made):
        raise Mismatch(f"its positions are not those positions that {made!r} has")
    return made


def described(content: Mapping[str, Any]) -> str:
    """The subspace in words, as ``Curve(num_bends=1)``."""
    inside = ", ".join(f"{name}={value}" for name, value in content["parameters"].items())
    return f"{content['class']}({inside})"


def _fits(content: Mapping[str, Any], subspace: Subspace) -> bool:
    """Whether the subspace has the number of endpoints, the shape of alpha and the weights that were written."""
    if (content["num_endpoints"], tuple(content["alpha_shape"])) != (
        subspace.num_endpoints,
        tuple(subspace.alpha_shape),
    ):
        return False
    for position in content["positions"]:
        try:
            alpha = np.asarray(position["alpha"], np.float64)
        except (TypeError, ValueError):
            return False
        if alpha.shape != tuple(subspace.alpha_shape) or len(position["weights"]) != subspace.num_endpoints:
            return False
        if not np.allclose(_weights(subspace, alpha), position["weights"], atol=1e-5):
            return False
    return np.allclose(np.asarray(subspace.center), content["positions"][0]["alpha"], atol=1e-6)


def _weights(subspace: Subspace, alpha: Any) -> np.ndarray:
    """The weights ``[m]`` of a position in float32, as the library computes them."""
    with jax.ensure_compile_time_eval():
        return np.asarray(subspace.coefficients(jnp.asarray(np.asarray(alpha), jnp.float32)))
