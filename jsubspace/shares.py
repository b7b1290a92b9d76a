"""Endpoints that are divided among devices: each device keeps its share of every leaf and of the optimizer's memory.

A step needs one whole network, the point. So the devices gather the point, and they scatter its gradient into shares.
Everything else is local. The point's share is made from the endpoints' shares, inner products are sums of partial inner
products, and an elementwise optimizer never looks at another element. With m endpoints of n numbers on D devices, a
device then holds m n / D + n numbers instead of m n.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import inner_products, leaf_kinds, tree
from jsubspace.types import Endpoints, LeafMask, Params

WHOLE = -1
"""Stands in the place of an axis for a leaf that is not divided: every device holds all of it."""


@dataclasses.dataclass(frozen=True)
class Shares:
    """How endpoints lie on the devices of an axis, and the communication that a step needs because of it.

    Attributes:
      axis_name: the name of the device axis in a pmap or shard_map, or None for one device without communication.
      axes: for every leaf, the axis of ``[*s]`` along which it is divided, or `WHOLE` (see `axes_of`). None if every
        device holds all leaves.
      dtype: the network's compute dtype, or None. Kernels are cast to it before they are gathered, which halves the
        traffic for bfloat16.
    """

    axis_name: str | None = None
    axes: Any = None
    dtype: Any = None

    def count(self) -> int:
        """The number of devices, a constant of the traced program."""
        return 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)

    def check_axis(self) -> None:
        """Raises a ValueError if nothing around this function has an axis of the name ``axis_name``."""
        try:
            self.count()
        except (NameError, TypeError, ValueError) as error:
            raise ValueError(
                f"axis_name is {self.axis_name!r}, but no pmap or shard_map around the step has an axis of this name. Without "
                "devices to average over, leave axis_name out."
            ) from error

    def mean(self, x: Any) -> Any:
        """The mean over devices of a value that is not divided."""
        return x if self.axis_name is None else jax.lax.pmean(x, self.axis_name)

    def gather(self, networks: Params, leading: int = 0) -> Params:
        """Whole networks from the devices' shares, a copy per device to differentiate at.

        Args:
          networks: this device's shares.
          leading: the number of axes before ``[*s]``.
        """
        name = self.axis_name
        if name is None:
            return networks
        if self.axes is None:
            return _own_copy(networks, name)

        def gather_leaf(leaf: jax.Array, axis: int, is_kernel: bool) -> jax.Array:
            if axis == WHOLE:
                return _own_copy(leaf, name)
            sent = leaf.astype(self.dtype) if is_kernel and self.dtype is not None else leaf
            return jax.lax.all_gather(sent, name, axis=axis + leading, tiled=True)

        stacked = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape if leading else (1, *leaf.shape), leaf.dtype), networks
        )
        return jax.tree.map(gather_leaf, networks, tree.conformed(self.axes, networks), leaf_kinds.kernels(stacked))

    def scatter(self, grads: Params, leading: int = 0) -> Params:
        """This device's share of the sum over devices of whole gradients. ``leading`` as in `gather`."""
        name = self.axis_name
        if name is None:
            return grads
        if self.axes is None:
            return jax.lax.psum(grads, name)

        def scatter_leaf(leaf: jax.Array, axis: int) -> jax.Array:
            if axis == WHOLE:
                return jax.lax.psum(leaf, name)
            axis += leading
            # XLA would sum the whole kernel of a 1 x 1 convolution and cut the sum, which doubles the traffic. It does
            # not do so when the axes of length one are removed.
            units = tuple(i for i, length in enumerate(leaf.shape) if length == 1 and i != axis)
            place = axis - sum(i < axis for i in units)
            share = jax.lax.psum_scatter(jnp.squeeze(leaf, units), name, scatter_dimension=place, tiled=True)
            return jnp.expand_dims(share, units)

        return jax.tree.map(scatter_leaf, grads, tree.conformed(self.axes, grads))

    def own_part(self, networks: Params, leading: int = 0) -> Params:
        """This device's share of whole networks that are the same on all devices. ``leading`` as in `gather`."""
        name = self.axis_name
        if name is None or self.axes is None:
            return networks

        def part(leaf: jax.Array, axis: int) -> jax.Array:
            if axis == WHOLE:
                return leaf
            length = leaf.shape[axis + leading] // self.count()
            return jax.lax.dynamic_slice_in_dim(leaf, jax.lax.axis_index(name) * length, length, axis + leading)

        return jax.tree.map(part, networks, tree.conformed(self.axes, networks))

    def largest_entry(self, network: Params) -> jax.Array:
        """The largest absolute value in a whole network, computed from its shares: a scalar, float32 or wider."""
        entries = (
            jnp.max(jnp.abs(leaf), initial=0).astype(tree.accumulator(leaf.dtype)) for leaf in jax.tree.leaves(network)
        )
        largest = functools.reduce(jnp.maximum, entries)
        is_divided = self.axis_name is not None and self.axes is not None
        return jax.lax.pmax(largest, self.axis_name) if is_divided else largest

    def gram(self, networks: Sequence[Params], mask: LeafMask) -> jax.Array:
        """`inner_products.gram` of whole networks, computed from their shares: ``[p, p]``."""
        if self.axes is None or self.axis_name is None:
            return inner_products.gram(networks, mask)
        axes = tree.conformed(self.axes, mask)
        divided = jax.tree.map(lambda counts, axis: bool(counts) and axis != WHOLE, mask, axes)
        whole = jax.tree.map(lambda counts, axis: bool(counts) and axis == WHOLE, mask, axes)
        total: Any = 0
        if any(jax.tree.leaves(divided)):
            total = jax.lax.psum(inner_products.gram(networks, divided), self.axis_name)
        return total + inner_products.gram(networks, whole) if any(jax.tree.leaves(whole)) else total


