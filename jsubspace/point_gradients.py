"""The gradient of the task loss at one point, and what is done to it before it is pulled back to the endpoints."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import arguments, leaf_kinds, tree
from jsubspace.shares import Shares
from jsubspace.types import Alpha, Params

LossFn = Callable[..., Any]
"""``(point, *args, **kwargs) -> loss`` or ``(loss, aux)``. With pass_alpha, alpha follows the point."""

PointFn = Callable[[Params], Params]
"""From the gradient at a point, the mean over all devices with leaves ``[*s]``, to the gradient that is pulled back."""


def task_gradient(loss_fn: LossFn, has_aux: bool, pass_alpha: bool) -> Callable[..., Any]:
    """``(point, alpha, *args, **kwargs) -> ((loss, aux), grad)``, for a loss with or without aux and alpha."""

    def loss_and_aux(point: Params, alpha: Alpha, /, *args: Any, **kwargs: Any) -> tuple[jax.Array, Any]:
        given = (point, alpha, *args) if pass_alpha else (point, *args)
        try:
            result = loss_fn(*given, **kwargs)
        except TypeError:
            _check_signature(loss_fn, given, kwargs, pass_alpha)
            raise
        loss, aux = _pair(result) if has_aux else (result, None)
        _check_loss(loss, has_aux)
        return loss, aux

    return jax.value_and_grad(loss_and_aux, has_aux=True)


def _check_signature(loss_fn: LossFn, args: tuple[Any, ...], kwargs: dict[str, Any], pass_alpha: bool) -> None:
    """Raises a ValueError if the loss function does not take these arguments."""
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):  # Some builtin functions have no signature.
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        first = "the point and alpha, because of pass_alpha=True," if pass_alpha else "the point"
        names = f" and the keywords {', '.join(kwargs)}" if kwargs else ""
        raise ValueError(
            f"the loss function takes {signature}, but it was called with {first} and {len(args) - 1 - pass_alpha} more positional "
            f"arguments{names}: {error}. All arguments of grad_fn after the endpoints are the loss function's."
        ) from error


def _pair(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError(
            f"has_aux is True, so the loss function must return (loss, aux), but it returned {arguments.described(result)}. Return "
            "a pair, or leave has_aux out."
        )
    loss, aux = result
    return loss, aux


def _check_loss(loss: Any, has_aux: bool) -> None:
    """Raises a ValueError if the loss is not one real number. Its value may be anything, also NaN."""
    is_number = isinstance(loss, float) or (hasattr(loss, "shape") and hasattr(loss, "dtype"))
    if is_number and jnp.shape(loss) == () and jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        return
    if isinstance(loss, tuple | list) and not has_aux:
        hint = "If it returns (loss, aux), pass has_aux=True."
    elif is_number and jnp.shape(loss) != ():
        hint = "Return the mean over examples, as in jnp.mean(loss)."
    else:
        hint = "Return a real number that depends on the network. Integers and complex numbers have no gradient here."
    raise ValueError(
        f"the loss function returned {arguments.described(loss)}{' as its loss' if has_aux else ''}, but a loss is one number of a "
        f"floating-point dtype, a scalar. {hint}"
    )


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
            f"at_point returned the structure of another network than the gradient: {tree.difference(result, grad)}. Return a "
            "gradient of the same network."
        )
    for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(grad), strict=True):
        if jnp.shape(new) != old.shape:
            raise ValueError(
                f"at_point returned leaf {jax.tree_util.keystr(path)} of shape {list(jnp.shape(new))}, but the gradient's leaf "
                f"has the shape {list(old.shape)}. Return a gradient of the same network."
            )
    return jax.tree.map(lambda old, new: jnp.asarray(new).astype(old.dtype), grad, tree.conformed(result, grad))
