"""Permutation alignment: the units of one network in the order that makes it most like another network.

Weight matching (Ainsworth et al., 2023) maximises the inner product of the two networks over all permutations of units. For
one kind of units with the others held, the best permutation is a linear assignment. The kinds take turns until the inner
product grows no more. This finds a local maximum.

Two starts are tried, and the better result is kept: the order as it is, and a chain. The chain begins at axes with a fixed order, as the network's
inputs and outputs, and orders the units that are next to axes that are ordered already. For a permuted copy of the other network
every step of the chain is exact, if no two units have the same weights.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jsubspace import arguments
from jsubspace.errors import UsageError
from jsubspace.merging import networks as given
from jsubspace.merging.units import Symmetries, check_fit, permuted
from jsubspace.types import Params

_CALL = "align(network, reference, symmetries)"
_CLOSE = 1e-12
"""The inner product must grow by this fraction of its scale, so that rounding starts no new sweep."""

Permutations = Mapping[str, np.ndarray]


class Aligned(NamedTuple):
    """What `align` returns.

    Attributes:
      network: the network with its units in the new order. It computes the same function as before.
      permutations: for all units the order, ``[n]``: unit k is unit ``permutation[k]`` of the network that was given.
      cosine: the cosine of the two networks, over all leaves with permuted axes, before and after.
    """

    network: Params
    permutations: Permutations
    cosine: tuple[float, float]


def align(network: Params, reference: Params, symmetries: Symmetries, max_sweeps: int = 100) -> Aligned:
    """The network with its units in the order that makes it most like the reference (weight matching).

    It maximises sum over leaves of <reference, permuted network>, by coordinate ascent. The numbers are read on the host.

    Args:
      network: leaves ``[*s]``.
      reference: another network of the same structure, shapes and dtypes.
      symmetries: which axes are permuted together (`jsubspace.merging.symmetries`).
      max_sweeps: how often all units take their turn, at most.

    Returns:
      The permuted network with its permutations. The inner product is at least what it was.

    Raises:
      UsageError: if the networks differ in structure, shape or dtype, a number is not finite, or the symmetries belong to another
        network.

    Example:
      >>> import jax.numpy as jnp
      >>> from jsubspace.merging.units import symmetries
      >>> apply = lambda point, x: jnp.tanh(x @ point["a"]) @ point["b"]
      >>> reference = {"a": jnp.array([[1.0, 2.0, 3.0]]), "b": jnp.array([[1.0], [2.0], [3.0]])}
      >>> network = {"a": jnp.array([[3.0, 1.0, 2.0]]), "b": jnp.array([[3.0], [1.0], [2.0]])}
      >>> found = align(network, reference, symmetries(apply, network, jnp.ones((4, 1))))
      >>> found.network["a"].tolist(), [round(cosine, 3) for cosine in found.cosine]
      ([[1.0, 2.0, 3.0]], [0.786, 1.0])

    References:
      Ainsworth, Hayase and Srinivasa, Git Re-Basin: merging models modulo permutation symmetries, 2023, algorithm 1.
    """
    if arguments.integer("align: max_sweeps", max_sweeps) < 1:
        raise UsageError(f"align: max_sweeps is {max_sweeps}, but all units must take their turn at least once.")
    reference, network = given.checked([reference, network], "align", _CALL).points
    check_fit(network, symmetries, _CALL)
    pair = _Pair(network, reference, symmetries)
    identity = {name: np.arange(length) for name, length in symmetries.lengths.items()}
    before = pair.inner(identity)
    found = max(
        (pair.climbed(start, max_sweeps) for start in (identity, pair.chained(identity))), key=lambda made: made[0]
    )
    scale = pair.scale or 1.0
    return Aligned(permuted(network, symmetries, found[1]), found[1], (before / scale, found[0] / scale))


class _Pair:
    """Two networks as arrays with one axis per factor, on the host."""

    def __init__(self, network: Params, reference: Params, symmetries: Symmetries) -> None:
        self.leaves: list[tuple[np.ndarray, np.ndarray, tuple[str | None, ...]]] = []
        for a, b, axes in zip(
            jax.tree.leaves(reference), jax.tree.leaves(network), symmetries.axes.values(), strict=True
        ):
            factors = [factor for axis in axes for factor in axis]
            names = tuple(name for name, _ in factors)
            if any(names):
                shape = [length for _, length in factors]
                self.leaves.append((np.reshape(np.asarray(a), shape), np.reshape(np.asarray(b), shape), names))
        squares = sum(_inner(a, a) for a, _, _ in self.leaves), sum(_inner(b, b) for _, b, _ in self.leaves)
        self.scale = math.sqrt(squares[0] * squares[1])

    def inner(self, permutations: Permutations) -> float:
        """<reference, permuted network>."""
        return sum(_inner(a, _taken(b, names, permutations)) for a, b, names in self.leaves)

    def similarity(self, unit: str, permutations: Permutations, known: set[str] | None = None) -> np.ndarray | None:
        """``[n, n]``: how much it adds if unit i of the reference gets unit j of the network, with the other units as they are.

        With ``known``, only the leaves count in which all other axes are ordered already. It is None without such a leaf.
        """
        total = None
        for a, b, names in self.leaves:
            for axis, name in enumerate(names):
                others = {other for i, other in enumerate(names) if i != axis and other is not None}
                if name != unit or (known is not None and not others <= known):
                    continue
                held = (*names[:axis], None, *names[axis + 1 :])
                rows = [
                    np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64)
                    for array in (a, _taken(b, held, permutations))
                ]
                part = rows[0] @ rows[1].T
                total = part if total is None else total + part
        return total

    def chained(self, permutations: Permutations) -> Permutations:
        """Permutations that are found one after the other, beginning at axes with a fixed order."""
        made = dict(permutations)
        known: set[str] = set()
        while len(known) < len(made):
            open_ = [name for name in made if name not in known]
            counts = {name: self._known_numbers(name, known) for name in open_}
            best = max(open_, key=lambda name: counts[name])
            similarity = self.similarity(best, made, known if counts[best] else None)
            if similarity is not None:
                made[best] = _assigned(similarity)
            known.add(best)
        return made

    def _known_numbers(self, unit: str, known: set[str]) -> float:
        """How many numbers of a unit are compared in leaves with all other axes ordered."""
        return sum(
            a.size / a.shape[axis]
            for a, _, names in self.leaves
            for axis, name in enumerate(names)
            if name == unit and {other for i, other in enumerate(names) if i != axis and other is not None} <= known
        )

    def climbed(self, permutations: Permutations, max_sweeps: int) -> tuple[float, Permutations]:
        """The inner product and the permutations after sweeps of assignments. No step makes the inner product smaller."""
        made, best = dict(permutations), self.inner(permutations)
        for _ in range(max_sweeps):
            at_start = best
            for name in made:
                similarity = self.similarity(name, made)
                assert similarity is not None
                tried = {**made, name: _assigned(similarity)}
                value = self.inner(tried)
                if value > best + _CLOSE * self.scale:
                    made, best = tried, value
            if best == at_start:
                break
        return best, made


def _taken(array: np.ndarray, names: tuple[str | None, ...], permutations: Permutations) -> np.ndarray:
    for axis, name in enumerate(names):
        if name is not None:
            array = np.take(array, permutations[name], axis=axis)
    return array


def _inner(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


def _assigned(similarity: np.ndarray) -> np.ndarray:
    """The permutation with the largest sum of similarities. For every row it gives the column."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(similarity, maximize=True)[1])
