"""What endpoints are made of, as a table for a person: which leaves there are, and which of them the penalty sees."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import layer_names, leaf_kinds, tree
from jsubspace.penalties import Mask
from jsubspace.task_vectors import check_origin, task_vectors
from jsubspace.types import Endpoints, Params


class Leaf(NamedTuple):
    """One leaf of the endpoints.

    Attributes:
      name: its path.
      shape: ``[*s]``, without the endpoint axis.
      layer: the name of its layer, as `jsubspace.layers` gives it.
      counts: whether the penalty sees it.
      shared: whether all endpoints share it. Then it has one row, ``[1, *s]``.
      share: its part of the cos² between endpoints, or None if it does not count or the endpoints are no numbers. The shares
        of all leaves sum to 1. A negative share lowers cos². It is None where cos² is 0.
    """

    name: str
    shape: tuple[int, ...]
    layer: str
    counts: bool
    shared: bool
    share: float | None


class Description(NamedTuple):
    """What endpoints are made of. ``print`` shows it as a table.

    Attributes:
      num_endpoints: m.
      rows: one `Leaf` per leaf.
      cosine_squared: the mean cos² over all pairs of endpoints, or None for one endpoint or for shapes without numbers.
      of_task_vectors: whether cos² compares differences from an origin.
    """

    num_endpoints: int
    rows: tuple[Leaf, ...]
    cosine_squared: float | None
    of_task_vectors: bool = False

    def __str__(self) -> str:
        numbers = sum(int(np.prod(row.shape)) for row in self.rows)
        counted = sum(int(np.prod(row.shape)) for row in self.rows if row.counts)
        cells = [("leaf", "shape", "layer", "counts", "share of cos²")]
        for row in self.rows:
            share = "" if row.share is None else f"{row.share:.3f}"
            counts = "yes" if row.counts else "shared" if row.shared else "no"
            cells.append((row.name, str(list(row.shape)), row.layer, counts, share))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        compared = "the mean cos² of their task vectors" if self.of_task_vectors else "their mean cos²"
        cosine = "" if self.cosine_squared is None else f", and {compared} is {self.cosine_squared:.2g}"
        shared = sum(int(np.prod(row.shape)) for row in self.rows if row.shared)
        lines.append(
            f"{self.num_endpoints} endpoints of {numbers} numbers. The penalty sees {counted} of them{cosine}."
            + (f" All endpoints share {shared} of them, which are kept once." if shared else "")
        )
        return "\n".join(lines)


def describe(endpoints: Endpoints, mask: Mask = None, *, origin: Params | None = None) -> Description:
    """Which leaves the endpoints have, and which of them the penalty sees.

    Args:
      endpoints: leaves ``[m, *s]``, or their shapes as `jax.eval_shape` returns them. A leaf with one row is listed as
        shared: look whether it is meant to be, since a shape alone cannot tell it from a mistake.
      mask: as in `jsubspace.value_and_grad`.
      origin: one network, leaves ``[*s]``, for the cos² of the task vectors omega - origin, as in `jsubspace.value_and_grad`.

    Returns:
      A `Description`. ``print`` shows it as a table.

    Raises:
      ValueError: if the endpoints are no stacked networks, or the mask or the origin does not fit them.

    Example:
      >>> print(describe({"dense": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.ones((2, 4))}}))
      leaf                 shape   layer      counts  share of cos²
      ['dense']['bias']    [4]     ['dense']  no
      ['dense']['kernel']  [3, 4]  ['dense']  yes     1.000
      2 endpoints of 16 numbers. The penalty sees 12 of them, and their mean cos² is 1.
    """
    m, counts = tree.num_endpoints(endpoints, "describe(endpoints, mask)"), leaf_kinds.resolve_mask(mask, endpoints)
    paths = jax.tree_util.tree_leaves_with_path(endpoints)
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for _, leaf in paths)
    if origin is not None:
        check_origin(endpoints, origin)
    shares: list[float | None] = [None] * len(paths)
    cosine = None
    if m > 1 and not abstract:
        shares, cosine = _shares(task_vectors(endpoints, origin, counts), counts)
    rows = [
        Leaf(tree.leaf_name(path), tuple(leaf.shape[1:]), layer, counted, shared, share)
        for (path, leaf), layer, counted, shared, share in zip(
            paths,
            jax.tree.leaves(layer_names.layers(endpoints)),
            jax.tree.leaves(counts),
            jax.tree.leaves(tree.shared_leaves(endpoints)),
            shares,
            strict=True,
        )
    ]
    return Description(m, tuple(rows), cosine, origin is not None)


def warn_if_alike(endpoints: Endpoints) -> None:
    """Warns if the kernels of endpoints that were drawn independently have a cos² that chance does not explain.

    The cos² of two independent vectors of n numbers with mean zero is 1 / n on average, and exceeds 20 / n once in 100,000
    times. Inside of a compiled function there are no numbers yet, and nothing is said.
    """
    kernels, shared = leaf_kinds.kernels(endpoints), tree.shared_leaves(endpoints)
    counts = jax.tree.map(lambda kernel, is_shared: kernel and not is_shared, kernels, shared)
    counted = [
        leaf for leaf, counted in zip(jax.tree.leaves(endpoints), jax.tree.leaves(counts), strict=True) if counted
    ]
    if not counted or any(isinstance(leaf, jax.core.Tracer) for leaf in counted):
        return
    n = sum(leaf.size // leaf.shape[0] for leaf in counted)
    parts, cosine = _shares(endpoints, counts)
    if not cosine > max(0.01, 20 / n):
        return
    paths = [tree.leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(endpoints)]
    largest = max((part, name) for part, name in zip(parts, paths, strict=True) if part is not None)[1]
    warnings.warn(
        f"the endpoints were drawn independently, but the mean cos² of their kernels is {cosine:.2g} for {n} numbers. Some "
        f"leaves that the penalty counts start alike in all endpoints, {largest} above all. If they are no kernels, leave them "
        "out by the argument mask. If all endpoints start from one network, make them by "
        "jsubspace.stack, and compare their differences from this network by the argument origin. print(jsubspace.describe(endpoints)) shows all leaves.",
        stacklevel=3,
    )


def _shares(endpoints: Endpoints, counts: Any) -> tuple[list[float | None], float]:
    """Every leaf's share of the mean cos² over pairs, and this mean.

    With the leaves' inner products p_l of a pair, cos² is sum_l p_l (sum_l p_l) / (norms)². Leaf l contributes its summand.
    A pair with a network of zeros has a cos² of 0.
    """
    counted = zip(jax.tree.leaves(endpoints), jax.tree.leaves(counts), strict=True)
    grams = [_gram(leaf) if counts else None for leaf, counts in counted]
    total = np.sum([gram for gram in grams if gram is not None], axis=0)
    norms = np.outer(np.diag(total), np.diag(total))
    weights = np.triu(np.divide(1, norms, out=np.zeros_like(norms), where=norms != 0), 1)
    pairs = len(total) * (len(total) - 1) / 2
    cosine = float(np.sum(weights * total**2) / pairs)
    if cosine == 0:
        return [None] * len(grams), cosine
    return [None if gram is None else float(np.sum(weights * gram * total) / pairs / cosine) for gram in grams], cosine


def _gram(leaf: jax.Array) -> np.ndarray:
    """The inner products of a leaf's rows ``[m, m]``, in sums of products of elements, which any sharding of the leaf allows."""
    m, wide = leaf.shape[0], leaf.astype(tree.accumulator(leaf.dtype))
    product = np.zeros((m, m))
    for shift in range(m // 2 + 1):
        sums = jnp.sum(wide * jnp.roll(wide, -shift, axis=0), axis=tuple(range(1, wide.ndim)))
        i = np.arange(m)
        product[i, (i + shift) % m] = product[(i + shift) % m, i] = np.asarray(sums, np.float64)
    return product
