"""Residual blocks.

The caller applies the ReLU after the addition, because the caller may also need the values before the ReLU.
"""

from typing import Any

import flax.linen as nn
import jax


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: ``[n, h, w, c] -> [n, h', w', features]``.

    The shortcut is a 1 x 1 convolution if the shape changes.

    Attributes:
      features: channels of the result.
      stride: the stride of the first convolution and of the shortcut.
      conv, norm, dropout: makers of layers. Dropout acts after the last norm and before the addition.
    """

    features: int
    stride: int
    conv: Any
    norm: Any
    dropout: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        strides = (self.stride, self.stride)
        y = self.conv(self.features, (3, 3), strides, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.features, (3, 3), name="conv2")(y)
        y = self.dropout()(self.norm(name="norm2")(y))
        return _shortcut(self, x, y) + y


class BottleneckBlock(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions and a shortcut: ``[n, h, w, c] -> [n, h', w', 4 features]``.

    Attributes:
      features: a quarter of the result's channels.
      stride: the stride of the 3 x 3 convolution and of the shortcut.
      conv, norm, dropout: makers of layers. Dropout acts after the last norm and before the addition.
      inner_width: channels of the 3 x 3 convolution as a multiple of ``features``. It is 2 in WideResNet50-2.
    """

    features: int
    stride: int
    conv: Any
    norm: Any
    dropout: Any
    inner_width: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.features * self.inner_width
        y = self.conv(inner, (1, 1), name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(inner, (3, 3), (self.stride, self.stride), name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.features, (1, 1), name="conv3")(y)
        y = self.dropout()(self.norm(name="norm3")(y))
        return _shortcut(self, x, y) + y


def _shortcut(block: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """x in the shape of y. If the shapes differ, x passes through a strided 1 x 1 convolution and a norm of ``block``."""
    if x.shape == y.shape:
        return x
    x = block.conv(y.shape[-1], (1, 1), (block.stride, block.stride), name="shortcut_conv")(x)
    return block.norm(name="shortcut_norm")(x)
