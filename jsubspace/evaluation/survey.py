"""Which points of a subspace are evaluated, and which of them are combined into ensembles."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.evaluation import connectors
from jsubspace.subspaces import Point, Simplex, Subspace

Groups = dict[str, tuple[int, ...]]

GLOBAL, LAYERWISE, WEIGHTWISE, GAUSSIAN = "random", "layerwise", "weightwise", "gaussian"
KINDS = (GLOBAL, LAYERWISE, WEIGHTWISE, GAUSSIAN)
"""Kinds of random points: a draw for the whole network, one a layer, one a parameter, and SWA-Gaussian."""


class Survey(NamedTuple):
    """Points and ensembles.

    The p points are q positions in the subspace and, behind them, networks that are drawn at random. All are combinations
    of M rows: the m endpoints, and behind them the networks drawn.

    Attributes:
      names: of the p points, as they are shown: the alpha of a line or curve, a word for a simplex.
      alphas: of the q positions, ``[q, *alpha_shape]``.
      weights: ``[p, M]``.
      center: the place of the midpoint among the points.
      ends: the places of the ends: of alpha = 0 and 1, or of a simplex's corners.
      along: ``[s]`` weights of the first s positions in a mean over the subspace; none without points to take it over.
      ensembles: for each ensemble, the places of its members.
      ensemble_names: of the ensembles.
      main_ensembles: names of those that the method is known by, which a comparison of methods shows.
      drawn: the kinds of networks that are drawn, and how many of each.
    """

    names: tuple[str, ...]
    alphas: np.ndarray
    weights: np.ndarray
    center: int
    ends: tuple[int, ...]
    along: np.ndarray
    ensembles: tuple[tuple[int, ...], ...]
    ensemble_names: tuple[str, ...]
    main_ensembles: tuple[str, ...]
    drawn: tuple[tuple[str, int], ...]


def survey(
    subspace: Subspace,
    num_points: int = 21,
    num_random: int = 6,
    key: jax.Array | None = None,
    kinds: tuple[str, ...] = (),
    ensemble: Sequence[Any] = (),
) -> Survey:
    """The points of the paper's figures.

    For a line, curve or chain, a grid of ``num_points`` (odd) from 0 to 1 with both ends, and the ensemble of each
    alpha < 1/2 with 1 - alpha. For a simplex its center and corners, and the ensemble of the corners. For a single
    network, itself.

    Args:
      subspace: where the points lie.
      num_points: of the grid.
      num_random: how many random points of each kind; those of a kind are an ensemble.
      key: of the positions that are drawn.
      kinds: of random points, of `KINDS`.
      ensemble: alphas of one more ensemble, whose members are points of their own.
    """
    if isinstance(subspace, Point):
        return _make(subspace, ["network"], [0.0], 0, (0,), np.ones(1), {}, (), (), num_random)
    draws: np.ndarray = np.zeros(0)
    if GLOBAL in kinds:
        draws = np.asarray(subspace.sample(jax.random.key(0) if key is None else key, (num_random,)))
    random_names = [f"{GLOBAL} {i + 1}" for i in range(len(draws))]
    if isinstance(subspace, Simplex):
        m = subspace.num_endpoints
        ends = tuple(range(1, m + 1))
        names = ["center", *(f"corner {i}" for i in ends), *random_names]
        alphas = [np.asarray(subspace.center), *np.eye(m), *draws]
        along = np.r_[np.zeros(m + 1), np.full(len(draws), 1 / len(draws))] if len(draws) else np.zeros(0)
        groups: Groups = {"all corners": ends}
        center, main = 0, ["all corners"]
    else:
        grid = np.linspace(0, 1, num_points, dtype=np.float32)
        decimals = max(2, len(str(num_points - 2)))  # so that no two points of a fine grid have one name
        grid_names = [f"{alpha:.{decimals}f}" for alpha in grid]
        ends, center = (0, num_points - 1), num_points // 2
        groups = {f"{grid_names[i]} & {grid_names[-1 - i]}": (i, num_points - 1 - i) for i in range(center)}
        names, alphas, main = [*grid_names, *random_names], [*grid, *draws], [next(iter(groups))]
        along = connectors.trapezoid(np.linspace(0, 1, num_points))
    if len(draws):
        groups[f"{num_random} {GLOBAL}"] = tuple(range(len(names) - len(draws), len(names)))
        main.append(f"{num_random} {GLOBAL}")
    if ensemble:
        listed = [str(alpha) for alpha in ensemble]
        main.append(" & ".join(listed))
        groups[main[-1]] = tuple(range(len(names), len(names) + len(listed)))
        # Named apart from the grid's, which may have the same alpha.
        names, alphas = [*names, *(f"at {name}" for name in listed)], [*alphas, *map(np.asarray, ensemble)]
    return _make(subspace, names, alphas, center, ends, along, groups, tuple(main), kinds, num_random)


def center_alone(subspace: Subspace) -> Survey:
    """The midpoint, and nothing else."""
    return _make(subspace, ["midpoint"], [np.asarray(subspace.center)], 0, (), np.zeros(0), {}, (), (), 0)


def affine(weights: np.ndarray) -> Survey:
    """Combinations ``[p, m]`` of the endpoints, whatever subspace they are of; no ensembles."""
    names = tuple(str(i) for i in range(len(weights)))
    return Survey(names, weights, weights.astype(np.float32), 0, (), np.zeros(0), (), (), (), ())


def _make(
    subspace: Subspace,
    names: list[str],
    alphas: Sequence[Any],
    center: int,
    ends: tuple[int, ...],
    along: np.ndarray,
    groups: Groups,
    main: tuple[str, ...],
    kinds: tuple[str, ...],
    num_random: int,
) -> Survey:
    """Adds the networks that are drawn to the positions."""
    positions = np.asarray(alphas, np.float32)
    weights = np.asarray(subspace.coefficients(jnp.asarray(positions)))
    drawn = tuple((kind, num_random) for kind in kinds if kind != GLOBAL)
    for kind, count in drawn:
        groups = groups | {f"{count} {kind}": tuple(range(len(names), len(names) + count))}
        names, main = [*names, *(f"{kind} {i + 1}" for i in range(count))], (*main, f"{count} {kind}")
    (q, m), d = weights.shape, len(names) - len(weights)
    rows = np.zeros((q + d, m + d), np.float32)
    rows[:q, :m], rows[q:, m:] = weights, np.eye(d)
    ensembles = {name: members for name, members in groups.items() if len(members) > 1}
    return Survey(
        names=tuple(names),
        alphas=positions,
        weights=rows,
        center=center,
        ends=ends,
        along=along,
        ensembles=tuple(ensembles.values()),
        ensemble_names=tuple(ensembles),
        main_ensembles=tuple(name for name in main if name in ensembles),
        drawn=drawn,
    )
