"""Optimizers of stacked endpoints: the paper's optimizer, and additions for some of the methods that it is compared with."""

import functools

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jsubspace import tree
from jsubspace.optimizers import per_endpoint


def sgd(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum. The weight decay is added to the gradient of every parameter, as PyTorch's SGD does.

    Each endpoint is a network of its own (`jsubspace.per_endpoint`). The schedule stands outside, because all endpoints have
    the same count of steps. Every transform is elementwise, so a device may also hold a share of each leaf.
    """
    descent = optax.chain(per_endpoint(optax.trace(momentum)), optax.scale_by_learning_rate(learning_rate))
    return optax.chain(per_endpoint(optax.add_decayed_weights(weight_decay)), descent)


def sharpness_aware(optimizer: optax.GradientTransformation, rho: float) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation (Foret et al., 2021) around ``optimizer``, by optax's implementation.

    The gradient g is taken a second time, at w + rho g / |g|, and the second gradient is used. A step costs twice as much.
    The norm is the norm of the whole tree, which is meant for one network. If g is zero, the second gradient is taken at w.

    Its ``update`` takes ``grad_fn(params, i) -> grads``, as optax describes.
    """
    # chain(normalize, sgd(rho)) is the step of length rho that optax's example takes.
    ascent = optax.chain(optax.stateless(lambda grads, _: _normalized(grads)), optax.sgd(rho))
    return contrib.sam(optimizer, ascent, opaque_mode=True)


def _normalized(grads: optax.Updates) -> optax.Updates:
    """The gradient divided by its norm, and zero if the gradient is zero. A gradient that is not finite becomes NaN.

    The gradient is scaled by its largest entry first, because the squares of small entries would vanish.
    """
    entries = [
        jnp.max(jnp.abs(leaf), initial=0).astype(tree.accumulator(leaf.dtype)) for leaf in jax.tree.leaves(grads)
    ]
    largest = functools.reduce(jnp.maximum, entries)
    scaled = jax.tree.map(lambda leaf: leaf.astype(largest.dtype) / jnp.where(largest != 0, largest, 1), grads)
    norm = jnp.sqrt(tree.inner(scaled, scaled, tree.all_leaves(scaled)))
    return jax.tree.map(lambda part, leaf: (part / jnp.where(norm != 0, norm, 1)).astype(leaf.dtype), scaled, grads)


def fix_first(optimizer: optax.GradientTransformation, num_fixed: int) -> optax.GradientTransformation:
    """``optimizer``, except that the first ``num_fixed`` endpoints do not change by a bit."""

    def free(updates: optax.Updates) -> optax.Updates:
        def free_leaf(leaf: jax.Array) -> jax.Array:
            row = jnp.arange(leaf.shape[0]).reshape(-1, *(1,) * (leaf.ndim - 1))
            return jnp.where(row < num_fixed, jnp.zeros((), leaf.dtype), leaf)

        return jax.tree.map(free_leaf, updates)

    return optax.chain(optimizer, optax.stateless(lambda updates, _: free(updates)))