def divided_axis(shape: Sequence[int], count: int) -> int:
    """The axis of ``[*s]`` along which a leaf is divided among ``count`` devices.

    It is the second-to-last axis, the input channels of a kernel. If the devices do not divide this axis, it is the last
    axis that they divide. If there is no such axis, it is `WHOLE`. The axis of output channels is avoided because its
    rows would be shorter than the 128 numbers to which a TPU pads every row.

    Example:
      >>> divided_axis((3, 3, 16, 64), 8), divided_axis((3, 3, 3, 64), 8), divided_axis((64, 10), 8), divided_axis((3,), 8)
      (2, 3, 0, -1)
    """
    axes = sorted(range(len(shape)), key=lambda axis: (axis != len(shape) - 2, -axis))
    return next((axis for axis in axes if shape[axis] and shape[axis] % count == 0), WHOLE)


def axes_of(endpoints: Endpoints, count: int) -> Any:
    """`Shares.axes` of endpoints ``[m, *s]``, or of their shapes, for ``count`` devices.

    Endpoints are never separated from each other, because a step reads all of them at every position.
    """
    return jax.tree.map(lambda leaf: divided_axis(jnp.shape(leaf)[1:], count), endpoints)


def kept_whole(endpoints: Endpoints, count: int) -> dict[str, int]:
    """The leaves that ``count`` devices do not divide, by name, and how many numbers each has over all endpoints."""
    leaves = jax.tree_util.tree_leaves_with_path(endpoints)
    return {
        jax.tree_util.keystr(path): math.prod(jnp.shape(leaf))
        for path, leaf in leaves
        if divided_axis(jnp.shape(leaf)[1:], count) == WHOLE
    }


def _own_copy(point: Params, axis_name: str) -> Params:
    """A copy of ``point`` that is marked as this device's own.

    A shard_map with ``check_vma=True``, its default, tracks which values differ between devices. There autodiff sums the
    gradient with respect to a value that all devices share, and a second sum would be too large by the number of devices.
    The gradient with respect to a copy is this device's own under every wrapper, so that one sum is always right.
    """

    def differs_over(x: jax.Array) -> frozenset[str]:
        return jax.typeof(x).manual_axis_type.varying

    tracked = differs_over(jax.lax.axis_index(axis_name))  # Empty under pmap, vmap and check_vma=False.

    def own(leaf: jax.Array) -> jax.Array:
        shared = tuple(tracked - differs_over(leaf))
        return jax.lax.pcast(leaf, shared, to="varying") if shared else leaf

    return jax.tree.map(own, point)
