"""Optimizers of stacked endpoints: the paper's optimizer, others by name, and what may be added to each.

Each endpoint is a network of its own (`jsubspace.per_endpoint`). The schedule stands outside, because all endpoints have
the same count of steps.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jsubspace.optimizers import per_endpoint

SGD, ADAMW, MUON, LION = "sgd", "adamw", "muon", "lion"

RMS = 0.2
"""The root mean square of Muon's updates, as AdamW's usually have it. One learning rate then suits both."""


def sgd(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum. The weight decay is added to the gradient of every parameter, as PyTorch's SGD does.

    Every transform is elementwise, so a device may also hold a share of each leaf.
    """
    descent = optax.chain(per_endpoint(optax.trace(momentum)), optax.scale_by_learning_rate(learning_rate))
    return optax.chain(per_endpoint(optax.add_decayed_weights(weight_decay)), descent)


def adamw(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, 2019). Beside its update, every parameter shrinks by learning_rate * weight_decay.

    ``momentum`` is the decay rate of the first moment. The second has optax's 0.999.
    """
    return _decoupled(optax.scale_by_adam(b1=momentum), learning_rate, weight_decay)


def lion(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """Lion (Chen et al., 2023): every number moves by the learning rate. The weight decay is AdamW's.

    ``momentum`` is the weight of the memory in the update. The memory itself decays at optax's 0.99.
    """
    return _decoupled(optax.scale_by_lion(b1=momentum), learning_rate, weight_decay)


def muon(learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """Muon (Jordan et al., 2024) for matrices ``[in, out]`` and convolutions ``[h, w, in, out]``, and AdamW for other leaves.

    A convolution is a matrix ``[h * w * in, out]``. Both have Nesterov's momentum. The weight decay is AdamW's, for all leaves. ``momentum`` is Muon's, and
    AdamW's first decay rate.
    """
    direction = contrib.muon(
        -1.0,  # scale_by_learning_rate below turns the sign.
        beta=momentum,
        adam_b1=momentum,
        weight_decay=weight_decay,
        adam_weight_decay=weight_decay,
        muon_weight_dimension_numbers=_matrices,
        consistent_rms=RMS,
    )
    return optax.chain(per_endpoint(direction), optax.scale_by_learning_rate(learning_rate))


MAKERS = {SGD: sgd, ADAMW: adamw, MUON: muon, LION: lion}
"""The optimizers by their names in the settings. Each takes a learning rate, a momentum and a weight decay."""


def fix_first(optimizer: optax.GradientTransformation, num_fixed: int) -> optax.GradientTransformation:
    """``optimizer``, except that the first ``num_fixed`` endpoints do not change by a bit."""

    def free(updates: optax.Updates) -> optax.Updates:
        def free_leaf(leaf: jax.Array) -> jax.Array:
            row = jnp.arange(leaf.shape[0]).reshape(-1, *(1,) * (leaf.ndim - 1))
            return jnp.where(row < num_fixed, jnp.zeros((), leaf.dtype), leaf)

        return jax.tree.map(free_leaf, updates)

    return optax.chain(optimizer, optax.stateless(lambda updates, _: free(updates)))


def _decoupled(
    direction: optax.GradientTransformation, learning_rate: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
    decay = per_endpoint(optax.add_decayed_weights(weight_decay))
    return optax.chain(per_endpoint(direction), decay, optax.scale_by_learning_rate(learning_rate))


def _matrices(network: Any) -> Any:
    """What Muon takes for the rows and columns of a leaf ``[*s]``, or None for a leaf that AdamW trains."""
    axes = {2: ((0,), (1,)), 4: ((0, 1, 2), (3,))}

    def of_leaf(leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        return contrib.MuonDimensionNumbers(*axes[leaf.ndim]) if leaf.ndim in axes else None

    return jax.tree.map(of_leaf, network)
