"""Which points of a subspace are evaluated, and which of them are combined into ensembles."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import subspaces
from jsubspace.evaluation import connectors
from jsubspace.subspaces import Subspace

GRID, CENTER, CORNER, MESH, LISTED, NETWORK = "grid", "center", "corner", "mesh", "listed", "network"
RANDOM, LAYERWISE, WEIGHTWISE, GAUSSIAN = "random", "layerwise", "weightwise", "gaussian"
KINDS = (RANDOM, LAYERWISE, WEIGHTWISE, GAUSSIAN)
"""Kinds of random points: one draw per network, per layer, per parameter, and draws from SWA-Gaussian."""

ENDS, PAIR = "ends", "pair"
"""Kinds of ensembles besides `KINDS` and ``listed``: of all ends, and of a path's alpha and its mirror image."""

CENTER_ROLE, END_ROLE = "center", "end"


class Position(NamedTuple):
    """A point that is evaluated.

    Attributes:
      name: for people, unique in a survey: the alpha of a path, or words.
      kind: how the point was chosen: grid, center, corner, mesh, listed, network, or one of `KINDS`.
      roles: what the point is in the subspace: "center", "end", or neither.
      alpha: ``[*alpha_shape]``, or None for a network that is drawn and has no single alpha.
    """

    name: str
    kind: str
    roles: tuple[str, ...] = ()
    alpha: np.ndarray | None = None


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
      num_points: n of ``subspace.grid(n)``. It is odd for a path, so that the center is on the grid.
      num_random: the number of random points of each kind. The points of a kind form an ensemble.
      key: for the positions that are drawn.
      kinds: kinds of random points, from `KINDS`.
      ensemble: alphas of one more ensemble. Its members are added to the points.

    Example:
      >>> plan = survey(subspaces.Line(), num_points=3)
      >>> [(position.name, position.roles) for position in plan.positions]
      [('0.00', ('end',)), ('0.50', ('center',)), ('1.00', ('end',))]
      >>> [(found.name, found.kind) for found in plan.ensembles]
      [('0.00 & 1.00', 'ends')]
    """
    positions = _shown(subspace, num_points)
    along = len(positions) if subspaces.is_path(subspace) else 0
    ensembles = _of_ends(subspace, positions)
    if RANDOM in kinds:
        draws = np.asarray(subspace.sample(jax.random.key(0) if key is None else key, (num_random,)))
        ensembles.append(_following(positions, RANDOM, num_random))
        positions += [Position(f"{RANDOM} {i + 1}", RANDOM, (), alpha) for i, alpha in enumerate(draws)]
        positions += _mesh(subspace, num_points, positions)
        along = along or len(positions)
    if ensemble:
        names = [str(alpha) for alpha in ensemble]
        ensembles.append(_following(positions, LISTED, len(names), " & ".join(names)))
        # Their names differ from the grid's, which may have the same alpha.
        positions += [
            Position(f"at {name}", LISTED, (), np.asarray(alpha))
            for name, alpha in zip(names, ensemble, strict=True)
        ]  # fmt: skip
    alphas = np.asarray([position.alpha for position in positions], np.float32)
    weights = np.asarray(subspace.coefficients(jnp.asarray(alphas)))
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


def _shown(subspace: Subspace, num_points: int) -> list[Position]:
    """The grid with its center and ends, which follow it where they are not on it."""
    center, ends = np.asarray(subspace.center), [np.asarray(end) for end in subspace.ends]
    grid = np.asarray(subspace.grid(num_points))
    if subspace.num_endpoints == 1 and len(grid) == 1:
        return [Position(NETWORK, NETWORK, (CENTER_ROLE,), grid[0])]
    decimals = max(2, len(str(num_points - 2)))  # No two points of a fine grid have one name.

    def roles_of(alpha: np.ndarray) -> tuple[str, ...]:
        is_end = any(np.allclose(alpha, end, rtol=0, atol=1e-6) for end in ends)
        is_center = np.allclose(alpha, center, rtol=0, atol=1e-6)
        return (*((CENTER_ROLE,) if is_center else ()), *((END_ROLE,) if is_end else ()))

    positions = [Position(_name(alpha, decimals), GRID, roles_of(alpha), alpha) for alpha in grid]
    if not any(CENTER_ROLE in position.roles for position in positions):
        positions.append(Position("center", CENTER, (CENTER_ROLE,), center))
    on_grid = [any(np.allclose(alpha, end, rtol=0, atol=1e-6) for alpha in grid) for end in ends]
    corners = [Position(f"corner {i + 1}", CORNER, (END_ROLE,), end) for i, end in enumerate(ends) if not on_grid[i]]
    return positions + corners


def _has_mesh(subspace: Subspace) -> bool:
    return isinstance(subspace, subspaces.Simplex) and subspace.num_endpoints in (2, 3)


def _mesh(subspace: Subspace, num_points: int, positions: list[Position]) -> list[Position]:
    """The points of a simplex's mesh that are not among its center and corners."""
    if not _has_mesh(subspace):
        return []
    fixed = [np.asarray(position.alpha) for position in positions if position.roles]
    alphas, _ = connectors.mesh(subspace.num_endpoints, num_points)
    new = [alpha for alpha in alphas if not any(np.allclose(alpha, old, rtol=0, atol=1e-6) for old in fixed)]
    return [Position(f"{MESH} {i + 1}", MESH, (), alpha) for i, alpha in enumerate(new)]


def _name(alpha: np.ndarray, decimals: int) -> str:
    if alpha.ndim == 0:
        return f"{alpha:.{decimals}f}"
    return f"({', '.join(f'{number:.{decimals}f}' for number in alpha.ravel())})"


def _of_ends(subspace: Subspace, positions: list[Position]) -> list[Ensemble]:
    """The ensemble of all ends. On a path, also the ensemble of every alpha and its mirror image."""
    ends = tuple(i for i, position in enumerate(positions) if END_ROLE in position.roles)
    if not subspaces.is_path(subspace):
        return [Ensemble("all corners", ENDS, ends)]
    grid = [i for i, position in enumerate(positions) if position.kind == GRID]
    pairs = [(grid[i], grid[-1 - i]) for i in range(len(grid) // 2)]
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
        along = connectors.trapezoid(np.asarray(subspace.grid(num_points), np.float64))
        return np.concatenate([along, np.zeros(s - len(along))]), np.stack([1 - reached, reached], axis=-1)
    if not subspaces.is_hull(subspace):  # A bend is no end, and nobody knows with what to compare a point there.
        return np.zeros(0), np.zeros((0, 0))
    combinations = weights[:s, : subspace.num_endpoints].astype(np.float64)
    if _has_mesh(subspace):
        along = np.zeros(s)
        fixed = [i for i in range(s) if positions[i].roles or positions[i].kind == MESH]
        for alpha, weight in zip(*connectors.mesh(subspace.num_endpoints, num_points), strict=True):
            along[min(fixed, key=lambda i: float(np.abs(combinations[i] - alpha).max()))] += weight
        return along, combinations
    is_random = np.array([position.kind == RANDOM for position in positions[:s]])
    return is_random / is_random.sum(), combinations
