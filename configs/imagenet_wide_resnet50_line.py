"""A line: WideResNet50-2 on ImageNet.

    python -m jsubspace.main --config=configs/imagenet_wide_resnet50_line.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 9, 10 and 12.
For figure 12 (right), train for 300 epochs with ``--config.optimizer.num_epochs=300``.
``--config.model.dtype=bfloat16`` is faster on TPUs and recent GPUs.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.imagenet_wide_resnet50("line")
