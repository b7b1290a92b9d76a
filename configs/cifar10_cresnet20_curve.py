"""A Bezier curve with one bend: cResNet20 on CIFAR-10, with the paper's settings.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_curve.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: Figures 4 and 5.
"""

import ml_collections

from jsubspace import recipes


def get_config() -> ml_collections.ConfigDict:
    settings = recipes.cifar10_cresnet20()
    settings.subspace.name = "curve"
    return settings
