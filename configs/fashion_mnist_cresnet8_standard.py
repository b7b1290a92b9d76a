"""Standard training: cResNet-8 on Fashion-MNIST, at a scale for a CPU.

    python -m jsubspace.main --config=configs/fashion_mnist_cresnet8_standard.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: the baseline of every figure.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.fashion_mnist_cresnet8("point")
