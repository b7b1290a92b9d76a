"""What each of several positions sees of the arguments of a loss (appendix B of the paper)."""

from typing import Any

import jax
import jax.numpy as jnp


Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional and the keyword arguments of a loss, after the point."""


def cut_batch(inputs: Inputs, num_samples: int) -> Inputs:
    """Arrays ``[n, ...] -> [S, n / S, ...]``, example i in part i modulo S, and keys ``[] -> [S]``.

    Examples are dealt out, not sliced. A batch that is split over devices is then cut into the same parts as a whole
    batch, provided that the number of examples per device is a multiple of S.
    """

    def cut(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            return jax.random.split(leaf, num_samples)
        n = jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0
        if n == 0 or n % num_samples:
            raise ValueError(
                f"argument {jax.tree_util.keystr(path[1:])} of shape {list(jnp.shape(leaf))} cannot be cut into "
                f"num_samples={num_samples} equal parts. Make its leading axis a multiple of it, or, if it is not "
                "part of the batch, let the loss function close over it."
            )
        return jnp.moveaxis(jnp.reshape(leaf, (n // num_samples, num_samples, *jnp.shape(leaf)[1:])), 1, 0)

    return jax.tree_util.tree_map_with_path(cut, inputs)
