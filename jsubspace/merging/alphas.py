"""The best position in a subspace for validation data, and whether it is better than the center."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, tree
from jsubspace.errors import UsageError
from jsubspace.evaluation import connectors
from jsubspace.evaluation.batches import Batches
from jsubspace.evaluation.positions import CENTER_ROLE, name_of, shown
from jsubspace.merging import descent, domains, folds, gains, parts
from jsubspace.merging.losses import LOG_PROB, OBJECTIVES, Losses, loss_function
from jsubspace.merging.overlap import warn_of_overlap
from jsubspace.subspaces import Subspace, is_path, takes_weights
from jsubspace.types import Alpha, Endpoints, Params

GRADIENT, GRID = "gradient", "grid"
CENTER = "the center"

_MOST_ON_GRID = 3
_PRECISION = 1e-5
"""A fit in float32 ends when a step moves no number by more."""

_COARSE_PATH, _COARSE = 11, 5
"""The points of the coarse grid that shows where a fit may start: on a path, and along each axis elsewhere."""

_CALL = "fit_alpha(log_prob_fn, endpoints, subspace, batches)"


class FittedAlpha(NamedTuple):
    """A position that was fitted to validation data.

    Attributes:
      alpha: ``[*alpha_shape]``, or with parts a tree with one such array per leaf. `jsubspace.interpolate` takes both.
      network: the network there, leaves ``[*s]``.
      gain: what the fit gains over the center on examples that it has not seen, with a 95 % interval and a verdict
        (`gains.Gain`). With the verdict "no gain", use the center.
      loss: the mean loss at alpha on all examples, which the fit has seen. It is too low as an estimate for new data.
      loss_at_center: the mean loss at the center on the same examples.
      by_part: the position of every part by its name, ``[*alpha_shape]``. Without parts it has the one name "whole".
      fold_alphas: ``[folds, parts, *alpha_shape]``, the positions that were fitted without each fold.
      num_examples: the number of validation examples.
      steps: how many gradients the longest descent took, or the points of the grid.
      is_done: whether all fits ended before their steps were used up.
    """

    alpha: Alpha
    network: Params
    gain: gains.Gain
    loss: float
    loss_at_center: float
    by_part: dict[str, np.ndarray]
    fold_alphas: np.ndarray
    num_examples: int
    steps: int
    is_done: bool

    def table(self) -> str:
        """The positions and the gain, for a terminal."""
        lines = [f"{'part':<30} alpha"]
        for name, alpha in self.by_part.items():
            numbers = " ".join(f"{number:.3f}" for number in np.ravel(alpha))
            lines.append(f"{name or 'top':<30} {numbers}")
        unfinished = "" if self.is_done else " Some fits used up their steps. Give more of them (num_steps)."
        lines += [
            "",
            f"loss on the {self.num_examples} examples of the fit: {self.loss:.4f}, at the center {self.loss_at_center:.4f}.{unfinished}",
            f"on examples that the fit has not seen: {self.gain}",
        ]
        return "\n".join(lines)


def fit_alpha(
    log_prob_fn: Callable[..., Any],
    endpoints: Endpoints,
    subspace: Subspace,
    batches: Batches,
    *,
    objective: str = LOG_PROB,
    method: str = GRADIENT,
    by: parts.By = None,
    groups: Any = None,
    num_folds: int = folds.FEWEST,
    num_steps: int = 60,
    num_points: int = 21,
    training_batches: Batches | None = None,
    tolerance: float = 0.01,
) -> FittedAlpha:
    """The best position in a subspace for validation data that a descent or a grid finds, and its gain over the center.

    The endpoints stay as they are. The gain comes from cross-fitting: the position is fitted again without each of five folds,
    and every example is scored by the fit that has not seen it. The answer may be "no gain".

    By gradient, the position is a local minimum of the mean loss, and there may be a lower one. The center, the ends and a coarse
    grid are scored first, in one forward pass (11 networks on a line). Every fit descends from the center, and also from the best
    of these positions if this is another one, and keeps the lower end. On the examples of the fit, the position is never worse
    than any of them. Every step takes one gradient of one network per batch and descent. The loss is
    dL / dc_i = <g, omega_i> steep along the coefficient of endpoint i. Positions stay inside of the subspace. By grid, every
    batch is read once for all points.

    Args:
      log_prob_fn: ``(point, *batch) -> [n]``, the log-probability of every example, in evaluation mode. With the objective
        "entropy" it is instead ``predict_fn(point, *batch) -> logits [n, k]``.
      endpoints: leaves ``[m, *s]``.
      subspace: what the endpoints span, such as ``Simplex(m)`` for networks of `jsubspace.stack`.
      batches: validation data, tuples of arrays ``[n, ...]``, which the function gets. All are kept in memory. For the entropy
        they hold inputs without labels.
      objective: "log_prob" to minimise the mean negative log-probability, or "entropy" to minimise the mean entropy of
        predictions. A low entropy needs no labels and does not prove that predictions are right. The gain is then in entropy.
      method: "gradient", or "grid" for one position and at most three endpoints.
      by: None for one position, or what gets positions of its own: "layer", "leaf", names of modules, or a tree of names
        (`parts.parts_of`).
      groups: one label per example in the order of the batches, if examples depend on each other, as images of one patient.
        A group is in one fold, and the interval is over groups.
      num_folds: the number of folds, at least 5.
      num_steps: how many gradients each descent takes at most. A fit has one or two descents.
      num_points: the number of points along each axis of the grid.
      training_batches: the training data of the networks, to warn of validation examples among them.
      tolerance: the smallest gain that matters, in nats. The verdict is "no gain" if the interval lies below it.

    Returns:
      A `FittedAlpha`.

    Raises:
      UsageError: if an argument is of a wrong kind, endpoints and subspace do not fit, there are fewer examples or groups than
        folds, or the loss at the center is not finite.

    Warns:
      UserWarning: if validation examples are among training_batches.

    Example:
      >>> import jax, jax.numpy as jnp, jsubspace
      >>> endpoints = {"mean": jnp.array([0.0, 2.0])}
      >>> x = jax.random.normal(jax.random.key(0), (400,)) + 0.2
      >>> log_prob_fn = lambda point, x: jax.scipy.stats.norm.logpdf(x, point["mean"])
      >>> best = fit_alpha(log_prob_fn, endpoints, jsubspace.Line(), [(x,)])
      >>> bool(abs(2 * best.alpha - x.mean()) < 1e-3), best.gain.verdict
      (True, 'gain')
    """
    _check(log_prob_fn, endpoints, subspace, objective, method, num_steps, num_points, tolerance)
    found = parts.parts_of(endpoints, by, "fit_alpha")
    losses = Losses(loss_function(log_prob_fn, objective), endpoints, subspace, found, batches, "fit_alpha: batches")
    warn_of_overlap(losses.batches, training_batches, "fit_alpha")
    split = folds.folds(losses.num_examples, groups, num_folds)
    center = np.broadcast_to(np.asarray(subspace.center, np.float64), (1, len(found.names), *subspace.alpha_shape))
    if method == GRID:
        fits, scored, at_center = _on_grid(losses, subspace, center, split, num_points, found)
    else:
        fits, scored, at_center = _by_gradient(losses, subspace, center, split, num_steps)
    best = fits.positions[0]
    return FittedAlpha(
        found.alpha(jnp.asarray(best)),
        losses.point(best),
        gains.gain(split.unseen(scored), at_center, split, CENTER, tolerance),
        float(scored[0].mean()),
        float(at_center.mean()),
        dict(zip(found.names, best, strict=True)),
        fits.positions[1:],
        losses.num_examples,
        fits.steps,
        bool(fits.is_done.all()),
    )


def cross_fitted(
    slopes: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    starts: np.ndarray,
    of_starts: np.ndarray,
    project: domains.Projection,
    split: folds.Folds,
    num_steps: int,
    precision: float = _PRECISION,
) -> descent.Found:
    """The fits of all examples and of all but each fold, by gradient.

    Every fit descends from the center, and from the start that is best for the examples that the fit sees. It keeps the lower
    end, so it is never worse than a start.

    Args:
      slopes: of `losses.Losses.slopes`.
      starts: ``[s, parts, *alpha_shape]``, where a fit may start, with the center first.
      of_starts: ``[s, n]``, the losses there.
      project: of `domains.projection`.
      split: the folds.
      num_steps: how many gradients each descent takes at most.
      precision: a descent ends when a step moves no number by more.
    """
    best = split.seen(of_starts).argmin(-1)
    others, num_fits = np.flatnonzero(best), len(best)
    fit = np.concatenate([np.arange(num_fits), others])
    start = starts[np.concatenate([np.zeros(num_fits, int), best[others]])]
    weights = split.weights[fit]
    ends = descent.minimised(lambda points: slopes(points, weights), start, project, num_steps, precision)
    kept = np.arange(num_fits)
    kept[others] = np.where(ends.losses[num_fits:] < ends.losses[others], np.arange(num_fits, len(fit)), others)
    return descent.Found(ends.positions[kept], ends.losses[kept], ends.steps, ends.is_done[kept])


Scored = tuple[descent.Found, np.ndarray, np.ndarray]
"""The fits, their losses ``[1 + folds, n]``, and the losses ``[n]`` at the center."""


def _by_gradient(losses: Losses, subspace: Subspace, center: np.ndarray, split: folds.Folds, num_steps: int) -> Scored:
    seen = shown(subspace, _COARSE_PATH if is_path(subspace) else _COARSE)
    alphas = [one.alpha for one in seen if one.alpha is not None and CENTER_ROLE not in one.roles]
    starts = np.concatenate([center, *(np.broadcast_to(alpha, center.shape) for alpha in alphas)])
    of_starts = losses.per_example(starts)
    check_finite(of_starts[0], "fit_alpha", CENTER)
    fits = cross_fitted(losses.slopes, starts, of_starts, domains.projection(subspace), split, num_steps)
    return fits, losses.per_example(fits.positions), of_starts[0]


def _on_grid(
    losses: Losses,
    subspace: Subspace,
    center: np.ndarray,
    split: folds.Folds,
    num_points: int,
    found: parts.Parts,
) -> Scored:
    """The best point of the grid for every fit. The center is a point of the grid, and the first of equals."""
    m = subspace.num_endpoints
    if not found.is_whole or m > _MOST_ON_GRID:
        raise UsageError(
            f'fit_alpha: method is "grid", which fits one position among at most {_MOST_ON_GRID} endpoints, but there are {m} '
            f'endpoints and {len(found.names)} positions. Use method="gradient".'
        )
    has_mesh = takes_weights(subspace) and m > 1
    grid = connectors.mesh(m, num_points if m == 2 else num_points * (num_points + 1) // 2)[0] if has_mesh else None
    points = np.asarray(subspace.grid(num_points) if grid is None else grid, np.float64)
    points = np.concatenate([center, points.reshape(-1, *center.shape[1:])])
    scored = losses.per_example(points)
    check_finite(scored[0], "fit_alpha", CENTER)
    means = split.seen(scored)
    best = np.argmin(means, axis=-1)
    fits = descent.Found(points[best], means[np.arange(len(best)), best], len(points), np.ones(len(best), bool))
    return fits, scored[best], scored[0]


def check_finite(losses: np.ndarray, caller: str, place: str) -> None:
    """Raises a UsageError if a loss ``[n]`` is not finite. ``place`` names the network in the message."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    if len(wrong):
        raise UsageError(
            f"{caller}: the loss at {place} is {losses[wrong[0]]} for {len(wrong)} of {len(losses)} examples, the first of them example "
            f"{wrong[0]}. Look at the function and at these examples. A network with BatchNorm must normalise by the batch, or by "
            "statistics that the function gets."
        )


