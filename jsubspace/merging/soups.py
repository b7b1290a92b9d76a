"""Model soups: weights for networks that exist already, and the average with these weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jsubspace import arguments
from jsubspace.errors import UsageError
from jsubspace.evaluation.batches import Batches
from jsubspace.merging import folds, gains, parts, stock
from jsubspace.merging import networks as given
from jsubspace.merging.alphas import check_finite, cross_fitted
from jsubspace.merging.angles import angles
from jsubspace.merging.domains import onto_simplex
from jsubspace.merging.greedy import Step, greedy
from jsubspace.merging.losses import Losses, loss_function, point_at
from jsubspace.merging.overlap import warn_of_overlap
from jsubspace.merging.soup_report import SoupReport
from jsubspace.subspaces import Simplex
from jsubspace.types import Endpoints, Params

UNIFORM, GREEDY, FITTED, STOCK = "uniform", "greedy", "fitted", "stock"
WAYS = (UNIFORM, GREEDY, FITTED, STOCK)

ORIGIN = "origin"

_CALL = "soup(log_prob_fn, networks, validation_batches)"


class Soup(NamedTuple):
    """A soup.

    Attributes:
      weights: the weight of every network by name. With parts it is such a dictionary for every part by its name.
      network: the weighted average, leaves ``[*s]``.
      report: a `SoupReport`.
    """

    weights: Mapping[str, Any]
    network: Params
    report: SoupReport


def soup(
    log_prob_fn: Callable[..., Any] | None,
    networks: Any,
    validation_batches: Batches | None = None,
    how: str = UNIFORM,
    *,
    origin: Params | None = None,
    by: parts.By = None,
    groups: Any = None,
    num_folds: int = folds.FEWEST,
    num_steps: int = 60,
    training_batches: Batches | None = None,
    tolerance: float = 0.01,
) -> Soup:
    """A weighted average of networks of one architecture, with a report of what it is worth.

    - "uniform" gives all networks the same weight.
    - "greedy" tries networks in the order of their losses and keeps those that do not raise the loss (Wortsman et al., 2022).
    - "fitted" learns the weights by gradient, at least 0 and with the sum 1 (`jsubspace.fit_alpha`). They may be a local minimum. On
      the examples of the fit, it is never worse than the uniform soup or a single network.
    - "stock" goes from the pretrained network towards the average, as far as the angles between the networks say (Jang et al.,
      2024). It needs no data.

    Args:
      log_prob_fn: ``(point, *batch) -> [n]``, the log-probability of every example, in evaluation mode. It may be None where
        there is no validation data.
      networks: a list of networks with leaves ``[*s]``, or a dictionary of them by name. At least two.
      validation_batches: tuples of arrays ``[n, ...]`` that no network was trained on. They are kept in memory. "uniform" and
        "stock" do not need them, and use them for the report alone.
      how: one of the four words.
      origin: for "stock", the pretrained network.
      by: None for one weight per network, or what has weights of its own: "layer", "leaf", names of modules, or a tree of names
        (`parts.parts_of`). The paper of Model Stock uses one angle per leaf.
      groups: one label per example, if examples depend on each other (`jsubspace.fit_alpha`).
      num_folds: the number of folds for the gains, at least 5.
      num_steps: for "fitted", how many gradients each fit takes at most.
      training_batches: the training data of the networks, to warn of validation examples among them.
      tolerance: the smallest gain that matters, in nats.

    Returns:
      A `Soup`: weights, network, report. The network is computed in float32 or wider, has the dtypes of the networks and lies
      on the devices as they do.

    Raises:
      UsageError: if the networks do not fit each other (`networks.checked`), data or the origin is missing, there are fewer
        examples or groups than folds, or a loss is not finite.

    Warns:
      UserWarning: if a network is given twice, or validation examples are among training_batches.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (400,))
      >>> log_prob_fn = lambda point, x: jax.scipy.stats.norm.logpdf(x, point["mean"])
      >>> runs = {"a": {"mean": jnp.float32(-1)}, "b": {"mean": jnp.float32(1)}, "c": {"mean": jnp.float32(9)}}
      >>> weights, network, report = soup(log_prob_fn, runs, [(x,)], how="greedy")
      >>> weights, float(network["mean"])
      ({'a': 0.5, 'b': 0.5, 'c': 0.0}, 0.0)
      >>> report.over_center.verdict, [step.is_kept for step in report.steps]
      ('gain', [True, False])

    References:
      Wortsman et al., Model soups, 2022. Jang, Yun and Han, Model Stock, 2024.
    """
    _check(log_prob_fn, validation_batches, how, origin, by, tolerance, num_steps)
    found = given.checked(networks, "soup", _CALL)
    start = None if origin is None else given.checked_one(origin, found, "the origin", "soup")
    kept = found if start is None else given.Networks((ORIGIN, *found.names), (start, *found.points))
    endpoints = kept.stacked()
    part = parts.parts_of(endpoints, by, "soup")
    simplex = Simplex(len(kept.names))
    fixed, cosines = _fixed(found, start, part) if how in (UNIFORM, STOCK) else (None, {})
    if validation_batches is None:
        assert fixed is not None
        weights = _named(part, kept.names, fixed)
        return Soup(
            _shown(weights, part), point_at(endpoints, simplex, part, fixed), SoupReport(how, weights, cosines=cosines)
        )
    assert log_prob_fn is not None
    losses = Losses(
        loss_function(log_prob_fn), endpoints, simplex, part, validation_batches, "soup: validation_batches"
    )
    warn_of_overlap(losses.batches, training_batches, "soup")
    split = folds.folds(losses.num_examples, groups, num_folds, "soup")
    chosen = _chosen(losses, part, how, fixed, kept.names, split, num_steps)
    weights = _named(part, kept.names, chosen.positions[0])
    report = SoupReport(
        how,
        weights,
        float(chosen.losses[0].mean()),
        {name: float(row.mean()) for name, row in zip(kept.names, chosen.singles, strict=True)},
        None
        if how == UNIFORM
        else gains.gain(split.unseen(chosen.losses), chosen.center, split, "the uniform soup", tolerance),
        gains.gain(split.unseen(chosen.losses), split.unseen(chosen.best), split, "the best network", tolerance),
        chosen.steps,
        cosines,
        losses.num_examples,
    )
    return Soup(_shown(weights, part), losses.point(chosen.positions[0]), report)


class _Chosen(NamedTuple):
    """The soups of all fits, ``f = 1 + folds``.

    Attributes:
      positions: ``[f, parts, m]``.
      losses: ``[f, n]``.
      singles: ``[m, n]``, the losses of the networks.
      center: ``[n]``, the losses of the uniform soup.
      best: ``[f, n]``, the losses of the network that is best by what the fit sees.
      steps: of a greedy soup.
    """

    positions: np.ndarray
    losses: np.ndarray
    singles: np.ndarray
    center: np.ndarray
    best: np.ndarray
    steps: tuple[Step, ...]


def _chosen(
    losses: Losses,
    part: parts.Parts,
    how: str,
    fixed: np.ndarray | None,
    names: tuple[str, ...],
    split: folds.Folds,
    num_steps: int,
) -> _Chosen:
    m, count = len(names), len(part.names)
    corners = np.broadcast_to(np.eye(m)[:, None], (m, count, m))
    has_origin = how == STOCK
    average = np.full(m, 1 / (m - has_origin))
    average[:has_origin] = 0
    center = np.broadcast_to(average, (1, count, m))
    points = np.concatenate([corners, center])
    known = losses.per_example(points)
    singles, at_center = known[:-1], known[-1]
    order = split.seen(singles[has_origin:]).argmin(-1) + has_origin
    best = singles[order]
    steps: tuple[Step, ...] = ()
    check_finite(best[0], "soup", names[order[0]])
    if how == GREEDY:
        positions, steps = greedy(losses.per_example, singles, split, names, part.names)
        scored = losses.per_example(positions)
    elif how == FITTED:
        check_finite(at_center, "soup", "the uniform soup")
        starts, of_starts = (np.concatenate([each[-1:], each[:-1]]) for each in (points, known))
        fits = cross_fitted(losses.slopes, starts, of_starts, onto_simplex, split, num_steps)
        positions = fits.positions
        scored = losses.per_example(positions)
    else:
        assert fixed is not None
        positions = np.broadcast_to(fixed, (1 + split.num_folds, *fixed.shape))
        scored = np.broadcast_to(losses.per_example(fixed[None]), best.shape)
    return _Chosen(positions, scored, singles, at_center, best, steps)


def _fixed(found: given.Networks, start: Params | None, part: parts.Parts) -> tuple[np.ndarray, dict[str, float]]:
    """The weights ``[parts, m]`` that need no data, and the cosines of Model Stock."""
    m = len(found.names)
    if start is None:
        return np.full((len(part.names), m), 1 / m), {}
    endpoints: Endpoints = found.stacked()
    weights, cosines = stock.weights(angles(endpoints, part, start).cosines)
    return weights, dict(zip(part.names, cosines.tolist(), strict=True))


def _named(part: parts.Parts, names: tuple[str, ...], weights: np.ndarray) -> dict[str, dict[str, float]]:
    rows = weights.tolist()
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(part.names, rows, strict=True)}


def _shown(weights: Mapping[str, Any], part: parts.Parts) -> Mapping[str, Any]:
    return weights[part.names[0]] if part.is_whole else weights


def _check(log_prob_fn: Any, batches: Any, how: Any, origin: Any, by: Any, tolerance: Any, num_steps: Any) -> None:
    """Raises a UsageError if an argument is of a wrong kind, or arguments do not go together."""
    try:
        arguments.one_of("how", how, WAYS)
        if log_prob_fn is not None or batches is not None:
            arguments.function("log_prob_fn", log_prob_fn, "(point, *batch) -> log-probabilities [n]", _CALL)
        arguments.strength("tolerance", tolerance, "the smallest gain that matters")
        if arguments.integer("num_steps", num_steps) < 2:
            raise UsageError(f"num_steps is {num_steps}, but it must be at least 2.")
    except ValueError as error:
        raise UsageError(f"soup: {error}") from None
    if batches is None and how in (GREEDY, FITTED):
        raise UsageError(f'soup: how is "{how}", which chooses weights on data. Give validation_batches.')
    if (origin is None) == (how == STOCK):
        words = "Give it" if origin is None else "Leave it out"
        raise UsageError(
            f'soup: the origin belongs to how="stock": it is the pretrained network. {words}, or change how.'
        )
    if by is not None and how == UNIFORM:
        raise UsageError(
            'soup: by has no effect on how="uniform", which gives every leaf the same weights. Leave it out.'
        )
