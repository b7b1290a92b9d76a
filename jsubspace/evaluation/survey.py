"""Which points of a subspace are evaluated, and which of them are combined into ensembles."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, subspaces
from jsubspace.evaluation import connectors
from jsubspace.evaluation.positions import (
    CENTER,
    CENTER_ROLE,
    END_ROLE,
    ENDS,
    GRID,
    KINDS,
    LISTED,
    MESH,
    PAIR,
    RANDOM,
    Position,
    is_same,
    shown,
    weights_of,
    with_names_of_their_own,
)
from jsubspace.subspaces import Subspace


class Ensemble(NamedTuple):
    """Points and their combined predictions.

    Attributes:
      name: for people, unique in a survey.
      kind: how the members were chosen: ends, pair, listed, or one of `KINDS`.
      members: places of the members among the positions.
    """

    name: str
    kind: str
    members: tuple[int, ...]


class Survey(NamedTuple):
    """Points and ensembles.

    The p points are q positions in the subspace, followed by networks that are drawn at random. All are combinations of
    M rows: the m endpoints, followed by the networks that are drawn.

    Attributes:
      positions: the p points.
      weights: ``[p, M]``.
      ensembles: of two members at least.
      drawn: the kinds of networks that are drawn, with the number of networks of each kind.
      along: ``[s]``, weights of the first s positions in a mean over the subspace. Empty if no such mean is known.
      combinations: ``[s, e]``, for each of these positions the convex combination of the e ends with which a connector is
        compared there. Empty if ``along`` is.
    """

    positions: tuple[Position, ...]
    weights: np.ndarray
    ensembles: tuple[Ensemble, ...] = ()
    drawn: tuple[tuple[str, int], ...] = ()
    along: np.ndarray = np.zeros(0)
    combinations: np.ndarray = np.zeros((0, 0))

    @property
    def center(self) -> int:
        """The place of the midpoint among the positions."""
        return next(i for i, position in enumerate(self.positions) if CENTER_ROLE in position.roles)

    @property
    def ends(self) -> tuple[int, ...]:
        """The places of the ends among the positions."""
        return tuple(i for i, position in enumerate(self.positions) if END_ROLE in position.roles)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The places of the members of each ensemble."""
        return tuple(ensemble.members for ensemble in self.ensembles)


def survey(
    subspace: Subspace,
    num_points: int = 21,
    num_random: int = 6,
    key: jax.Array | None = None,
    kinds: tuple[str, ...] = (),
    ensemble: Sequence[Any] = (),
) -> Survey:
    """The points that show a subspace: its grid, its center, its ends, and random points.

    For a path (line, curve, chain) these are the points of the paper's figures, with the ensemble of each alpha and its
    mirror image. A simplex has its center, its corners and their ensemble. If random points are asked for, a simplex of two
    or three endpoints also has a mesh, a regular grid of at most ``num_points`` points. The mean over the mesh does not
    depend on draws. A single network is surveyed by itself.

    Args:
      subspace: where the points lie.
      num_points: n of ``subspace.grid(n)``. If it is even on a path, the center is not on the grid but a point of its own.
      num_random: the number of random points of each kind. The points of a kind form an ensemble.
      key: for the positions that are drawn.
      kinds: kinds of random points, from `KINDS`.
      ensemble: alphas of one more ensemble. Its members are added to the points.

    Raises:
      ValueError: if there is no such kind, no point or no alpha of this shape, or the weights at a point do not sum to 1.

    Example:
      >>> plan = survey(subspaces.Line(), num_points=3)
      >>> [(position.name, position.roles) for position in plan.positions]
      [('0.00', ('end',)), ('0.50', ('center',)), ('1.00', ('end',))]
      >>> [(found.name, found.kind) for found in plan.ensembles]
      [('0.00 & 1.00', 'ends')]
    """
    _check_kinds(kinds)
    num_points = arguments.count("num_points", num_points, 2, "A grid with its center has 3 points.")
    num_random = arguments.count("num_random_points", num_random, 1 if kinds else 0)
    _check_ensemble(ensemble)
    positions = with_names_of_their_own(shown(subspace, num_points))
    along = len(positions) if subspaces.is_path(subspace) else 0
    ensembles = _of_ends(subspace, positions)
    if RANDOM in kinds:
        draws = np.asarray(subspace.sample(jax.random.key(0) if key is None else key, (num_random,)))
        ensembles.append(_following(positions, RANDOM, num_random))
        positions += [Position(f"{RANDOM} {i + 1}", RANDOM, (), alpha) for i, alpha in enumerate(draws)]
        positions += _mesh(subspace, num_points, positions)
        along = along or len(positions)
    if len(ensemble):
        names = [str(alpha) for alpha in ensemble]
        ensembles.append(_following(positions, LISTED, len(names), " & ".join(names)))
        # Their names differ from the grid's, which may have the same alpha.
        positions += [
            Position(f"at {name}", LISTED, (), np.asarray(alpha))
            for name, alpha in zip(names, ensemble, strict=True)
        ]  # fmt: skip
    positions = with_names_of_their_own(positions)
    alphas, weights = weights_of(subspace, positions)
    drawn = tuple((kind, num_random) for kind in kinds if kind != RANDOM)
    for kind, count in drawn:
        ensembles.append(_following(positions, kind, count))
        positions += [Position(f"{kind} {i + 1}", kind) for i in range(count)]
    return Survey(
        tuple(positions),
        _with_rows_for(len(positions) - len(weights), weights),
        tuple(found for found in ensembles if len(found.members) > 1),
        drawn,
        *_means(subspace, num_points, positions, alphas, weights, along),
    )


