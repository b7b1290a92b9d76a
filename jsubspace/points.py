"""Points of a subspace: from endpoints and alpha to a network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, axis_names, centers, description, leaf_kinds, parameters, tree
from jsubspace.penalties import Mask
from jsubspace.subspaces import Line, Simplex, Subspace
from jsubspace.types import Alpha, Endpoints, LayerNames, Params

_INIT = "init_endpoints(key, init_fn, subspace)"
_INTERPOLATE = "interpolate(endpoints, alpha, subspace)"
_SAMPLE = "sample_alpha(key, subspace, layers, num_samples)"

ENDPOINT, NETWORK = "endpoint", "network"
"""The networks that have the scale of an initialisation: each endpoint, or the center."""

_NEW_NAMES = {
    "num_endpoints": "subspace, the third argument, which may be a number",
}


def init_endpoints(
    key: jax.Array,
    init_fn: Callable[[jax.Array], Params],
    subspace: Subspace | int,
    common_start: bool = False,
    shared: Mask = None,
    center_scale: str = ENDPOINT,
    **renamed: Any,
) -> Endpoints:
    """m freshly initialised networks, stacked: the start of Algorithm 1.

    Args:
      key: a PRNG key of any implementation. Endpoint i is ``init_fn(jax.random.split(key, m)[i])``.
      init_fn: key -> network, leaves ``[*s]``. It is a pure function that returns arrays only, because it is vmapped. For
        keys of another implementation than threefry it is mapped in a loop, since their draws depend on vmap.
      subspace: the subspace that is to be trained, or its number of endpoints m, at least 1.
      common_start: whether all endpoints start from one and the same initialisation (appendix E of the paper). While all
        endpoints are equal, the penalty's gradient is zero, and only the alphas separate them.
      shared: the leaves that all endpoints share, as a tree of bools or a function ``endpoints -> tree``. They are trained, too:
        the gradient of a shared leaf is the gradient at the point. The penalty does not see it.
      center_scale: "endpoint" if each endpoint is an initialisation, as in the paper. The kernels of the center are then shorter
        by |c*| = sqrt(sum_i c*_i^2), which is 1/sqrt(m) on a simplex. With "network" all kernels are divided by |c*|, so that
        the center has the variance of an initialisation.
      renamed: refused. It catches the names that arguments had before.

    Returns:
      Endpoints with leaves ``[m, *s]``. A shared leaf is ``[1, *s]``, from the first endpoint.

    Raises:
      ValueError: if m < 1, a leaf is no parameter of a floating-point dtype (`parameters`), ``shared`` is no tree of bools like
        a network, every leaf is shared, or ``center_scale`` is no such word or is "network" with a common start.
      TypeError: for an unknown keyword.

    Warns:
      UserWarning: if networks that were drawn independently have a cos² that chance does not explain. Then the penalty
        probably counts leaves that start alike. `jsubspace.describe` shows them.

    Example:
      >>> init_fn = lambda key: {"kernel": jax.random.normal(key, (3, 4))}
      >>> init_endpoints(jax.random.key(0), init_fn, Line())["kernel"].shape
      (2, 3, 4)
      >>> init_fn = lambda key: {"kernel": jax.random.normal(key, (3, 4)), "bias": jnp.zeros(4)}
      >>> init_endpoints(jax.random.key(0), init_fn, Line(), shared={"kernel": False, "bias": True})["bias"].shape
      (1, 4)
    """
    for name in renamed:
        hint = f"; it is called {_NEW_NAMES[name]} now" if name in _NEW_NAMES else ""
        raise TypeError(f"init_endpoints has no argument {name}{hint}.")
    if isinstance(subspace, bool | int | float | np.generic):
        m = arguments.integer("init_endpoints: the number of endpoints", subspace)
    else:
        m = arguments.subspace(subspace, _INIT).num_endpoints
    arguments.key("key", key, _INIT)
    arguments.function("init_fn", init_fn, "key -> network", _INIT)
    if m < 1:
        raise ValueError(f"init_endpoints: num_endpoints is {m}. A subspace has at least one endpoint.")
    init_fn = parameters.checked(init_fn)
    if arguments.truth("init_endpoints: common_start", common_start):
        network = init_fn(jax.random.split(key, 1)[0])
        endpoints = jax.tree.map(lambda leaf: jnp.tile(leaf, (m,) + (1,) * jnp.ndim(leaf)), network)
    else:
        keys = jax.random.split(key, m)
        is_threefry = str(jax.random.key_impl(keys)) == "threefry2x32"
        endpoints = jax.vmap(init_fn)(keys) if is_threefry else jax.lax.map(init_fn, keys)
    tree.num_endpoints(endpoints)
    if shared is not None:
        endpoints = _with_shared(endpoints, shared, m)
    arguments.one_of("init_endpoints: center_scale", center_scale, (ENDPOINT, NETWORK))
    if center_scale == NETWORK and common_start:
        raise ValueError(
            'init_endpoints: center_scale is "network". With a common start each endpoint is the network already. It must be "endpoint" then.'
        )
    if center_scale == NETWORK:
        endpoints = _with_longer_kernels(endpoints, Simplex(m) if isinstance(subspace, int | np.integer) else subspace)
    endpoints = axis_names.added(endpoints)
    if m > 1 and not common_start:
        description.warn_if_alike(endpoints)
    return endpoints


def _with_shared(endpoints: Endpoints, shared: Any, m: int) -> Endpoints:
    if isinstance(shared, bool):
        raise ValueError(
            f"init_endpoints: shared is {shared}, but it names leaves, by a tree of bools like the network. One initialisation for "
            "all endpoints is called common_start=True now."
        )
    is_shared = leaf_kinds.tree_of_bools("argument shared", shared, endpoints)
    if m > 1 and all(jax.tree.leaves(is_shared)):
        raise ValueError(
            "init_endpoints: every leaf is shared, so there is one network and no subspace. Share fewer leaves."
        )
    return jax.tree.map(lambda leaf, one: leaf[:1] if one else leaf, endpoints, is_shared)


def _with_longer_kernels(endpoints: Endpoints, subspace: Subspace) -> Endpoints:
    """The endpoints with their kernels divided by |c*|. Kernels that all endpoints share are in the center as they are."""
    length = float(np.linalg.norm(np.asarray(centers.center_coefficients(subspace), np.float64)))
    kernels, shared = leaf_kinds.kernels(endpoints), tree.shared_leaves(endpoints)
    return jax.tree.map(
        lambda leaf, is_kernel, one: leaf / length if is_kernel and not one else leaf, endpoints, kernels, shared
    )


def interpolate(endpoints: Endpoints, alpha: Alpha, subspace: Subspace | None = None) -> Params:
    """The network P(alpha) = sum_i c_i(alpha) omega_i.

    Args:
      endpoints: leaves ``[m, *s]``, or ``[1, *s]`` for a leaf that all endpoints share.
      alpha: an array ``[*subspace.alpha_shape]``, or (layerwise) a tree like ``endpoints`` with one such
        array per leaf. Outside its domain it extrapolates: on a line, -0.05 is a little before omega_1.
      subspace: the subspace in which alpha is a position. Without it, the shape of alpha decides: a scalar is a position
        on a `Line` (m = 2), and a vector ``[m]`` holds the weights of a `Simplex`.

    Returns:
      One network with leaves ``[*s]``, in the endpoints' dtypes.

    Raises:
      ValueError: if alpha's shape does not determine a subspace, alpha or the subspace does not fit m, or the weights of
        the endpoints do not sum to 1. The sum is checked outside jit, where the weights are known.

    Example:
      >>> endpoints = {"kernel": jnp.stack([jnp.zeros(3), jnp.ones(3)])}
      >>> interpolate(endpoints, 0.25)["kernel"].tolist()
      [0.25, 0.25, 0.25]

    References:
      Wortsman et al., Learning Neural Network Subspaces, 2021, section 3.
    """
    return tree.contract(endpoints, coefficients(endpoints, alpha, subspace, _INTERPOLATE))


def midpoint(endpoints: Endpoints, subspace: Subspace | None = None) -> Params:
    """The network at the subspace's center: one network, more accurate and better calibrated than its ends.

    Without a subspace, it is the mean of the endpoints, which is the center of a line and of a simplex. Pass
    ``Curve()`` for the curve's own center P(1/2) = omega_1 / 4 + omega_2 / 4 + omega_3 / 2.
    """
    call = "midpoint(endpoints, subspace)"
    m = tree.num_endpoints(endpoints, call)
    subspace = Simplex(m) if subspace is None else arguments.subspace(subspace, call)
    return interpolate(endpoints, subspace.center, subspace)


def sample_alpha(
    key: jax.Array, subspace: Subspace, layers: LayerNames | None = None, num_samples: int | None = None
) -> Alpha:
    """Draws alpha uniformly from the subspace's domain.

    Args:
      key: a PRNG key.
      subspace: the subspace to draw from.
      layers: for layerwise training, the name of every leaf's layer (`jsubspace.layers`, or a tree of your
        own). Each layer gets its own draw, and the leaves of a layer share it.
      num_samples: S, to draw S independent positions for S parts of a batch (appendix B).

    Returns:
      alpha, ``[*subspace.alpha_shape]``, or a tree of them like ``layers``. With num_samples, each array
      has a leading axis ``[S]``.

    Example:
      >>> sample_alpha(jax.random.key(0), Simplex(3)).shape
      (3,)
    """
    arguments.key("key", key, _SAMPLE)
    arguments.subspace(subspace, _SAMPLE)
    leading = () if num_samples is None else (arguments.integer("sample_alpha: num_samples", num_samples),)
    if layers is None:
        return subspace.sample(key, leading)
    leaf_kinds.check_layers("layers", layers, call=_SAMPLE)
    names = list(dict.fromkeys(jax.tree.leaves(layers)))
    draws = dict(zip(names, subspace.sample(key, (len(names), *leading)), strict=True))
    return jax.tree.map(lambda name: draws[name], layers)


def coefficients(endpoints: Endpoints, alpha: Alpha, subspace: Subspace | None = None, call: str = "") -> Any:
    """The weights c(alpha) of the endpoints: ``[m]``, or a tree of them for a layerwise alpha. See `interpolate`.

    ``call`` shows the order of the arguments in a message.
    """
    m = num_endpoints(endpoints, subspace, call)
    if _is_layerwise(alpha, endpoints, m, subspace):
        return jax.tree.map(lambda a: _coefficients(_as_array(a), m, subspace), alpha)
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


def _coefficients(alpha: jax.Array, m: int, subspace: Subspace | None) -> jax.Array:
    subspace = _implied_subspace(alpha, m) if subspace is None else subspace
    if alpha.shape != subspace.alpha_shape:
        raise ValueError(f"alpha has shape {list(alpha.shape)} but {subspace} takes {list(subspace.alpha_shape)}.")
    weights = subspace.coefficients(alpha)
    if not isinstance(weights, jax.core.Tracer):  # Inside jit, the numbers are not known.
        _check_sum(np.asarray(weights, np.float64), subspace)
    return weights


def _check_sum(weights: np.ndarray, subspace: Subspace) -> None:
    total = float(weights.sum())
    # bfloat16 has two digits, and large weights of both signs cancel. A NaN is refused too.
    if not abs(total - 1) < 1e-2 + 1e-6 * np.abs(weights).sum():
        raise ValueError(
            f"the weights of the endpoints must sum to 1, but in {subspace} the weights {weights.tolist()} sum to {total:g}. "
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
    return jax.lax.convert_element_type(array, tree.accumulator(dtype))
