"""Which points of a subspace are evaluated, and which of them are combined into ensembles."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.subspaces import Point, Simplex, Subspace

Groups = dict[str, tuple[int, ...]]


class Survey(NamedTuple):
    """Points and ensembles.

    Attributes:
      names: of the p points, as they are shown: the alpha of a line or curve, a word for a simplex.
      alphas: ``[p, *alpha_shape]``.
      weights: ``[p, m]``, the coefficients of the endpoints at each point.
      center: the place of the midpoint among the points.
      ensembles: for each ensemble, the places of its members.
      ensemble_names: of the ensembles.
    """

    names: tuple[str, ...]
    alphas: np.ndarray
    weights: np.ndarray
    center: int
    ensembles: tuple[tuple[int, ...], ...]
    ensemble_names: tuple[str, ...]


def survey(subspace: Subspace, num_points: int = 21, num_random: int = 6, key: jax.Array | None = None) -> Survey:
    """The points of the paper's figures.

    For a line or curve, a grid of ``num_points`` (odd) from 0 to 1 with both ends, and the ensemble of each alpha < 1/2
    with 1 - alpha. For a simplex its center, corners and ``num_random`` points drawn as in training, the ensemble
    of the corners and the ensemble of the random points. For a single network, itself.
    """
    if isinstance(subspace, Point):
        return _make(subspace, ["network"], np.zeros(1), 0, {})
    if isinstance(subspace, Simplex):
        m = subspace.num_endpoints
        key = jax.random.key(0) if key is None else key
        draws = np.asarray(subspace.sample(key, (num_random,)))
        names = ["center", *(f"corner {i + 1}" for i in range(m)), *(f"random {i + 1}" for i in range(num_random))]
        alphas = np.concatenate([np.asarray(subspace.center)[None], np.eye(m, dtype=np.float32), draws])
        groups: Groups = {
            "all corners": tuple(range(1, m + 1)),
            f"{num_random} random": tuple(range(m + 1, len(names))),
        }
        return _make(subspace, names, alphas, 0, groups)
    alphas = np.linspace(0, 1, num_points, dtype=np.float32)
    names = [f"{alpha:.2f}" for alpha in alphas]
    pairs: Groups = {f"{names[i]} & {names[-1 - i]}": (i, num_points - 1 - i) for i in range(num_points // 2)}
    return _make(subspace, names, alphas, num_points // 2, pairs)


def _make(subspace: Subspace, names: list[str], alphas: np.ndarray, center: int, groups: Groups) -> Survey:
    weights = np.asarray(subspace.coefficients(jnp.asarray(alphas, jnp.float32)))
    ensembles = {name: members for name, members in groups.items() if len(members) > 1}
    return Survey(tuple(names), alphas, weights, center, tuple(ensembles.values()), tuple(ensembles))
