"""A simplex: cResNet-8 on handwritten digits, at the smallest scale at which the question makes sense.

    python -m jsubspace.main --config=configs/digits_cresnet8_simplex.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 7, 8 and 11.
The simplex has three corners. ``--config.subspace.num_endpoints=m`` sets another number (2 to 6 in the paper).
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.digits_cresnet8("simplex", num_endpoints=3)
