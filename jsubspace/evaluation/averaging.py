"""Networks made from a stack of networks: what weight averaging and its Bayesian kin draw.

Checkpoints of a run, stacked, are a `Simplex`: their average (SWA; Izmailov et al., 2018) is its `jsubspace.midpoint`, an
ensemble of them its corners. What is here goes beyond a position on it: a Gaussian fitted to the stack, and random
averages with weights of their own for every layer or every single parameter.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jsubspace import arguments, layer_names, points, positions, subspaces, tree
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints, Params


def gaussian(key: jax.Array, stack: Endpoints, num_samples: int) -> Endpoints:
    """Draws from SWA-Gaussian (Maddox et al., 2019), the Gaussian fitted to m checkpoints.

        mean + sqrt(1/2) sqrt(var) z_1 + (1 / sqrt(2 (m - 1))) sum_i (w_i - mean) z_2i

    with ``var`` the diagonal of the checkpoints' covariance (the mean of squared deviations, over m), z_1 a standard
    normal number per parameter and z_2i one per checkpoint. The deviations are taken before they are squared, so that the
    variance is never negative.

    Args:
      key: a PRNG key.
      stack: checkpoints, leaves ``[m, *s]``.
      num_samples: s, of networks drawn.

    Returns:
      Networks with leaves ``[s, *s]``. Each needs BatchNorm statistics of its own (`jsubspace.reestimate_batch_stats`).

    Raises:
      ValueError: if there are fewer than two checkpoints, or no sample is asked for.

    Example:
      >>> stack = {"kernel": jnp.stack([jnp.zeros((2, 3)), jnp.ones((2, 3))])}
      >>> gaussian(jax.random.key(0), stack, num_samples=5)["kernel"].shape
      (5, 2, 3)
    """
    m = tree.num_endpoints(stack)
    if m < 2:
        raise ValueError("SWA-Gaussian needs at least 2 checkpoints for a covariance. There is 1.")
    _at_least_one(num_samples)

    def draw(key: jax.Array) -> Params:
        diagonal_key, low_rank_key = jax.random.split(key)
        leaves, structure = jax.tree.flatten(stack)
        z2 = jax.random.normal(low_rank_key, (m,))
        drawn = []
        for i, leaf in enumerate(leaves):
            wide = leaf.astype(tree.accumulator(leaf.dtype))
            mean = jnp.mean(wide, axis=0)
            deviations = wide - mean[None]
            z1 = jax.random.normal(jax.random.fold_in(diagonal_key, i), mean.shape, wide.dtype)
            diagonal = jnp.sqrt(jnp.mean(deviations**2, axis=0) / 2) * z1
            low_rank = jnp.sum(deviations * z2.astype(wide.dtype).reshape(m, *(1,) * mean.ndim), axis=0)
            drawn.append((mean + diagonal + low_rank / (2 * (m - 1)) ** 0.5).astype(leaf.dtype))
        return jax.tree.unflatten(structure, drawn)

    return jax.lax.map(draw, jax.random.split(key, num_samples))


def random_points(key: jax.Array, endpoints: Endpoints, subspace: Subspace, num_samples: int) -> Endpoints:
    """Networks at positions drawn as in training, one for the whole network: leaves ``[s, *s]``."""
    return _draw(key, num_samples, endpoints, lambda key: points.interpolate(endpoints, subspace.sample(key), subspace))


def layerwise_points(key: jax.Array, endpoints: Endpoints, subspace: Subspace, num_samples: int) -> Endpoints:
    """Networks at positions drawn for every layer, as in layerwise training: leaves ``[s, *s]``."""
    layers = layer_names.layers(endpoints)
    return _draw(
        key,
        num_samples,
        endpoints,
        lambda key: points.interpolate(endpoints, positions.sample_alpha(key, subspace, layers), subspace),
    )


def weightwise_points(key: jax.Array, endpoints: Endpoints, subspace: Subspace, num_samples: int) -> Endpoints:
    """Networks at positions drawn for every single parameter: leaves ``[s, *s]``."""

    def draw(key: jax.Array) -> Params:
        leaves, structure = jax.tree.flatten(endpoints)
        drawn = []
        for i, leaf in enumerate(leaves):
            if leaf.shape[0] == 1 != subspace.num_endpoints:
                drawn.append(leaf[0])
                continue
            alphas = subspace.sample(jax.random.fold_in(key, i), leaf.shape[1:])
            c = jnp.moveaxis(subspace.coefficients(alphas), -1, 0).astype(tree.accumulator(leaf.dtype))  # [m, *s]
            drawn.append(tree.weighted_sum(c, leaf.astype(c.dtype)).astype(leaf.dtype))
        return jax.tree.unflatten(structure, drawn)

    return _draw(key, num_samples, endpoints, draw)


def gaussian_points(key: jax.Array, endpoints: Endpoints, subspace: Subspace, num_samples: int) -> Endpoints:
    """`gaussian` for a stack of checkpoints that are the ends of a subspace.

    Raises:
      ValueError: if an endpoint is no end of the subspace, as a curve's bend, or there are fewer than two endpoints.
    """
    if not subspaces.is_hull(subspace):
        raise ValueError(f"SWA-Gaussian is fitted to the corners of a Simplex of checkpoints, not to a {subspace}.")
    return gaussian(key, endpoints, num_samples)


def _draw(key: jax.Array, num_samples: int, endpoints: Endpoints, draw: Callable[[jax.Array], Params]) -> Endpoints:
    _at_least_one(num_samples)
    return tree.conformed(jax.lax.map(draw, jax.random.split(key, num_samples)), endpoints)


def _at_least_one(num_samples: int) -> None:
    if arguments.integer("num_samples", num_samples) < 1:
        raise ValueError(f"num_samples is {num_samples}. At least one network is drawn.")
