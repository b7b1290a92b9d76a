"""Positions in a subspace: drawn at random, and turned into weights of the endpoints."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, layer_names, tree
from jsubspace.layer_names import ScannedLayers
from jsubspace.subspaces import Line, Simplex, Subspace
from jsubspace.types import Alpha, Endpoints, LayerNames

_CALL = "sample_alpha(key, subspace, layers, num_samples)"


def sample_alpha(
    key: jax.Array, subspace: Subspace, layers: LayerNames | None = None, num_samples: int | None = None
) -> Alpha:
    """Draws alpha uniformly from the subspace's domain.

    Args:
      key: a PRNG key.
      subspace: the subspace to draw from.
      layers: for layerwise training, the name of every leaf's layer (`jsubspace.layers`, or a tree of your
        own). Each layer gets its own draw, and the leaves of a layer share it. L layers that are stacked for a scan get L draws.
      num_samples: S, at least 1, to draw S independent positions for S parts of a batch (appendix B).

    Returns:
      alpha, ``[*subspace.alpha_shape]``, or a tree of them like ``layers``. The array of stacked layers is
      ``[L, *subspace.alpha_shape]``. With num_samples, each array has a leading axis ``[S]``.

    Raises:
      ValueError: if an argument is of a wrong kind, or num_samples is less than 1.

    Example:
      >>> sample_alpha(jax.random.key(0), Simplex(3)).shape
      (3,)
    """
    arguments.key("key", key, _CALL)
    arguments.subspace(subspace, _CALL)
    leading = () if num_samples is None else (arguments.count("sample_alpha: num_samples", num_samples, 1),)
    if layers is None:
        return subspace.sample(key, leading)
    layer_names.check_layers("layers", layers, call=_CALL)
    names = list(dict.fromkeys(jax.tree.leaves(layers)))
    counts = [name.length if isinstance(name, ScannedLayers) else 1 for name in names]
    drawn = subspace.sample(key, (sum(counts), *leading))
    draws = {}
    for name, count, end in zip(names, counts, itertools.accumulate(counts), strict=True):
        is_scanned = isinstance(name, ScannedLayers)
        draws[name] = jnp.moveaxis(drawn[end - count : end], 0, len(leading)) if is_scanned else drawn[end - 1]
    return jax.tree.map(lambda name: draws[name], layers)


def coefficients(endpoints: Endpoints, alpha: Alpha, subspace: Subspace | None = None, call: str = "") -> Any:
    """The weights c(alpha) of the endpoints: ``[m]``, or a tree of them for a layerwise alpha. See `jsubspace.interpolate`.

    In a layerwise alpha, a leaf ``[m, L, *s]`` of stacked layers may have ``[L, *alpha_shape]``. Its weights are ``[m, L]``.
    ``call`` shows the order of the arguments in a message.
    """
    m = num_endpoints(endpoints, subspace, call)
    if _is_layerwise(alpha, endpoints, m, subspace):
        return _of_leaves(alpha, endpoints, m, subspace)
    if jax.tree_util.all_leaves([alpha]) or arguments.are_real_numbers(alpha):
        return _coefficients(_as_array(alpha), m, subspace)
    raise ValueError(
        f"alpha is {arguments.described(alpha)}. It must be an array, or for layerwise positions a tree like the endpoints with one "
        f"alpha per leaf (see jsubspace.sample_alpha), but {tree.difference(alpha, endpoints)}.{arguments.order(call)}"
    )


def num_endpoints(endpoints: Endpoints, subspace: Subspace | None = None, call: str = "") -> int:
    """m of the endpoints, which ``subspace`` has too. ``call`` shows the order of the arguments in a message.

    Raises:
      ValueError: if the endpoints are no stacked networks, or the subspace has another m.
    """
    m = tree.num_endpoints(endpoints, call)
    if subspace is not None and arguments.subspace(subspace, call).num_endpoints != m:
        raise ValueError(
            f"{subspace} has {subspace.num_endpoints} endpoints but the parameters have {m} (the length of their leading axis)."
            f"{arguments.order(call)}"
        )
    return m


def _is_layerwise(alpha: Alpha, endpoints: Endpoints, m: int, subspace: Subspace | None) -> bool:
    """Whether alpha holds one position per leaf. A list of numbers may also be one position: the weights of the endpoints."""
    if not tree.same_structure(alpha, endpoints):
        return False
    leaves = jax.tree.leaves(alpha)
    if not isinstance(alpha, list | tuple) or len(leaves) != m or any(jnp.ndim(leaf) for leaf in leaves):
        return True
    if subspace is None:
        raise ValueError(
            f"alpha is a {type(alpha).__name__} of {m} numbers, and the endpoints have {m} leaves. It may hold one position per "
            f"leaf or one weight per endpoint. Name the subspace, as in jsubspace.interpolate(endpoints, alpha, Simplex({m}))."
        )
    return subspace.alpha_shape == ()


def _of_leaves(alpha: Alpha, endpoints: Endpoints, m: int, subspace: Subspace | None) -> Any:
    """The weights of every leaf, from a layerwise alpha."""
    positions = jax.tree.map(_as_array, alpha)
    if subspace is None:  # The position with the fewest axes is that of a single layer.
        subspace = _implied_subspace(min(jax.tree.leaves(positions), key=jnp.ndim), m)

    def of_leaf(path: tuple[Any, ...], position: jax.Array, leaf: jax.Array) -> jax.Array:
        is_scanned = position.ndim == len(subspace.alpha_shape) + 1
        if is_scanned and position.shape[:1] != jnp.shape(leaf)[1:2]:
            raise ValueError(
                f"alpha has the shape {list(position.shape)} for leaf {tree.leaf_name(path)} of shape {list(jnp.shape(leaf))}. "
                f"{subspace} takes {list(subspace.alpha_shape)}. With a position per stacked layer, the first axis of alpha is as "
                "long as the axis of layers behind the endpoint axis."
            )
        weights = _coefficients(position, m, subspace, leading=position.shape[:1] if is_scanned else ())
        return jnp.moveaxis(weights, -1, 0) if is_scanned else weights

    return jax.tree_util.tree_map_with_path(of_leaf, positions, tree.conformed(endpoints, positions))


def _coefficients(alpha: jax.Array, m: int, subspace: Subspace | None, leading: tuple[int, ...] = ()) -> jax.Array:
    subspace = _implied_subspace(alpha, m) if subspace is None else subspace
    if alpha.shape != (*leading, *subspace.alpha_shape):
        raise ValueError(f"alpha has shape {list(alpha.shape)} but {subspace} takes {list(subspace.alpha_shape)}.")
    weights = subspace.coefficients(jax.lax.convert_element_type(alpha, tree.accumulator(alpha.dtype)))
    if not isinstance(weights, jax.core.Tracer):  # Inside jit, the numbers are not known.
        for row in np.asarray(weights, np.float64).reshape(-1, m):
            check_sum(row, alpha.dtype, f"in {subspace}")
    return weights


def check_sum(weights: np.ndarray, dtype: Any, where: str) -> None:
    """Refuses weights of endpoints that do not sum to 1, as far as positions of this dtype tell.

    Raises:
      ValueError: if the weights do not sum to 1. The message says ``where``.
    """
    total = float(weights.sum())
    # bfloat16 has two digits, and large weights of both signs cancel. A NaN is refused too.
    digits = 1e-2 if jnp.dtype(dtype).itemsize < 4 else 1e-5
    if not abs(total - 1) < digits + 1e-6 * np.abs(weights).sum():
        raise ValueError(
            f"the weights of the endpoints must sum to 1, but {where} the weights {weights.tolist()} sum to {total:g}. "
            "Divide them by their sum. (Weights below 0 or above 1 are allowed: they extrapolate.)"
        )


def _implied_subspace(alpha: jax.Array, m: int) -> Subspace:
    if alpha.shape == () and m == 2:
        return Line()
    if alpha.shape == (m,):
        return Simplex(m)
    raise ValueError(
        f"alpha of shape {list(alpha.shape)} does not say where in a subspace with {m} endpoints it lies: pass the weights of the "
        f"endpoints, of shape [{m}], or name the subspace, as in jsubspace.interpolate(endpoints, alpha, jsubspace.Curve())."
    )


def _as_array(alpha: Any) -> jax.Array:
    """alpha as an array of a definite floating-point dtype. A Python float has a weak type, which costs a second trace."""
    if not arguments.are_real_numbers(alpha):
        raise ValueError(f"alpha is {arguments.described(alpha)}, but a position is a number or an array of numbers.")
    array = jnp.asarray(alpha)
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.float32
    return jax.lax.convert_element_type(array, dtype)