def center_alone(subspace: Subspace) -> Survey:
    """The midpoint, and nothing else."""
    alpha = np.asarray(subspace.center, np.float32)
    weights = np.asarray(subspace.coefficients(jnp.asarray(alpha[None])))
    return Survey((Position("midpoint", CENTER, (CENTER_ROLE,), alpha),), weights)


def affine(weights: np.ndarray) -> Survey:
    """Combinations ``[p, m]`` of the endpoints of any subspace, without ensembles."""
    names = tuple(Position(str(i), LISTED, (), row) for i, row in enumerate(weights))
    return Survey(names, weights.astype(np.float32))


def _check_kinds(kinds: Any) -> None:
    if not isinstance(kinds, tuple | list) or not all(isinstance(kind, str) and kind in KINDS for kind in kinds):
        raise ValueError(f"the kinds of random points are {kinds!r}. They must be a tuple of {', '.join(KINDS)}.")


def _check_ensemble(ensemble: Any) -> None:
    """Raises a ValueError if the alphas are no list of numbers. `positions.weights_of` knows their shapes."""
    is_list = isinstance(ensemble, tuple | list) or (hasattr(ensemble, "dtype") and np.ndim(ensemble) > 0)
    if not is_list or not all(arguments.are_real_numbers(alpha) and np.isfinite(alpha).all() for alpha in ensemble):
        raise ValueError(
            f"ensemble is {arguments.described(ensemble)}. It must hold the alphas of its members, finite numbers as in "
            "(0.25, 0.75), or on a simplex tuples of weights."
        )


def _has_mesh(subspace: Subspace) -> bool:
    return subspaces.takes_weights(subspace) and subspace.num_endpoints in (2, 3)


def _mesh(subspace: Subspace, num_points: int, positions: list[Position]) -> list[Position]:
    """The points of a simplex's mesh that are not among its center and corners."""
    if not _has_mesh(subspace):
        return []
    fixed = [np.asarray(position.alpha) for position in positions if position.roles]
    alphas, _ = connectors.mesh(subspace.num_endpoints, num_points)
    new = [alpha for alpha in alphas if not any(is_same(alpha, old) for old in fixed)]
    return [Position(f"{MESH} {i + 1}", MESH, (), alpha) for i, alpha in enumerate(new)]


def _of_ends(subspace: Subspace, positions: list[Position]) -> list[Ensemble]:
    """The ensemble of all ends. On a path, also the ensemble of every alpha and its mirror image."""
    ends = tuple(i for i, position in enumerate(positions) if END_ROLE in position.roles)
    if not subspaces.is_path(subspace):
        return [Ensemble("all corners", ENDS, ends)]
    grid = [i for i, position in enumerate(positions) if position.kind == GRID]
    pairs = [(grid[i], grid[-1 - i]) for i in range(len(grid) // 2)]
    if set(ends) not in map(set, pairs):
        pairs = [(ends[0], ends[1]), *pairs]
    return [
        Ensemble(f"{positions[i].name} & {positions[j].name}", ENDS if {i, j} == set(ends) else PAIR, (i, j))
        for i, j in pairs
    ]


def _following(positions: list[Position], kind: str, count: int, name: str = "") -> Ensemble:
    """The ensemble of ``count`` points that are about to follow the positions."""
    return Ensemble(name or f"{count} {kind}", kind, tuple(range(len(positions), len(positions) + count)))


def _with_rows_for(num_drawn: int, weights: np.ndarray) -> np.ndarray:
    """Weights ``[q, m]`` of positions, with a row and a column for every network that is drawn: ``[p, M]``."""
    q, m = weights.shape
    extended = np.zeros((q + num_drawn, m + num_drawn), np.float32)
    extended[:q, :m], extended[q:, m:] = weights, np.eye(num_drawn)
    return extended


def _means(
    subspace: Subspace, num_points: int, positions: list[Position], alphas: np.ndarray, weights: np.ndarray, s: int
) -> tuple[np.ndarray, np.ndarray]:
    """`Survey.along` and `Survey.combinations`: the trapezoid rule on a path or mesh, equal weights of random points elsewhere."""
    if s == 0 or len(subspace.ends) < 2:
        return np.zeros(0), np.zeros((0, 0))
    if subspaces.is_path(subspace):
        first, last = (float(np.asarray(end)) for end in subspace.ends)
        reached = (alphas[:s].astype(np.float64) - first) / (last - first)
        # All points count, also a center that is not on the grid. The grid of two points has the ends alone.
        order, along = np.argsort(reached), np.zeros(s)
        along[order] = connectors.trapezoid(reached[order])
        return along, np.stack([1 - reached, reached], axis=-1)
    if not subspaces.is_hull(subspace):  # A bend is no end, and nobody knows with what to compare a point there.
        return np.zeros(0), np.zeros((0, 0))
    combinations = weights[:s, : subspace.num_endpoints].astype(np.float64)
    if _has_mesh(subspace):
        along = np.zeros(s)
        fixed = np.array([i for i in range(s) if positions[i].roles or positions[i].kind == MESH])
        for alpha, weight in zip(*connectors.mesh(subspace.num_endpoints, num_points), strict=True):
            along[fixed[np.abs(combinations[fixed] - alpha).max(-1).argmin()]] += weight
        return along, combinations
    is_random = np.array([position.kind == RANDOM for position in positions[:s]])
    return is_random / is_random.sum(), combinations
