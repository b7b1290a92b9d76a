"""A line: ResNet50 on ImageNet.

    python -m jsubspace.main --config=configs/imagenet_resnet50_line.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 9, 10 and 12.
The paper reports an L2 distance of about 127 between the endpoints at the end of training.
With ``--config.penalty.beta=0`` the distance is about 40.
``--config.model.dtype=bfloat16`` is faster on TPUs and recent GPUs.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.imagenet_resnet50("line")
