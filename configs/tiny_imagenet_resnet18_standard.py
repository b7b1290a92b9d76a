"""Standard training: ResNet18 on Tiny-ImageNet.

    python -m jsubspace.main --config=configs/tiny_imagenet_resnet18_standard.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: the baseline of every figure.
The paper plots accuracies between 0.625 and 0.675 along its subspaces. No table has its numbers.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.tiny_imagenet_resnet18("point")
