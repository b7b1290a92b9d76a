"""A simplex with three corners: cResNet-8 on handwritten digits, at the smallest scale at which the question makes sense.

    python -m jsubspace.main --config=configs/digits_cresnet8_simplex.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: Figure 7; other sizes by --config.subspace.num_endpoints=m.
"""

import ml_collections

from jsubspace import recipes


def get_config() -> ml_collections.ConfigDict:
    settings = recipes.digits_cresnet8()
    settings.subspace.name = "simplex"
    settings.subspace.num_endpoints = 3
    return settings
