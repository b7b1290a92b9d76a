"""Angles between networks, or between their differences from an origin, part by part."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import tree
from jsubspace.merging.parts import Parts
from jsubspace.types import Endpoints, Params


class Angles(NamedTuple):
    """Angles between m networks, in float64 on the host.

    Attributes:
      cosines: ``[parts, m, m]``. A vector of zeros has cosines of 0.
      norms: ``[parts, m]``.
    """

    cosines: np.ndarray
    norms: np.ndarray


def angles(endpoints: Endpoints, parts: Parts, origin: Params | None = None) -> Angles:
    """The cosines and norms of every part of m networks, taken as vectors.

    Args:
      endpoints: leaves ``[m, *s]``.
      parts: which leaves are one vector.
      origin: leaves ``[*s]``, a network that is subtracted before. None compares the networks themselves.

    Example:
      >>> from jsubspace.merging.parts import parts_of
      >>> endpoints = {"w": jnp.array([[3.0, 0.0], [3.0, 4.0]])}
      >>> found = angles(endpoints, parts_of(endpoints))
      >>> found.cosines[0].round(6).tolist(), found.norms.round(6).tolist()
      ([[1.0, 0.6], [0.6, 1.0]], [[3.0, 5.0]])
    """
    leaves = jax.tree.leaves(endpoints)
    starts = None if origin is None else jax.tree.leaves(origin)
    lengths = tuple(length for _, length in parts.places) or (None,) * len(leaves)
    found = jax.device_get(_products(leaves, starts, lengths))
    m = tree.num_endpoints(endpoints)
    gram = np.zeros((len(parts.names), m, m))
    for i, (scale, products) in enumerate(found):
        first, length = (0, None) if parts.is_whole else parts.places[i]
        gram[first : first + (length or 1)] += np.float64(scale) ** 2 * np.asarray(products, np.float64)
    norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    return Angles(np.clip(gram * inverse[:, :, None] * inverse[:, None, :], -1, 1), norms)


def _product(leaf: jax.Array, start: Any, length: int | None) -> tuple[jax.Array, jax.Array]:
    """A scale, and the inner products ``[1, m, m]`` or ``[L, m, m]`` of the rows of a leaf that is divided by the scale.

    The largest entry is then 1, and no square leaves the range of float32.
    """
    wide = leaf.astype(tree.accumulator(leaf.dtype))
    rows = wide if start is None else wide - jnp.asarray(start).astype(wide.dtype)[None]
    largest = jnp.max(jnp.abs(rows), initial=0)
    rows = rows / jnp.where(largest > 0, largest, 1)
    flat = rows.reshape(rows.shape[0], length or 1, -1)
    products = [[jnp.sum(one * other, axis=-1) for other in flat] for one in flat]
    return largest, jnp.moveaxis(jnp.stack([jnp.stack(row) for row in products]), -1, 0)


def _of_leaves(leaves: list[Any], starts: list[Any] | None, lengths: tuple[int | None, ...]) -> list[Any]:
    given = [None] * len(leaves) if starts is None else starts
    return [_product(*each) for each in zip(leaves, given, lengths, strict=True)]


_products = jax.jit(_of_leaves, static_argnames="lengths")
