"""Two subspaces of a user's own, with the protocol's members and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np


class Patch:
    """A square between four networks, bilinear in alpha = (x, y)."""

    num_endpoints = 4
    alpha_shape = (2,)
    ends = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))

    @property
    def center(self):
        return jnp.full(2, 0.5)

    def coefficients(self, alpha):
        x, y = alpha[..., 0], alpha[..., 1]
        return jnp.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], axis=-1)

    def sample(self, key, shape=()):
        return jax.random.uniform(key, (*shape, 2))

    def grid(self, n):
        side = np.linspace(0, 1, n)
        return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)

    def __repr__(self):
        return "Patch()"


class Ring:
    """A closed ring through three networks' span; its center is off the ring's grid, and it has no ends."""

    num_endpoints = 3
    alpha_shape = ()
    ends = ()

    @property
    def center(self):
        return jnp.full((), 1 / 6)

    def coefficients(self, alpha):
        angles = 2 * jnp.pi * (jnp.asarray(alpha)[..., None] - jnp.arange(3, dtype=jnp.float32) / 3)
        return ((1 + jnp.cos(angles)) / 3).astype(jnp.result_type(alpha))

    def sample(self, key, shape=()):
        return jax.random.uniform(key, shape)

    def grid(self, n):
        return np.arange(n) / n

    def __repr__(self):
        return "Ring()"
