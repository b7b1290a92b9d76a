"""Positions in a subspace that are evaluated: its grid, its center and its ends, with their names, kinds and roles."""

import collections
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jsubspace.positions import check_sum
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


def shown(subspace: Subspace, num_points: int) -> list[Position]:
    """The grid with its center and ends, which follow it where they are not on it."""
    center, ends = np.asarray(subspace.center), [np.asarray(end) for end in subspace.ends]
    if subspace.num_endpoints == 1:
        return [Position(NETWORK, NETWORK, (CENTER_ROLE,), center)]
    grid = np.asarray(subspace.grid(num_points))
    decimals = max(2, len(str(num_points - 2)))  # No two points of a fine grid on [0, 1] have one name.

    def roles_of(alpha: np.ndarray) -> tuple[str, ...]:
        is_end = any(is_same(alpha, end) for end in ends)
        is_center = is_same(alpha, center)
        return (*((CENTER_ROLE,) if is_center else ()), *((END_ROLE,) if is_end else ()))

    positions = [Position(_name(alpha, decimals), GRID, roles_of(alpha), alpha) for alpha in grid]
    if not any(CENTER_ROLE in position.roles for position in positions):
        positions.append(Position("center", CENTER, (CENTER_ROLE,), center))
    on_grid = [any(is_same(alpha, end) for alpha in grid) for end in ends]
    corners = [Position(f"corner {i + 1}", CORNER, (END_ROLE,), end) for i, end in enumerate(ends) if not on_grid[i]]
    return positions + corners


def with_names_of_their_own(positions: list[Position]) -> list[Position]:
    """The positions, with a number behind a name that another position has already."""
    seen: collections.Counter[str] = collections.Counter()
    named = []
    for position in positions:
        seen[position.name] += 1
        repeated = f"{position.name} ({seen[position.name]})"
        named.append(position._replace(name=repeated) if seen[position.name] > 1 else position)
    return named


def weights_of(subspace: Subspace, positions: list[Position]) -> tuple[np.ndarray, np.ndarray]:
    """The alphas ``[q, *alpha_shape]`` of positions, and the weights ``[q, m]`` of the endpoints there."""
    for position in positions:
        alpha = np.asarray(position.alpha)
        if alpha.shape != subspace.alpha_shape:
            raise ValueError(
                f"alpha {alpha.tolist()} has shape {list(alpha.shape)}, but {subspace} takes "
                f"{list(subspace.alpha_shape)}."
            )
    alphas = np.asarray([position.alpha for position in positions], np.float32)
    weights = np.asarray(subspace.coefficients(jnp.asarray(alphas)))
    for position, row in zip(positions, weights, strict=True):
        check_sum(np.asarray(row, np.float64), np.result_type(position.alpha), f"at {position.name} of {subspace}")
    return alphas, weights


def is_same(alpha: Any, other: Any) -> bool:
    """Whether two alphas are one position, as far as float32 tells."""
    return bool(np.allclose(np.float32(alpha), np.float32(other), rtol=1e-6, atol=1e-6))


def _name(alpha: np.ndarray, decimals: int) -> str:
    if alpha.ndim == 0:
        return f"{alpha:.{decimals}f}"
    return f"({', '.join(f'{number:.{decimals}f}' for number in alpha.ravel())})"


def name_of(subspace: Subspace) -> str:
    """What a subspace is called in a report: its ``repr``, or the name of its class if the class has no ``repr`` of its own."""
    return f"{type(subspace).__name__}()" if type(subspace).__repr__ is object.__repr__ else repr(subspace)
