"""What would help networks that cannot be averaged: the barriers before and after every remedy that exists for given networks."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jsubspace import inner_products, leaf_kinds, tree
from jsubspace.evaluation.batches import Batches, padded
from jsubspace.evaluation.tasks.likelihood import Likelihood
from jsubspace.merging import connections, segments, units
from jsubspace.merging import networks as given
from jsubspace.merging.alignment import align
from jsubspace.merging.barriers import CONNECTED
from jsubspace.merging.connections import Connections
from jsubspace.types import Params

_CALL = "clinic(log_prob_fn, networks, batches)"

AS_THEY_ARE = "as they are"
STATISTICS = "statistics estimated again"
PERMUTED = "units permuted"
BOTH = "units permuted, statistics estimated again"

_RELATED = 0.5
"""Kernels of networks that were drawn independently have cosines near 0, and two fine-tunings of one network are near 1."""


@dataclasses.dataclass(frozen=True)
class Clinic:
    """What `clinic` found.

    Attributes:
      treatments: the connections before and after, by the name of the remedy. The first is "as they are".
      aligned: the networks with their units in the order of the first network, in the order in which they were given.
      symmetries: which axes were permuted together.
      cosines: ``[m, m]``, of the networks' kernels as they are, or of their differences from the origin if it was given.
      distances: ``[m]``, of the networks from the origin, over kernels, or None without an origin.
    """

    treatments: Mapping[str, Connections]
    aligned: tuple[Params, ...]
    symmetries: units.Symmetries
    cosines: np.ndarray
    distances: tuple[float, ...] | None = None

    @property
    def before(self) -> Connections:
        """The networks as they are. The statistics of a point are then averaged like its weights."""
        return self.treatments[AS_THEY_ARE]

    @property
    def best(self) -> str:
        """The name of the remedy with the most connected pairs, and among equals with the lowest worst barrier.

        An earlier remedy wins among equals.
        """
        return min(self.treatments, key=lambda name: _rank(self.treatments[name]))

    @property
    def advice(self) -> str:
        """What to do, in words."""
        names, best = self.before.names, self.treatments[self.best]
        lines = []
        if self.before.verdict == CONNECTED:
            lines.append("The networks are connected as they are: average them.")
        elif self.best == AS_THEY_ARE:
            lines.append("No remedy lowers the barriers.")
        else:
            lines.append(
                f"Best remedy: {self.best}. The highest barrier falls from {self.before.worst.height:.4f} to {best.worst.height:.4f}, "
                f"and the verdict is: {best.verdict}."
            )
        if best.verdict != CONNECTED:
            lines.append(
                f"Average inside of these groups alone: {'; '.join(', '.join(group) for group in best.groups)}. Between the groups, take "
                "an ensemble of predictions."
            )
        strangers = [
            f"{names[i]} and {names[j]} ({self.cosines[i, j]:.2f})"
            for i, j in itertools.combinations(range(len(names)), 2)
            if self.cosines[i, j] < _RELATED
        ]
        if strangers and self.distances is None and best.verdict != CONNECTED:
            more = f", and {len(strangers) - 3} more pairs" if len(strangers) > 3 else ""
            lines.append(
                f"The kernels of {', '.join(strangers[:3])}{more} have cosines below {_RELATED:g}, as networks without a common start "
                "have. Start all networks from one network that was trained for some epochs: networks that part later are usually "
                "connected."
            )
        if self.distances is not None and best.verdict != CONNECTED:
            farthest = int(np.argmax(self.distances))
            lines.append(
                f"{names[farthest]} is the farthest from the origin, at {self.distances[farthest]:.3g} (the nearest is at "
                f"{min(self.distances):.3g}). A smaller learning rate or fewer steps keep a fine-tuned network nearer to its origin, "
                "where networks are usually connected."
            )
        return "\n".join(lines)

    def table(self) -> str:
        """The barriers of all pairs by remedy, the geometry and the advice, for a terminal."""
        wide = max(map(len, (*self.before.names, "mean of all")))
        lines = [f"{chr(65 + k)}: {name} - {found.verdict}" for k, (name, found) in enumerate(self.treatments.items())]
        columns = "".join(f"{chr(65 + k):>9}" for k in range(len(self.treatments)))
        what = "cosine of differences" if self.distances else "cosine of kernels"
        lines += ["", f"{'barrier':<{2 * wide + 3}}{columns}   {what}"]
        for k, pair in enumerate(self.before.barriers):
            heights = "".join(f"{found.barriers[k].height:9.4f}" for found in self.treatments.values())
            name, cosine = "mean of all", ""
            if pair.at is not None:
                i, j = (self.before.names.index(one) for one in pair.names)
                name, cosine = " - ".join(pair.names), f"{self.cosines[i, j]:.4f}"
            lines.append(f"{name:<{2 * wide + 3}}{heights}   {cosine}".rstrip())
        return "\n".join([*lines, "", self.advice])

    def __str__(self) -> str:
        return self.table()


def clinic(
    log_prob_fn: Callable[..., Any],
    networks: Any,
    batches: Batches,
    *,
    stats_fn: Callable[..., Any] | None = None,
    train_batches: Batches | None = None,
    weights: str | None = None,
    origin: Params | None = None,
    symmetries: units.Symmetries | None = None,
    num_points: int = 11,
    tolerance: float = 0.02,
) -> Clinic:
    """What would help networks that cannot be averaged, with the barriers before and after.

    There are three remedies. BatchNorm statistics of a point are estimated again, in the place of the average of the networks' own
    statistics. The units of every network are permuted to be most like the first network (`alignment.align`). A common start is
    advice for the next training, from the cosines of the networks. All points of all remedies are evaluated in one pass over the data.

    Args:
      log_prob_fn: ``(point, *batch) -> [n]``, as for `jsubspace.connected`.
      networks: a list of networks with leaves ``[*s]``, or a dictionary of them by name.
      batches: tuples of arrays, of examples that no network was trained on.
      stats_fn, train_batches, weights: for networks with BatchNorm, as for `jsubspace.connected`.
      origin: the network that all networks were fine-tuned from, if there is one.
      symmetries: which units may be permuted. By default they are found from log_prob_fn and the first batch.
      num_points: the number of points on a segment, with its ends.
      tolerance: how much higher the loss may be.

    Returns:
      The connections by remedy, the aligned networks and advice. ``print`` shows them.

    Raises:
      UsageError: if the networks do not fit each other, hold a number that is not finite, or have a loss that is not finite.
      ValueError: if another argument is of a wrong kind.

    Example:
      >>> import jax.numpy as jnp
      >>> log_prob_fn = lambda w, x, y: -((y - jnp.tanh(x @ w["a"]) @ w["b"]) ** 2).sum(-1)
      >>> one = {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([[1.0], [3.0]])}
      >>> other = {"a": one["a"][:, ::-1], "b": one["b"][::-1]}
      >>> x = jnp.linspace(-1, 1, 50)[:, None]
      >>> found = clinic(log_prob_fn, [one, other], [(x, jnp.tanh(x @ one["a"]) @ one["b"])])
      >>> found.before.verdict, found.best, found.treatments[found.best].verdict
      ('not connected', 'units permuted', 'connected')
    """
    connections.check("clinic", _CALL, log_prob_fn, batches, stats_fn, train_batches, num_points, tolerance)
    found = given.checked(networks, "clinic", _CALL)
    if origin is not None:
        origin = given.checked_one(origin, found, "origin", "clinic")
    batch, batches = _first("batches", batches)
    next(padded([batch], Likelihood()))  # It checks the batch.
    if symmetries is None:
        free = {}
        if stats_fn is not None:
            train_batch, train_batches = _first("train_batches", train_batches)
            free["stats"] = jax.eval_shape(stats_fn, found.points[0], *train_batch)
        symmetries = units.symmetries(log_prob_fn, found.points[0], *batch, **free)
    aligned = (found.points[0], *(align(point, found.points[0], symmetries).network for point in found.points[1:]))

    m, plan = len(found.points), segments.between(len(found.points), num_points)
    zeros = np.zeros_like(plan.weights)
    rows = np.concatenate([np.concatenate([plan.weights, zeros], 1), np.concatenate([zeros, plan.weights], 1)])
    losses = segments.Losses(log_prob_fn, tree.stack([*found.points, *aligned]), rows, stats_fn)
    p = len(plan.weights)
    remedies: tuple[str, ...] = (AS_THEY_ARE, PERMUTED)
    if train_batches is None:
        of_points = losses.of(batches)
    else:
        remedies = (AS_THEY_ARE, PERMUTED, STATISTICS, BOTH)
        again = losses.statistics(train_batches, weights)
        mean = segments.averaged(again, [*range(m), *range(p, p + m)], rows)
        both = jax.tree.map(lambda a, b: np.concatenate([a, np.asarray(b)]), mean, again)
        of_points = losses.of(batches, np.concatenate([np.arange(2 * p)] * 2), both)
    made = {
        name: connections.connections(found.names, plan, of_points[k * p : (k + 1) * p], tolerance, "clinic")
        for k, name in enumerate(remedies)
    }
    order = [name for name in (AS_THEY_ARE, STATISTICS, PERMUTED, BOTH) if name in made]
    return Clinic({name: made[name] for name in order}, aligned, symmetries, *_geometry(found.points, origin))


def _rank(found: Connections) -> tuple[int, float]:
    return -sum(barrier.verdict == CONNECTED for barrier in found.barriers), found.worst.height


def _first(name: str, batches: Any) -> tuple[tuple[Any, ...], Any]:
    """The first batch, and all batches again."""
    rest = iter(batches)
    first = next(rest, None)
    if not isinstance(first, tuple | list):
        what = "holds no batch" if first is None else f"begins with a {type(first).__name__}"
        raise ValueError(f"clinic: {name} {what}, but it must be a list of tuples of arrays, as in [(x, y)].")
    return tuple(first), itertools.chain([first], rest)


def _geometry(points: tuple[Params, ...], origin: Params | None) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Cosines of the kernels, or of their differences from the origin, and the distances from it."""
    stacked = tree.stack(points[:1])
    kernels = leaf_kinds.kernels(stacked)
    mask = kernels if any(jax.tree.leaves(kernels)) else leaf_kinds.all_leaves(stacked)
    vectors = points if origin is None else [jax.tree.map(lambda a, b: a - b, point, origin) for point in points]
    gram = np.asarray(inner_products.gram(vectors, mask), np.float64)
    lengths = np.sqrt(np.diag(gram))
    cosines = gram / np.maximum(np.outer(lengths, lengths), np.finfo(np.float64).tiny)
    return cosines, None if origin is None else tuple(lengths.tolist())
