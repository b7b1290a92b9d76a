"""A line: cResNet20 on CIFAR-10, with the paper's settings.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_line.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: Figures 3 to 6.
"""

import ml_collections

from jsubspace import recipes


def get_config() -> ml_collections.ConfigDict:
    settings = recipes.cifar10_cresnet20()
    settings.subspace.name = "line"
    return settings
