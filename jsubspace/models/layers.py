"""What the residual networks of the paper are made of.

Convolutions have no bias, explicit padding (``SAME`` pads differently at stride 2) and Kaiming-normal
kernels; BatchNorm has epsilon 1e-5, scale 1 and bias 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

KAIMING_NORMAL = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""N(0, 2 / fan_in), not truncated (``he_normal`` is)."""


class Outputs(NamedTuple):
    """What a network returns.

    Attributes:
      logits: ``[n, k]``, float32 or wider.
      features: ``[n, f]``: what the feature cosine of two networks compares. Costs nothing if unused.
    """

    logits: jax.Array
    features: jax.Array


class Conv(nn.Conv):
    """A convolution ``[n, h, w, c] -> [n, h', w', features]`` as the paper's networks use it.

    ``padding`` is a number of pixels on each side; without it, half the kernel size, which keeps h and w at
    stride 1.
    """

    use_bias: bool = False
    kernel_init: Any = KAIMING_NORMAL
    padding: Any = None

    def __post_init__(self) -> None:
        if self.padding is None:
            sides = self.kernel_size if isinstance(self.kernel_size, Sequence) else (self.kernel_size,)
            self.padding = [(side // 2, side // 2) for side in sides]
        super().__post_init__()


class BatchNorm(nn.BatchNorm):
    """BatchNorm whose ``batch_stats`` after a pass in train mode are the statistics of that very batch.

    Momentum is 0: training never reads running statistics, which belong to a point rather than to an
    endpoint, and `jsubspace.reestimate_batch_stats` averages the batches' own.

    Attributes:
      unbiased: store the variance with the n / (n - 1) correction, as PyTorch's running variance has it.
        Flax's own is the biased one. What train mode normalises with is the biased variance in both.
    """

    momentum: float = 0.0
    epsilon: float = 1e-5
    unbiased: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None, **kwargs: Any) -> jax.Array:
        y = super().__call__(x, use_running_average, **kwargs)
        evaluates = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        if self.unbiased and not evaluates and not self.is_initializing():
            n = x.size // x.shape[-1] * (jax.lax.axis_size(self.axis_name) if self.axis_name else 1)
            if n < 2:
                raise ValueError(f"unbiased variance of {n} value a channel does not exist; use a larger batch.")
            self.put_variable("batch_stats", "var", self.get_variable("batch_stats", "var") * (n / (n - 1)))
        return y


class Classifier(nn.Module):
    """``[n, f] -> [n, features]`` logits, no bias.

    Multiplied in ``dtype`` but added up, and returned, in float32 or wider: logits rounded to bfloat16 would
    have three digits, too few for a calibration.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        kernel = self.param("kernel", KAIMING_NORMAL, (inputs.shape[-1], self.features), jnp.float32)
        inputs, kernel = promote_dtype(inputs, kernel, dtype=self.dtype)
        return jnp.matmul(inputs, kernel, preferred_element_type=jnp.promote_types(inputs.dtype, jnp.float32))
