"""ResNets for Tiny-ImageNet and ImageNet (He et al., 2016, and Zagoruyko and Komodakis, 2016)."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jsubspace.models.blocks import BasicBlock, BottleneckBlock
from jsubspace.models.layers import BatchNorm, Classifier, Conv, Outputs

BLOCKS_PER_STAGE = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""The number of blocks in each stage, by depth."""

BOTTLENECKS_FROM = 50
"""The smallest depth with bottleneck blocks."""


class ResNet(nn.Module):
    """Four stages of residual blocks with widths w, 2w, 4w and 8w. The last three stages start with stride 2.

    Attributes:
      num_classes: k.
      depth: 10, 18, 34, 50 or 101.
      stem: "imagenet" is a 7 x 7 convolution of stride 2 and a 3 x 3 max-pool of stride 2. "tiny" is a 3 x 3
        convolution of stride 1 without a pool, made for the 64 x 64 images of Tiny-ImageNet.
      width: channels of the first stage.
      inner_width: widens the 3 x 3 convolutions of bottlenecks. WideResNet50-2 has inner width 2 and depth 50.
      dropout_rate: the dropout rate after the last BatchNorm of each block, before the addition. Dropout needs a
        ``dropout`` key in training.
      dtype: the dtype of the computation. Parameters keep their dtype, and logits are float32 or wider. None
        follows parameters and images. A TPU is fast with jnp.bfloat16.
      axis_name: the device axis over which BatchNorm takes its batch. With None, each device uses its own share.
      unbiased_batch_stats: see `BatchNorm.unbiased`.
      remat: whether the inside of each block is computed a second time for the gradient, and not kept in memory.

    Example:
      >>> model = ResNet(num_classes=200, depth=18, stem="tiny")
      >>> images = jnp.zeros((2, 64, 64, 3))
      >>> variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=True))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      11271232
    """

    num_classes: int
    depth: int = 50
    stem: str = "imagenet"
    width: int = 64
    inner_width: int = 1
    dropout_rate: float = 0.0
    dtype: Any = None
    axis_name: str | None = None
    unbiased_batch_stats: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS_PER_STAGE:
            raise ValueError(f"ResNet(depth={self.depth}): the depth is one of {sorted(BLOCKS_PER_STAGE)}.")
        if self.stem not in ("imagenet", "tiny"):
            raise ValueError(f'ResNet(stem={self.stem!r}): the stem is "imagenet" or "tiny".')
        if self.width < 1 or self.inner_width < 1:
            raise ValueError(
                f"ResNet(width={self.width}, inner_width={self.inner_width}): a layer has at least one channel."
            )
        if self.inner_width != 1 and self.depth < BOTTLENECKS_FROM:
            raise ValueError(
                f"ResNet(depth={self.depth}, inner_width={self.inner_width}): only the bottlenecks of depth 50 and more have an "
                "inner width. Widen shallow networks by width."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        """Logits and features of normalised images ``[n, h, w, c]``.

        The features are the flattened output of the last block before its ReLU. With the ImageNet stem, they are the
        pooled vector instead.
        """
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(
            BatchNorm,
            use_running_average=not train,
            dtype=self.dtype,
            axis_name=self.axis_name,
            unbiased=self.unbiased_batch_stats,
        )
        block: Any = BottleneckBlock if self.depth >= BOTTLENECKS_FROM else BasicBlock
        block = nn.remat(block) if self.remat else block
        if self.depth >= BOTTLENECKS_FROM:
            block = functools.partial(block, inner_width=self.inner_width)
        if self.stem == "imagenet":
            x = norm(name="stem_norm")(conv(self.width, (7, 7), (2, 2), name="stem_conv")(images))
            # The ReLU follows in the first block. ReLU and maximum can be exchanged without changing the result.
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        else:
            x = norm(name="stem_norm")(conv(self.width, (3, 3), name="stem_conv")(images))
        for stage, num_blocks in enumerate(BLOCKS_PER_STAGE[self.depth]):
            for i in range(num_blocks):
                x = block(
                    features=self.width * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    conv=conv,
                    norm=norm,
                    dropout=functools.partial(nn.Dropout, self.dropout_rate, deterministic=not train),
                    name=f"stage{stage}_block{i}",
                )(nn.relu(x))
        pooled = jnp.mean(nn.relu(x), axis=(1, 2))
        logits = Classifier(self.num_classes, dtype=self.dtype, name="classifier")(pooled)
        features = pooled if self.stem == "imagenet" else jnp.reshape(x, (x.shape[0], -1))
        return Outputs(logits, features)
