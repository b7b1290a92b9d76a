"""Endpoints that are differences from one pretrained network, the base."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, axis_names, parameters, points, tree
from jsubspace.subspaces import Subspace
from jsubspace.types import Params, Tree


def deltas(
    base: Tree,
    subspace: Subspace | int,
    *,
    key: jax.Array | None = None,
    scale: float | None = None,
    dtype: Any = None,
) -> Tree:
    """m differences from a pretrained network, stacked: the start of fine-tuning. They are zeros, or small random numbers.

    The loss adds the base, ``loss_fn(delta, base, *batch) = loss(base + delta, *batch)``, and every other function takes the
    deltas as endpoints. The base is an argument of the step, and exists once. The penalty compares the deltas, and weight
    decay pulls the networks to the base. Deltas of bfloat16 that are added to a base of bfloat16 lose their last digits:
    train deltas of float32 there.

    From zeros, every endpoint starts as the base itself. The penalty's gradient is zero as long as the deltas are zeros, or
    multiples of each other, and the alphas alone separate them during the first steps. Random deltas are nearly orthogonal
    from the start, so the penalty acts from the first step on.

    Args:
      base: one network with leaves ``[*s]``, floating-point arrays. Give a selection of its leaves to train these alone.
      subspace: the subspace that is to be trained, or its number of endpoints m, at least 1.
      key: a PRNG key, for random deltas. They are normal and independent.
      scale: with a key, the standard deviation of the deltas of a leaf, as a fraction of the root mean square of this leaf of
        the base. A delta then has about ``scale`` times the norm of the base, and a leaf of zeros has deltas of zeros.
      dtype: the dtype of the deltas. None stands for the dtype of each leaf.

    Returns:
      Endpoints with leaves ``[m, *s]``. Outside jit, they are divided among devices as the base is, and the endpoint axis is
      not divided.

    Raises:
      ValueError: if m < 1, the base looks like stacked endpoints, a leaf or the dtype is not of floating-point numbers, the base
        holds NaN or an infinity (outside jit, where its numbers are known), the key is no PRNG key, or one of key and scale is given without the other.

    Example:
      >>> base = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}
      >>> deltas(base, 2)["kernel"].shape
      (2, 3, 4)
      >>> bool(jnp.all(deltas(base, 2)["kernel"] == 0))
      True
    """
    m = points.number_of_endpoints(subspace, "deltas", "deltas(base, subspace)")
    if (key is None) != (scale is None):
        raise ValueError(
            "deltas takes key and scale together, for random deltas, as in deltas(base, subspace, key=key, scale=0.01). "
            "Without both, the deltas are zeros."
        )
    fraction = 0.0 if scale is None else arguments.strength("scale", scale, "the size of the deltas")
    if key is not None:
        arguments.key("deltas: key", key, "deltas(base, subspace, key=key, scale=0.01)")
    _check_dtype(dtype)
    _check_base(base, m)
    leaves, structure = jax.tree.flatten(base)
    zeros = [
        jnp.broadcast_to(jnp.zeros_like(leaf, dtype=dtype), (m, *jnp.shape(leaf))) for leaf in leaves
    ]  # They follow the sharding of the leaf, which zeros of a shape would not.
    if key is not None:
        keys = jax.random.split(key, len(leaves))
        zeros = [_drawn(*each, fraction) for each in zip(keys, leaves, zeros, strict=True)]
    return axis_names.added(jax.tree.unflatten(structure, zeros))


def _check_dtype(dtype: Any) -> None:
    """Raises a ValueError if the dtype is neither None nor a dtype of floating-point numbers."""
    try:
        found = jnp.dtype(dtype) if isinstance(dtype, str | type | np.dtype) else None
    except TypeError:
        found = None
    if dtype is not None and (found is None or not jnp.issubdtype(found, jnp.floating)):
        given = arguments.described(dtype) if found is None else found
        raise ValueError(f"dtype is {given}, but deltas are floating-point numbers, as in dtype=jnp.float32.")


def _drawn(key: jax.Array, leaf: Any, zeros: jax.Array, fraction: Any) -> jax.Array:
    """Normal numbers in the shape, dtype and sharding of ``zeros``."""
    wide = jnp.asarray(leaf).astype(tree.accumulator(jnp.result_type(leaf)))
    size = fraction * jnp.sqrt(jnp.mean(wide * wide)).astype(wide.dtype)
    return zeros + (size * jax.random.normal(key, zeros.shape, wide.dtype)).astype(zeros.dtype)


def _check_base(base: Params, m: int) -> None:
    """Raises a ValueError if the base is not one network. From shapes alone, stacked endpoints can only be suspected."""
    parameters.check_network(base)
    parameters.check_endpoints(base)
    leaves = jax.tree_util.tree_leaves_with_path(base)
    if not leaves:
        raise ValueError("the base has no leaves. Give the parameters of the pretrained network, or a part of them.")
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"leaf {tree.leaf_name(path)} of the base has dtype {jnp.result_type(leaf)}, and only floating-point leaves have "
                "deltas. Keep counters, keys and other state apart from the parameters."
            )
    known = [(path, leaf) for path, leaf in leaves if not isinstance(leaf, jax.core.Tracer)]
    for (path, _), is_finite in zip(known, parameters.are_finite([leaf for _, leaf in known]), strict=True):
        if not is_finite:
            raise ValueError(
                f"leaf {tree.leaf_name(path)} of the base holds NaN or an infinity. Every network would hold it, too. Give the "
                "pretrained network as it was before, such as an earlier checkpoint."
            )
    if len(leaves) > 1 and all(jnp.shape(leaf)[:1] == (m,) for _, leaf in leaves):
        raise ValueError(
            f"all leaves of the base have a first axis of length {m}, the number of endpoints, so it looks like stacked endpoints. "
            "Give one network, for example jsubspace.unstack(endpoints)[0]. If it is one network, make its deltas by "
            f"jax.tree.map(lambda leaf: jnp.zeros(({m}, *leaf.shape), leaf.dtype), base)."
        )
