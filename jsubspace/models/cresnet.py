"""cResNet: the residual networks for 32 x 32 images (He et al., 2016), depth 6n + 2."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jsubspace.models.blocks import BasicBlock
from jsubspace.models.layers import BatchNorm, Classifier, Conv, Outputs


class CResNet(nn.Module):
    """Three stages of n basic blocks with widths w, 2w and 4w. The last two stages start with stride 2.

    Attributes:
      num_classes: k.
      depth: 6n + 2: 8, 14, 20, 32, ... cResNet20 is the paper's network for CIFAR-10.
      width: channels of the first stage. 16 gives cResNet20 its 272,464 parameters.
      dropout_rate: the dropout rate after the second BatchNorm of each block, before the addition. Dropout
        needs a ``dropout`` key in training.
      dtype: the dtype of the computation. Parameters keep their dtype. None follows parameters and images.
      axis_name: the device axis over which BatchNorm takes its batch. With None, each device uses its own share.
      unbiased_batch_stats: see `BatchNorm.unbiased`.
      remat: whether the inside of each block is computed a second time for the gradient, and not kept in memory.

    Example:
      >>> model = CResNet(num_classes=10, depth=8, width=4)
      >>> images = jnp.zeros((2, 16, 16, 3))
      >>> params = model.init(jax.random.key(0), images, train=True)["params"]
      >>> outputs, batch = model.apply({"params": params}, images, train=True, mutable=["batch_stats"])
      >>> outputs.logits.shape
      (2, 10)
    """

    num_classes: int
    depth: int = 20
    width: int = 16
    dropout_rate: float = 0.0
    dtype: Any = None
    axis_name: str | None = None
    unbiased_batch_stats: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.depth, int) and (self.depth < 8 or self.depth % 6 != 2):
            raise ValueError(
                f"CResNet(depth={self.depth}): the depth is 6n + 2 for n basic blocks per stage: 8, 14, 20, 26, 32, ..."
            )
        if isinstance(self.width, int) and self.width < 1:
            raise ValueError(f"CResNet(width={self.width}): a layer has at least one channel.")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        """Logits and features of normalised images ``[n, h, w, c]``. The features are flattened and precede the last ReLU."""
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(
            BatchNorm,
            use_running_average=not train,
            dtype=self.dtype,
            axis_name=self.axis_name,
            unbiased=self.unbiased_batch_stats,
        )
        x = conv(self.width, (3, 3), name="stem_conv")(images)
        x = norm(name="stem_norm")(x)
        block = nn.remat(BasicBlock) if self.remat else BasicBlock
        blocks_per_stage = (self.depth - 2) // 6
        for i in range(3 * blocks_per_stage):
            stage, first = divmod(i, blocks_per_stage)
            x = block(
                features=self.width * 2**stage,
                stride=2 if stage > 0 and first == 0 else 1,
                conv=conv,
                norm=norm,
                dropout=functools.partial(nn.Dropout, self.dropout_rate, deterministic=not train),
                name=f"block{i}",
            )(nn.relu(x))
        pooled = jnp.mean(nn.relu(x), axis=(1, 2))
        logits = Classifier(self.num_classes, dtype=self.dtype, name="classifier")(pooled)
        return Outputs(logits, jnp.reshape(x, (x.shape[0], -1)))
