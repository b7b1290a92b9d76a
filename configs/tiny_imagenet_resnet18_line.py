"""A line: ResNet18 on Tiny-ImageNet.

    python -m jsubspace.main --config=configs/tiny_imagenet_resnet18_line.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 3 to 6.
The paper plots accuracies between 0.625 and 0.675 along its subspaces. No table has its numbers.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.tiny_imagenet_resnet18("line")
