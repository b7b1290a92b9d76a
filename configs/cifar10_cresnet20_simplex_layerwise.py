"""A simplex, trained layerwise: cResNet20 on CIFAR-10.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_simplex_layerwise.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 7, 8 and 11.
The simplex has three corners. ``--config.subspace.num_endpoints=m`` sets another number (2 to 6 in the paper).
The paper plots accuracies between 0.913 and 0.935 along its subspaces. No table has its numbers.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.cifar10_cresnet20("simplex", num_endpoints=3, layerwise=True)
