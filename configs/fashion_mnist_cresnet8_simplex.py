"""A simplex with three corners: cResNet-8 on Fashion-MNIST, at a scale for a CPU.

    python -m jsubspace.main --config=configs/fashion_mnist_cresnet8_simplex.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: Figure 7; other sizes by --config.subspace.num_endpoints=m.
"""

import ml_collections

from jsubspace import recipes


def get_config() -> ml_collections.ConfigDict:
    settings = recipes.fashion_mnist_cresnet8()
    settings.subspace.name = "simplex"
    settings.subspace.num_endpoints = 3
    return settings
