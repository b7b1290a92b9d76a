"""Can these networks be averaged? The loss on the segments between them, with a verdict for every pair."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from jsubspace import arguments
from jsubspace.errors import UsageError
from jsubspace.evaluation import bounds, plots
from jsubspace.evaluation.batches import Batches
from jsubspace.evaluation.measure import check_statistics
from jsubspace.merging import connection_plots, segments
from jsubspace.merging import networks as given
from jsubspace.merging.barriers import CONNECTED, NOT_CONNECTED, NOT_DECIDED, Barrier
from jsubspace.storage import places

_CALL = "connected(log_prob_fn, networks, batches)"


@dataclasses.dataclass(frozen=True)
class Connections:
    """What `connected` found.

    Attributes:
      names: of the networks.
      losses: the mean loss of every network.
      pairs: the barrier of every pair.
      mean: the barrier at the mean of all networks, or None for two networks.
      tolerance: the excess of the loss that was allowed.
      num_examples: the number of examples n.
    """

    names: tuple[str, ...]
    losses: tuple[float, ...]
    pairs: tuple[Barrier, ...]
    mean: Barrier | None
    tolerance: float
    num_examples: int

    @property
    def barriers(self) -> tuple[Barrier, ...]:
        """The barriers of all pairs, and the barrier at the mean of three or more networks."""
        return self.pairs if self.mean is None else (*self.pairs, self.mean)

    @property
    def verdict(self) -> str:
        """ "connected" if all barriers are connected, "not connected" if one is not, else "not decided"."""
        verdicts = {barrier.verdict for barrier in self.barriers}
        return NOT_CONNECTED if NOT_CONNECTED in verdicts else NOT_DECIDED if NOT_DECIDED in verdicts else CONNECTED

    @property
    def worst(self) -> Barrier:
        """The pair with the highest barrier."""
        return max(self.pairs, key=lambda pair: pair.height)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Groups of networks in which every pair is connected. A network joins the first group that it fits."""
        connected = {frozenset(pair.names) for pair in self.pairs if pair.verdict == CONNECTED}
        groups: list[list[str]] = []
        for name in self.names:
            fitting = [group for group in groups if all(frozenset((name, other)) in connected for other in group)]
            if fitting:
                fitting[0].append(name)
            else:
                groups.append([name])
        return tuple(map(tuple, groups))

    def pair(self, a: str | int, b: str | int) -> Barrier:
        """The barrier between two networks, by their names or places.

        Raises:
          UsageError: if there is no such pair.
        """
        m = len(self.names)
        wanted = {self.names[one] if isinstance(one, int) and -m <= one < m else one for one in (a, b)}
        for pair in self.pairs:
            if {*pair.names} == wanted:
                return pair
        raise UsageError(f"there is no pair of {a!r} and {b!r}. The networks are {', '.join(self.names)}.")

    def table(self) -> str:
        """Losses, barriers and verdicts, for a terminal."""
        wide = max(map(len, (*self.names, "mean of all")))
        lines = [f"{'network':<{wide}}      loss"]
        lines += [f"{name:<{wide}}  {loss:8.4f}" for name, loss in zip(self.names, self.losses, strict=True)]
        lines += ["", f"{'pair':<{2 * wide + 3}}   barrier  interval            at  verdict"]
        for barrier in self.barriers:
            name = " - ".join(barrier.names) if barrier.at is not None else "mean of all"
            low, high = barrier.interval
            place = "" if barrier.at is None else f"{barrier.at:.2f}"
            lines.append(
                f"{name:<{2 * wide + 3}}  {barrier.height:8.4f}  {low:7.4f} to {high:7.4f}  {place:>4}  {barrier.verdict}"
            )
        lines += ["", f"Verdict: {self.verdict}. {self._rule()}"]
        if self.verdict != CONNECTED:
            lines.append(f"Groups with connected pairs alone: {'; '.join(', '.join(group) for group in self.groups)}.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def _rule(self) -> str:
        few = (
            f" With fewer than {bounds.FEWEST} examples nothing is decided."
            if self.num_examples < bounds.FEWEST
            else ""
        )
        return (
            f"A pair is connected if the interval of its barrier ends at or below the tolerance of {self.tolerance:g}, and not connected if it "
            f"begins above. Together the intervals hold with 95 % over other samples of {self.num_examples} examples.{few}"
        )

    def plot(self, path: str | pathlib.Path | None = None) -> Any:
        """A picture of the matrix of barriers, and of the loss along the worst segment.

        Args:
          path: a PNG, PDF or SVG file to write. Without a path nothing is written.

        Returns:
          A matplotlib figure, which a notebook shows.

        Raises:
          ModuleNotFoundError: without matplotlib (the extra ``plot``).
        """
        figure = connection_plots.matrix_and_path(self.names, self.pairs, self.worst, self.tolerance)
        if path is not None:
            plots.save(figure, places.located(path, "the figure's file"))
        return figure

    def to_json(self) -> dict[str, Any]:
        """Dictionaries, lists, strings and numbers."""
        return {
            "names": list(self.names),
            "losses": list(self.losses),
            "pairs": [pair.to_json() for pair in self.pairs],
            "mean": None if self.mean is None else self.mean.to_json(),
            "tolerance": self.tolerance,
            "num_examples": self.num_examples,
            "verdict": self.verdict,
        }


def connected(
    log_prob_fn: Callable[..., Any],
    networks: Any,
    batches: Batches,
    *,
    stats_fn: Callable[..., Any] | None = None,
    train_batches: Batches | None = None,
    weights: str | None = None,
    num_points: int = 11,
    tolerance: float = 0.02,
) -> Connections:
    """Whether networks can be averaged: the loss along the segment of every pair, and at the mean of all.

    The barrier of a pair is max over t of loss(t) - ((1 - t) loss(0) + t loss(1)). Every batch is read once.

    Args:
      log_prob_fn: ``(point, *batch) -> [n]``, the log-probability of every example. With stats_fn it also takes the keyword
        ``stats``, the statistics of the point.
      networks: a list of networks with leaves ``[*s]``, or a dictionary of them by name.
      batches: tuples of arrays, of examples that no network was trained on.
      stats_fn: for networks with BatchNorm, ``(point, *batch) -> statistics`` of one training batch. Every point gets statistics of its
        own (`jsubspace.reestimate_batch_stats`).
      train_batches: training batches for stats_fn.
      weights: "size" to weigh the statistics of a training batch by its examples.
      num_points: the number of points on a segment, with its ends. An odd number includes the middle.
      tolerance: how much higher the loss may be, in the unit of log_prob_fn, usually nats per example.

    Returns:
      The barriers with their intervals and verdicts. ``print`` shows a table, and ``plot`` draws it.

    Raises:
      UsageError: if the networks do not fit each other, hold a number that is not finite, or have a loss that is not finite.
      ValueError: if another argument is of a wrong kind.

    Example:
      >>> import jax.numpy as jnp
      >>> log_prob_fn = lambda w, x, y: -((y - jnp.tanh(x * w[0]) * w[1]) ** 2)
      >>> x = jnp.linspace(-1, 1, 50)
      >>> found = connected(log_prob_fn, [jnp.array([2.0, 1.0]), jnp.array([-2.0, -1.0])], [(x, jnp.tanh(2 * x))])
      >>> found.verdict, found.worst.at
      ('not connected', 0.5)

    References:
      Frankle, Dziugaite, Roy and Carbin, Linear mode connectivity and the lottery ticket hypothesis, 2020.
    """
    check("connected", _CALL, log_prob_fn, batches, stats_fn, train_batches, num_points, tolerance)
    found = given.checked(networks, "connected", _CALL)
    plan = segments.between(len(found.points), num_points)
    losses = segments.Losses(log_prob_fn, found.stacked(), plan.weights, stats_fn)
    stats = None if train_batches is None else losses.statistics(train_batches, weights)
    return connections(found.names, plan, losses.of(batches, stats=stats), tolerance, "connected")


def connections(
    names: tuple[str, ...], plan: segments.Segments, losses: Any, tolerance: float, caller: str
) -> Connections:
    """The connections from the losses ``[p, n]`` of a plan's points.

    Raises:
      UsageError: if a network has a loss that is not finite.
    """
    of_networks = losses[: len(names)]
    segments.check_ends(of_networks, names, caller)
    pairs, mean = plan.judged(names, losses, tolerance)
    return Connections(
        names, tuple(of_networks.mean(-1).tolist()), tuple(pairs), mean, float(tolerance), losses.shape[-1]
    )


def check(
    caller: str,
    call: str,
    log_prob_fn: Any,
    batches: Any,
    stats_fn: Any,
    train_batches: Any,
    num_points: Any,
    tolerance: Any,
) -> None:
    """Raises a ValueError if an argument of `connected`, or of a function like it, is of a wrong kind."""
    arguments.function(f"{caller}: log_prob_fn", log_prob_fn, "(point, *batch) -> [n]", call)
    arguments.check_batches(f"{caller}: batches", batches, call)
    check_statistics(caller, stats_fn, train_batches)
    if arguments.integer(f"{caller}: num_points", num_points) < 3:
        raise ValueError(
            f"{caller}: num_points is {num_points}, but a segment needs at least 3 points: its ends and one between them."
        )
    arguments.strength(f"{caller}: tolerance", tolerance, "the excess of the loss that is allowed")
