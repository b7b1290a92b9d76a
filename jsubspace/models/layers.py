"""The layers of the residual networks in the paper.

Convolutions have no bias, explicit padding (``SAME`` pads differently at stride 2) and Kaiming-normal
kernels. BatchNorm starts with scale 1 and bias 0, and its epsilon is 1e-5.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

KAIMING_NORMAL = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""N(0, 2 / fan_in). The distribution is not truncated, unlike ``he_normal``."""


class Outputs(NamedTuple):
    """What a network returns.

    Attributes:
      logits: ``[n, k]``, float32 or wider.
      features: ``[n, f]``, which the feature cosine of two networks compares. Unused features cost nothing.
    """

    logits: jax.Array
    features: jax.Array


class Conv(nn.Conv):
    """A convolution ``[n, h, w, c] -> [n, h', w', features]`` as the paper's networks use it.

    ``padding`` is a number of pixels on each side. The default is half the kernel size, which keeps h and w at
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
    """BatchNorm that stores the statistics of the last batch in ``batch_stats`` after a pass in train mode.

    Momentum is 0, because training never reads running statistics. They belong to a point and not to an
    endpoint, and `jsubspace.reestimate_batch_stats` averages the statistics of single batches.

    Attributes:
      unbiased: whether the stored variance has the n / (n - 1) correction, like PyTorch's running variance.
        Flax stores the biased variance. In train mode both normalise with the biased variance.
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
                raise ValueError(f"unbiased variance of {n} value per channel does not exist. Use a larger batch.")
            self.put_variable("batch_stats", "var", self.get_variable("batch_stats", "var") * (n / (n - 1)))
        return y


class Classifier(nn.Module):
    """``[n, f] -> [n, features]`` logits, without a bias.

    Products are taken in ``dtype``. Sums and the result are in float32 or wider, because logits rounded to bfloat16
    would have three digits, which are too few to measure calibration.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        kernel = self.param("kernel", KAIMING_NORMAL, (inputs.shape[-1], self.features), jnp.float32)
        inputs, kernel = promote_dtype(inputs, kernel, dtype=self.dtype)
        return jnp.matmul(inputs, kernel, preferred_element_type=jnp.promote_types(inputs.dtype, jnp.float32))
