"""Task vectors: endpoints as differences from one network, the origin."""

from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import arguments, tree
from jsubspace.types import Endpoints, LeafMask, Params


def task_vectors(endpoints: Endpoints, origin: Params | None, mask: LeafMask) -> Endpoints:
    """omega_i - origin for the leaves that count, ``[m, *s]``, in float32 or wider. Other leaves are the endpoints'.

    Args:
      endpoints: leaves ``[m, *s]``.
      origin: one network with leaves ``[*s]``, or None. Without an origin, the endpoints are returned as they are.
      mask: a tree of bools.

    Raises:
      ValueError: if the origin is not a network like the endpoints. The message names the leaf.
    """
    if origin is None:
        return endpoints
    check_origin(endpoints, origin)

    def difference(leaf: jax.Array, start: Any, counts: bool) -> jax.Array:
        wide = tree.accumulator(leaf.dtype)
        return leaf.astype(wide) - jnp.asarray(start).astype(wide)[None] if counts else leaf

    return jax.tree.map(difference, endpoints, tree.conformed(origin, endpoints), mask)


def check_origin(endpoints: Endpoints, origin: Params) -> None:
    """Raises a ValueError if ``origin`` is not one network with the leaves ``[*s]`` of the endpoints ``[m, *s]``."""
    if not tree.same_structure(origin, endpoints):
        raise ValueError(
            f"the origin has the structure of another network than the endpoints: {tree.difference(origin, endpoints)}. Give one "
            "network of their architecture."
        )
    arguments.check_arrays("origin", origin, "one network like an endpoint")
    for (path, start), leaf in zip(
        jax.tree_util.tree_leaves_with_path(origin), jax.tree.leaves(endpoints), strict=True
    ):
        if jnp.shape(start) != jnp.shape(leaf)[1:]:
            hint = " It looks like stacked endpoints." if jnp.shape(start) == jnp.shape(leaf) else ""
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)} of the origin has shape {list(jnp.shape(start))}, but one network has "
                f"{list(jnp.shape(leaf)[1:])} here. Give one network, not stacked.{hint}"
            )
