"""Standard training: WideResNet50-2 on ImageNet.

    python -m jsubspace.main --config=configs/imagenet_wide_resnet50_standard.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: the baseline of figures 9, 10 and 12.
``--config.model.dtype=bfloat16`` is faster on TPUs and recent GPUs.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.imagenet_wide_resnet50("point")
