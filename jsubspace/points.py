"""Points of a subspace: from endpoints and alpha to a network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, axis_names, centers, description, leaf_kinds, parameters, positions, tree
from jsubspace.penalties import Mask
from jsubspace.subspaces import Simplex, Subspace
from jsubspace.types import Alpha, Endpoints, Tree

_INIT = "init_endpoints(key, init_fn, subspace)"
_INTERPOLATE = "interpolate(endpoints, alpha, subspace)"

ENDPOINT, NETWORK = "endpoint", "network"
"""The networks that have the scale of an initialisation: each endpoint, or the center."""

_NEW_NAMES = {
    "num_endpoints": "subspace, the third argument, which may be a number",
}


def init_endpoints(
    key: jax.Array,
    init_fn: Callable[[jax.Array], Tree],
    subspace: Subspace | int,
    common_start: bool = False,
    shared: Mask = None,
    center_scale: str = ENDPOINT,
    **renamed: Any,
) -> Tree:
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
        by ``|c*| = sqrt(sum_i c*_i^2)``, which is 1/sqrt(m) on a simplex. With "network" all kernels are divided by ``|c*|``, so that
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
      >>> init_endpoints(jax.random.key(0), init_fn, 2)["kernel"].shape
      (2, 3, 4)
      >>> init_fn = lambda key: {"kernel": jax.random.normal(key, (3, 4)), "bias": jnp.zeros(4)}
      >>> init_endpoints(jax.random.key(0), init_fn, 2, shared={"kernel": False, "bias": True})["bias"].shape
      (1, 4)
    """
    for name in renamed:
        hint = f"; it is called {_NEW_NAMES[name]} now" if name in _NEW_NAMES else ""
        raise TypeError(f"init_endpoints has no argument {name}{hint}.")
    m = number_of_endpoints(subspace, "init_endpoints", _INIT)
    arguments.key("key", key, _INIT)
    arguments.function("init_fn", init_fn, "key -> network", _INIT)
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


def number_of_endpoints(subspace: Subspace | int, caller: str, call: str) -> int:
    """m of a subspace, or m itself. A ValueError names the function ``caller`` and shows its ``call``."""
    if isinstance(subspace, bool | int | float | np.generic):
        m = arguments.integer(f"{caller}: the number of endpoints", subspace)
    else:
        m = arguments.subspace(subspace, call).num_endpoints
    if m < 1:
        raise ValueError(f"{caller}: num_endpoints is {m}. A subspace has at least one endpoint.")
    return m


def interpolate(endpoints: Tree, alpha: Alpha, subspace: Subspace | None = None) -> Tree:
    """The network P(alpha) = sum_i c_i(alpha) omega_i.

    Args:
      endpoints: leaves ``[m, *s]``, or ``[1, *s]`` for a leaf that all endpoints share.
      alpha: an array ``[*subspace.alpha_shape]``, or (layerwise) a tree like ``endpoints`` with one such
        array per leaf, or ``[L, *subspace.alpha_shape]`` for a leaf ``[m, L, *s]`` of L stacked layers. Outside its domain it extrapolates: on a line, -0.05 is a little before omega_1.
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
    return tree.contract(endpoints, positions.coefficients(endpoints, alpha, subspace, _INTERPOLATE))


def midpoint(endpoints: Tree, subspace: Subspace | None = None) -> Tree:
    """The network at the subspace's center: one network, more accurate and better calibrated than its ends.

    Without a subspace, it is the mean of the endpoints, which is the center of a line and of a simplex. Pass
    ``Curve()`` for the curve's own center P(1/2) = omega_1 / 4 + omega_2 / 4 + omega_3 / 2.
    """
    call = "midpoint(endpoints, subspace)"
    m = tree.num_endpoints(endpoints, call)
    subspace = Simplex(m) if subspace is None else arguments.subspace(subspace, call)
    return interpolate(endpoints, subspace.center, subspace)
