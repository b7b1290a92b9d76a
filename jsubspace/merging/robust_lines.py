"""The line between a pretrained network and its fine-tuned version, on the data of both (WiSE-FT)."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jsubspace import arguments, subspaces
from jsubspace.errors import UsageError
from jsubspace.evaluation import measure, networks, options, paired
from jsubspace.evaluation.batches import Batches, padded
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.report import Report
from jsubspace.evaluation.survey import survey
from jsubspace.evaluation.tasks.classification import Classification
from jsubspace.evaluation.tasks.task import Outcomes, Task, checked
from jsubspace.merging import networks as given
from jsubspace.types import Params

_CALL = "robust_line(predict_fn, pretrained, fine_tuned, distributions)"


class Change(NamedTuple):
    """How a point differs from the fine-tuned network on one distribution.

    Attributes:
      value: the score of the point minus the score of the fine-tuned network. It is NaN if a score is not finite.
      interval: its 95 % interval, paired over examples, or None.
    """

    value: float
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class RobustLine:
    """Scores along a line on several distributions.

    Attributes:
      alphas: the positions, from 0, the pretrained network, to 1, the fine-tuned network.
      reports: for every distribution by name, the `jsubspace.Report` of the line with all scores and their intervals.
      changes: for every distribution by name, a `Change` per position, of the main score.
      score: the main score of the task, such as "accuracy".
    """

    alphas: tuple[float, ...]
    reports: Mapping[str, Report]
    changes: Mapping[str, tuple[Change, ...]]
    score: str

    def rows(self) -> Iterator[tuple[float, dict[str, tuple[float, list[float], Change]]]]:
        """For every alpha, and in it for every distribution by name: the main score, its interval, and its change."""
        for i, alpha in enumerate(self.alphas):
            row = {}
            for name, report in self.reports.items():
                point = report.at(alpha)
                row[name] = point.scores[self.score], list(point.intervals[self.score]), self.changes[name][i]
            yield alpha, row

    def table(self) -> str:
        """One line per alpha with the scores on every distribution and their changes, for a terminal."""
        titles = "  ".join(f"{f'{self.score} on {name}':<46}" for name in self.reports)
        lines = [f"alpha  {titles}".rstrip(), f"{'':<7}{'score and interval, then change from alpha = 1':<46}"]
        for alpha, row in self.rows():
            cells = []
            for value, (low, high), change in row.values():
                paired_bounds = (
                    "" if change.interval is None else f" ({change.interval[0]:+.3f} to {change.interval[1]:+.3f})"
                )
                cells.append(f"{f'{value:.3f} ({low:.3f} to {high:.3f}) {change.value:+.3f}{paired_bounds}':<46}")
            lines.append(f"{alpha:5.2f}  {'  '.join(cells)}".rstrip())
        return "\n".join(lines)


def robust_line(
    predict_fn: Callable[..., Any],
    pretrained: Params,
    fine_tuned: Params,
    distributions: Mapping[str, Batches],
    *,
    task: Task | None = None,
    num_points: int = 11,
    stats_fn: Callable[..., Any] | None = None,
    train_batches: Batches | None = None,
    weights: str | None = None,
    num_resamples: int = 1000,
) -> RobustLine:
    """Scores on two or more distributions along the line theta(alpha) = (1 - alpha) pretrained + alpha fine_tuned.

    A network that was fine-tuned on one distribution often loses on others. Points between the two networks often keep both.
    All distributions have the same points, and the same programs evaluate them.

    The interval of a change is about other examples of this distribution. If alpha is chosen by these numbers, measure the
    chosen network again on other examples.

    Args:
      predict_fn: ``(point, *inputs) -> outputs``, as `jsubspace.measure` takes it.
      pretrained, fine_tuned: two networks, leaves ``[*s]``.
      distributions: at least two lists of batches by name, as ``{"fine-tuned on": batches, "shifted": other_batches}``. The last
        array of a batch holds the labels, or what the task compares with.
      task: how the outputs are scored. The default is `jsubspace.Classification`.
      num_points: the number of points, at least 2.
      stats_fn, train_batches, weights: for networks with BatchNorm (`jsubspace.measure`).
      num_resamples: the number of bootstrap resamples for the intervals of scores, at least 20.

    Returns:
      A `RobustLine`.

    Raises:
      UsageError: if the two networks do not fit each other (`networks.checked`), or there are fewer than two distributions.
      ValueError: for other wrong arguments, as `jsubspace.measure` raises it.

    Example:
      >>> import jax.numpy as jnp
      >>> predict_fn = lambda point, x: x @ point["kernel"]
      >>> networks = [{"kernel": jnp.eye(2)}, {"kernel": jnp.array([[2.0, 5.0], [0.0, 1.0]])}]
      >>> x, y = jnp.eye(2), jnp.arange(2)
      >>> line = robust_line(predict_fn, *networks, {"both": [(x, y)], "second": [(x[1:], y[1:])]}, num_points=3)
      >>> [(alpha, row["both"][0], row["second"][0]) for alpha, row in line.rows()]
      [(0.0, 1.0, 1.0), (0.5, 0.5, 1.0), (1.0, 0.5, 1.0)]

    References:
      Wortsman et al., Robust fine-tuning of zero-shot models, 2022.
    """
    _check_distributions(distributions)
    found = given.checked({"pretrained": pretrained, "fine_tuned": fine_tuned}, "robust_line", _CALL)
    endpoints, line = found.stacked(), subspaces.Line()
    read = {f"the distribution {name!r}": batches for name, batches in distributions.items()}
    measure.check_inputs("robust_line", _CALL, predict_fn, endpoints, line, read, stats_fn, train_batches, weights)
    num_points = arguments.count("robust_line: num_points", num_points, 2)
    least = options.LEAST_RESAMPLES
    num_resamples = arguments.count("robust_line: num_resamples", num_resamples, least, f"{options.REASON}.")
    task = Classification() if task is None else checked(task)
    plan = survey(line, num_points)._replace(ensembles=())
    evaluator = Evaluator(networks.from_functions(predict_fn, stats_fn), task, plan)
    stats = None if train_batches is None else measure.stats_of(evaluator, endpoints, train_batches, weights)
    reports, changes = {}, {}
    for name, batches in distributions.items():
        outcomes = evaluator.outcomes(endpoints, stats, padded(batches, task))
        task.check_outcomes(outcomes)
        reports[name] = measure.report_of(endpoints, line, plan, outcomes, task, num_resamples)
        changes[name] = tuple(_changes(task, outcomes, num_points))
    return RobustLine(tuple(np.linspace(0, 1, num_points).tolist()), reports, changes, task.main)


def _changes(task: Task, outcomes: Outcomes, num_points: int) -> Iterator[Change]:
    """The main score of every point of the grid minus the score at its end."""
    values = np.asarray(task.connects_by(outcomes.points), np.float64)[:num_points]
    for row in values:
        found = paired.of_means([row], [values[-1]], is_fraction=task.main in task.fractions)
        if found is None:
            finite = np.isfinite(row).all() and np.isfinite(values[-1]).all()
            yield Change(float((row - values[-1]).mean()) if finite else np.nan, None)
        else:
            yield Change(found[0], (found[1][0], found[1][1]))


def _check_distributions(distributions: Any) -> None:
    if not isinstance(distributions, Mapping) or len(distributions) < 2:
        raise UsageError(
            f"robust_line: distributions is {arguments.described(distributions)}, but it must be a dictionary with at least two "
            f'lists of batches by name, as {{"fine-tuned on": batches, "shifted": other_batches}}.{arguments.order(_CALL)}'
        )
