"""The gradient of the task loss at one point, and what is done to it before it is pulled back to the endpoints."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import leaf_kinds, tree
from jsubspace.shares import Shares
from jsubspace.types import Alpha, Params

LossFn = Callable[..., Any]
"""``(point, *args, **kwargs) -> loss`` or ``(loss, aux)``. With pass_alpha, alpha follows the point."""

PointFn = Callable[[Params], Params]
"""From the gradient at a point, the mean over all devices with leaves ``[*s]``, to the gradient that is pulled back."""


def task_gradient(loss_fn: LossFn, has_aux: bool, pass_alpha: bool) -> Callable[..., Any]:
    """``(point, alpha, *args, **kwargs) -> ((loss, aux), grad)``, for a loss with or without aux and alpha."""

    def loss_and_aux(point: Params, alpha: Alpha, /, *args: Any, **kwargs: Any) -> tuple[jax.Array, Any]:
        result = loss_fn(point, *((alpha,) if pass_alpha else ()), *args, **kwargs)
        return result if has_aux else (result, None)

    return jax.value_and_grad(loss_and_aux, has_aux=True)


def uphill(point: Params, grad: Params, rho: float | jax.Array, shares: Shares) -> Params:
    """theta + rho g / |g|, where sharpness-aware minimisation takes its gradient (Foret et al., 2021).

    The norm is taken over the whole network. The result is the point itself if g is zero, and NaN if g is not finite.

    Args:
      point: theta, leaves ``[*s]``, or this device's share of them.
      grad: this device's gradient, whole. g is the mean over devices, and it has the direction of their sum.
      rho: the length of the step.
      shares: how the networks lie on the devices.
    """
    total = shares.scatter(grad)
    # The gradient is scaled by its largest entry first, because the squares of small entries would vanish.
    largest = shares.largest_entry(total)
    scaled = jax.tree.map(lambda leaf: leaf.astype(largest.dtype) / jnp.where(largest != 0, largest, 1), total)
    norm = jnp.sqrt(shares.gram([scaled], leaf_kinds.all_leaves(scaled))[0, 0])
    length = jax.lax.convert_element_type(rho, norm.dtype) / jnp.where(norm != 0, norm, 1)
    return jax.tree.map(lambda leaf, g: (leaf.astype(g.dtype) + length * g).astype(leaf.dtype), point, scaled)


def transformed(at_point: PointFn, grad: Params) -> Params:
    """``at_point(grad)``, in the dtypes of ``grad``.

    Raises:
      ValueError: if the result differs from ``grad`` in structure or in the shape of a leaf.
    """
    result = at_point(grad)
    if not tree.same_structure(result, grad):
        raise ValueError(
            f"at_point returned the structure {jax.tree.structure(result)}, but the gradient has {jax.tree.structure(grad)}. "
            "Return a gradient of the same network."
        )
    for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(grad), strict=True):
        if jnp.shape(new) != old.shape:
            raise ValueError(
                f"at_point returned leaf {jax.tree_util.keystr(path)} of shape {list(jnp.shape(new))}, but the gradient's leaf "
                f"has the shape {list(old.shape)}. Return a gradient of the same network."
            )
    return jax.tree.map(lambda old, new: jnp.asarray(new).astype(old.dtype), grad, tree.conformed(result, grad))
