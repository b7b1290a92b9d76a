"""A line: cResNet-8 on Fashion-MNIST, at a scale for a CPU.

    python -m jsubspace.main --config=configs/fashion_mnist_cresnet8_line.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 3 to 6.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.fashion_mnist_cresnet8("line")