def _check(
    log_prob_fn: Any,
    endpoints: Any,
    subspace: Any,
    objective: Any,
    method: Any,
    num_steps: Any,
    num_points: Any,
    tolerance: Any,
) -> None:
    """Raises a UsageError if an argument is of a wrong kind, or endpoints and subspace do not fit."""
    try:
        arguments.one_of("objective", objective, OBJECTIVES)
        arguments.one_of("method", method, (GRADIENT, GRID))
        takes = "(point, *batch) -> log-probabilities [n]" if objective == LOG_PROB else "(point, *batch) -> logits"
        arguments.function("log_prob_fn", log_prob_fn, takes, _CALL)
        m = tree.num_endpoints(endpoints, _CALL)
        given = arguments.subspace(subspace, _CALL)
        arguments.strength("tolerance", tolerance, "the smallest gain that matters")
        counts = [arguments.integer(*each) for each in (("num_steps", num_steps), ("num_points", num_points))]
    except ValueError as error:
        raise UsageError(f"fit_alpha: {error}") from None
    if m != given.num_endpoints:
        raise UsageError(
            f"fit_alpha: {name_of(given)} has {given.num_endpoints} endpoints but {m} were given.{arguments.order(_CALL)}"
        )
    if min(counts) < 2:
        raise UsageError(
            f"fit_alpha: num_steps is {num_steps} and num_points is {num_points}. Each must be at least 2."
        )
