"""A Bezier curve with one bend: cResNet-8 on Fashion-MNIST, at a scale for a CPU.

    python -m jsubspace.main --config=configs/fashion_mnist_cresnet8_curve.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 2, 4 and 5.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.fashion_mnist_cresnet8("curve")
