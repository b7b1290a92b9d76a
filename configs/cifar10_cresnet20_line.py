"""A line: cResNet20 on CIFAR-10.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_line.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 3 to 6.
The paper plots accuracies between 0.913 and 0.935 along its subspaces. No table has its numbers.
``--config.data.label_noise=c`` trains with label noise (figure 8).
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.cifar10_cresnet20("line")
