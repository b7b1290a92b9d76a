"""A simplex with three corners: cResNet20 on CIFAR-10, with the paper's settings.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_simplex.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: Figure 7; other sizes by --config.subspace.num_endpoints=m.
"""

import ml_collections

from jsubspace import recipes


def get_config() -> ml_collections.ConfigDict:
    settings = recipes.cifar10_cresnet20()
    settings.subspace.name = "simplex"
    settings.subspace.num_endpoints = 3
    return settings
