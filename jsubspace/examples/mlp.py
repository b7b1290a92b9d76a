"""A multilayer perceptron as two functions of a dictionary: dense layers with biases, and ReLUs between them."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jsubspace.types import Params


def init(key: jax.Array, sizes: Sequence[int]) -> Params:
    """The layers of one network, from ``sizes[0]`` inputs to ``sizes[-1]`` outputs. Kernels are Kaiming-normal, biases 0."""
    keys = jax.random.split(key, len(sizes) - 1)
    return {
        f"layer{i}": {
            "kernel": jax.random.normal(keys[i], (inputs, outputs)) * (2 / inputs) ** 0.5,
            "bias": jnp.zeros(outputs),
        }
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
    }


def apply(point: Params, x: jax.Array) -> jax.Array:
    """The outputs ``[n, outputs]`` for ``[n, inputs]``.

    Example:
      >>> apply(init(jax.random.key(0), (10, 64, 2)), jnp.ones((5, 10))).shape
      (5, 2)
    """
    for i in range(len(point)):
        layer = point[f"layer{i}"]
        x = (jax.nn.relu(x) if i else x) @ layer["kernel"] + layer["bias"]
    return x
