"""Standard training: cResNet20 on CIFAR-10, with the paper's settings.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_standard.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: the baseline, as the subspace with one endpoint.
"""

import ml_collections

from jsubspace import recipes


def get_config() -> ml_collections.ConfigDict:
    settings = recipes.cifar10_cresnet20()
    settings.subspace.name = "point"
    return settings
