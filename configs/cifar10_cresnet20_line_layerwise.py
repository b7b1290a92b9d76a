"""A line, trained layerwise: cResNet20 on CIFAR-10.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_line_layerwise.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 4 to 6.
The paper plots accuracies between 0.913 and 0.935 along its subspaces. No table has its numbers.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.cifar10_cresnet20("line", layerwise=True)
