"""Optimizers of stacked endpoints: the paper's optimizer, and an addition for curves between fixed networks."""

import jax
import jax.numpy as jnp
import optax

from jsubspace.optimizers import per_endpoint


def sgd(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum. The weight decay is added to the gradient of every parameter, as PyTorch's SGD does.

    Each endpoint is a network of its own (`jsubspace.per_endpoint`). The schedule stands outside, because all endpoints have
    the same count of steps. Every transform is elementwise, so a device may also hold a share of each leaf.
    """
    descent = optax.chain(per_endpoint(optax.trace(momentum)), optax.scale_by_learning_rate(learning_rate))
    return optax.chain(per_endpoint(optax.add_decayed_weights(weight_decay)), descent)


def fix_first(optimizer: optax.GradientTransformation, num_fixed: int) -> optax.GradientTransformation:
    """``optimizer``, except that the first ``num_fixed`` endpoints do not change by a bit."""

    def free(updates: optax.Updates) -> optax.Updates:
        def free_leaf(leaf: jax.Array) -> jax.Array:
            row = jnp.arange(leaf.shape[0]).reshape(-1, *(1,) * (leaf.ndim - 1))
            return jnp.where(row < num_fixed, jnp.zeros((), leaf.dtype), leaf)

        return jax.tree.map(free_leaf, updates)

    return optax.chain(optimizer, optax.stateless(lambda updates, _: free(updates)))
