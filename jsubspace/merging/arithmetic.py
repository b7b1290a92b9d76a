"""Merges by formula, without data: task arithmetic and spherical interpolation."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, tree
from jsubspace.errors import UsageError
from jsubspace.merging import networks as given
from jsubspace.merging.angles import angles
from jsubspace.merging.parts import By, parts_of
from jsubspace.types import Params

_NEARLY_ONE = 1e-6
"""Sines below this are not divided by: the angle is 0 or 180 degrees."""


def task_arithmetic(origin: Params, networks: Any, scale: Any = 1.0) -> Params:
    """The network theta_0 + sum_i lambda_i (theta_i - theta_0): the pretrained network plus scaled task vectors.

    It is the point of a simplex with the weights lambda_i of the networks and 1 - sum_i lambda_i of the origin. A negative
    lambda makes the network forget a task.

    Args:
      origin: the pretrained network, leaves ``[*s]``.
      networks: networks that were fine-tuned from it, a list or a dictionary by name. One is enough.
      scale: lambda, one number for all networks, or one number per network in their order or by their names.

    Returns:
      One network with leaves ``[*s]``, in the dtypes of the networks. It is computed in float32 or wider.

    Raises:
      UsageError: if the networks do not fit each other or the origin (`networks.checked`), or scale is no such numbers.

    Example:
      >>> origin, network = {"w": jnp.ones(2)}, {"w": jnp.array([2.0, 1.0])}
      >>> task_arithmetic(origin, [network], scale=0.5)["w"].tolist()
      [1.5, 1.0]

    References:
      Ilharco et al., Editing models with task arithmetic, 2023.
    """
    found = given.checked(networks, "task_arithmetic", "task_arithmetic(origin, networks, scale)", fewest=1)
    start = given.checked_one(origin, found, "the origin", "task_arithmetic")
    scales = _scales(scale, found.names)
    weights = np.concatenate([[1 - scales.sum()], scales])
    return _contracted(given.Networks(("origin", *found.names), (start, *found.points)), [weights] * _leaves(start))


def slerp(network: Params, other: Params, alpha: float = 0.5, by: By = None) -> Params:
    """The network on the arc from one network to another, with the weights

        sin((1 - alpha) w) / sin w   and   sin(alpha w) / sin w,   where w is the angle between the two.

    Networks of one norm keep this norm, and the weights then sum to more than 1. At alpha = 0 it is the first network, at
    alpha = 1 the other. Where w is 0 or a network is all zeros, the arc is the line.

    Args:
      network, other: leaves ``[*s]``.
      alpha: the position on the arc, in [0, 1].
      by: None for one angle, or what has angles of its own (`parts.parts_of`). With "leaf", the angles are of arrays.

    Returns:
      One network with leaves ``[*s]``, in the dtypes of the networks. It is computed in float32 or wider.

    Raises:
      UsageError: if the networks do not fit each other (`networks.checked`), alpha is no number in [0, 1], or the two networks
        point in opposite directions.

    Example:
      >>> slerp({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 1.0])})["w"]
      Array([0.70710677, 0.70710677], dtype=float32)

    References:
      Shoemake, Animating rotation with quaternion curves, 1985.
    """
    found = given.checked([network, other], "slerp", "slerp(network, other, alpha)")
    if not _are_numbers([alpha]) or not 0 <= float(alpha) <= 1:
        raise UsageError(f"slerp: alpha is {arguments.described(alpha)}, but it must be a number from 0 to 1.")
    alpha = float(alpha)  # 1 - alpha in 16 bits would be rounded.
    endpoints = found.stacked()
    parts = parts_of(endpoints, by, "slerp")
    cosines, norms = angles(endpoints, parts)
    rows = np.empty((len(parts.names), 2))
    for i, name in enumerate(parts.names):
        cosine = cosines[i, 0, 1] if norms[i].all() else 1.0
        angle, sine = np.arccos(cosine), np.sin(np.arccos(cosine))
        if sine < _NEARLY_ONE and cosine < 0:
            raise UsageError(
                f"slerp: the two networks point in opposite directions in part {name or 'top'!r}, and every arc between them is as "
                "short. Use jsubspace.interpolate."
            )
        ends = np.array([1 - alpha, alpha], np.float64)
        rows[i] = ends if sine < _NEARLY_ONE else np.sin(ends * angle) / sine
    if parts.is_whole:
        return _contracted(found, [rows[0]] * _leaves(network))
    return _contracted(
        found, [rows[first] if length is None else rows[first : first + length].T for first, length in parts.places]
    )


def _contracted(found: given.Networks, weights: list[np.ndarray]) -> Params:
    """The sum of the networks with weights ``[m]`` or ``[m, L]`` per leaf, computed in the networks' places."""
    endpoints = found.stacked()
    return jax.jit(tree.contract)(
        endpoints, jax.tree.unflatten(jax.tree.structure(endpoints), [jnp.asarray(each) for each in weights])
    )


def _leaves(network: Params) -> int:
    return len(jax.tree.leaves(network))


def _are_numbers(values: Any) -> bool:
    return all(arguments.are_real_numbers(value) and np.shape(value) == () for value in values)


def _scales(scale: Any, names: tuple[str, ...]) -> np.ndarray:
    """lambda of every network, float64."""
    values = scale
    if isinstance(scale, Mapping) and set(scale) == set(names):
        values = [scale[name] for name in names]
    elif _are_numbers([scale]):
        values = [scale] * len(names)
    is_row = isinstance(values, list | tuple) or getattr(values, "ndim", 0) == 1
    if (
        not is_row
        or len(values) != len(names)
        or not _are_numbers(values)
        or not np.isfinite(np.asarray(values, np.float64)).all()
    ):
        raise UsageError(
            f"task_arithmetic: scale is {arguments.described(scale)}, but it must be one finite number, or one per network "
            f"({', '.join(names)})."
        )
    return np.asarray(values, np.float64)
