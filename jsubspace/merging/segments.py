"""The segments between networks, and the losses of their points: one program per batch, and one pass over the data."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jsubspace.batch_stats import weighed
from jsubspace.errors import UsageError
from jsubspace.evaluation import networks
from jsubspace.evaluation.batches import Batches, padded
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks.likelihood import Likelihood
from jsubspace.merging import barriers
from jsubspace.merging.barriers import Barrier
from jsubspace.types import Endpoints


class Segments(NamedTuple):
    """All segments between m networks.

    The points are the m networks, the inner points of every pair's segment, and the mean of all networks if they are three or
    more.

    Attributes:
      pairs: the places of the two networks of every segment.
      positions: ``[q]``, t from 0 to 1.
      weights: ``[p, m]``, the weights of the networks at every point.
    """

    pairs: tuple[tuple[int, int], ...]
    positions: np.ndarray
    weights: np.ndarray

    def judged(
        self, names: Sequence[str], losses: np.ndarray, tolerance: float
    ) -> tuple[list[Barrier], Barrier | None]:
        """The barriers of all pairs, and at the mean of three or more networks. Together, their intervals hold with 95 %.

        Args:
          names: of the networks.
          losses: ``[p, n]``.
          tolerance: the excess of the loss that is allowed.
        """
        m, inner = len(names), len(self.positions) - 2
        level = 1 - 0.05 / (len(self.pairs) + (m > 2))  # Bonferroni's correction
        found = []
        for k, (i, j) in enumerate(self.pairs):
            first = m + k * inner
            of_segment = np.concatenate([losses[i : i + 1], losses[first : first + inner], losses[j : j + 1]])
            found.append(barriers.along((names[i], names[j]), self.positions, of_segment, tolerance, level))
        mean = barriers.at_mean(names, losses[:m], losses[-1], tolerance, level) if m > 2 else None
        return found, mean


def between(num_networks: int, num_points: int) -> Segments:
    """The segments between all pairs of networks, with ``num_points`` points each, ends included.

    Example:
      >>> between(2, 3).weights.tolist()
      [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    ends, positions = np.eye(num_networks), np.linspace(0, 1, num_points)
    pairs = tuple(itertools.combinations(range(num_networks), 2))
    inner = [(1 - t) * ends[i] + t * ends[j] for i, j in pairs for t in positions[1:-1]]
    mean = [np.full(num_networks, 1 / num_networks)] if num_networks > 2 else []
    return Segments(pairs, positions, np.stack([*ends, *inner, *mean]))


class Losses:
    """The losses of points among stacked networks, leaves ``[M, *s]``, with BatchNorm statistics or without."""

    def __init__(
        self,
        log_prob_fn: Callable[..., Any],
        endpoints: Endpoints,
        weights: np.ndarray,
        stats_fn: Callable[..., Any] | None,
    ) -> None:
        self._endpoints, self._weights = endpoints, weights
        self._network, self._task = networks.from_functions(log_prob_fn, stats_fn), Likelihood()

    def statistics(self, train_batches: Batches, weights: str | None) -> Any:
        """The statistics of every point, estimated from training batches, leaves ``[p, ...]``."""
        pairs, given = itertools.tee(weighed(train_batches, weights))
        evaluator = Evaluator(self._network, self._task, Survey((), self._weights))
        return evaluator.batch_stats(self._endpoints, (batch for batch, _ in pairs), (weight for _, weight in given))

    def of(self, batches: Batches, points: np.ndarray | None = None, stats: Any = None) -> np.ndarray:
        """The losses ``[p, n]``, minus the log-probability of every example.

        Args:
          batches: what log_prob_fn takes.
          points: the places of the points that are evaluated, one or several times. All by default.
          stats: their statistics, one row for each of them.
        """
        weights = self._weights if points is None else self._weights[points]
        evaluator = Evaluator(self._network, self._task, Survey((), weights))
        found = evaluator.outcomes(self._endpoints, stats, padded(batches, self._task)).points
        return np.asarray(found["nll"], np.float64)


def averaged(stats: Any, ends: Sequence[int], weights: np.ndarray) -> Any:
    """The statistics at the ends, averaged like the weights: leaves ``[p, ...]``.

    Args:
      stats: of all points, leaves ``[p, ...]``.
      ends: the places of the M networks among the points.
      weights: ``[p, M]``.
    """
    return jax.tree.map(lambda leaf: np.tensordot(weights, np.asarray(leaf)[list(ends)], 1).astype(leaf.dtype), stats)


def check_ends(losses: np.ndarray, names: Iterable[str], caller: str) -> None:
    """Raises a UsageError if a network has a loss ``[m, n]`` that is not finite."""
    for name, of_network in zip(names, losses, strict=True):
        wrong = int((~np.isfinite(of_network)).sum())
        if wrong:
            raise UsageError(
                f"{caller}: {name} gives {wrong} of {len(of_network)} examples a log-probability that is not finite, so there is no "
                "loss to compare with. Leave this network out, or look at what log_prob_fn returns for these examples."
            )
