"""Optimizers of stacked endpoints: the paper's optimizer, and additions for some of the methods that it is compared with."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib


def sgd(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum. The weight decay is added to the gradient of every parameter, as PyTorch's SGD does.

    It is elementwise, so it acts on each of the stacked endpoints as on a single network.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum))


def sharpness_aware(optimizer: optax.GradientTransformation, rho: float) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation (Foret et al., 2021) around ``optimizer``, by optax's implementation.

    The gradient g is taken a second time, at w + rho g / |g|, and the second gradient is used. A step costs twice as much.
    The norm is the norm of the whole tree, which is meant for one network.

    Its ``update`` takes ``grad_fn(params, i) -> grads``, as optax describes.
    """
    # chain(normalize, sgd(rho)) is the step of length rho that optax's example takes.
    ascent = optax.chain(contrib.normalize(), optax.sgd(rho))
    return contrib.sam(optimizer, ascent, opaque_mode=True)


def fix_first(optimizer: optax.GradientTransformation, num_fixed: int) -> optax.GradientTransformation:
    """``optimizer``, except that the first ``num_fixed`` endpoints do not change by a bit."""

    def free(updates: optax.Updates) -> optax.Updates:
        def free_leaf(leaf: jax.Array) -> jax.Array:
            row = jnp.arange(leaf.shape[0]).reshape(-1, *(1,) * (leaf.ndim - 1))
            return jnp.where(row < num_fixed, jnp.zeros((), leaf.dtype), leaf)

        return jax.tree.map(free_leaf, updates)

    return optax.chain(optimizer, optax.stateless(lambda updates, _: free(updates)))
