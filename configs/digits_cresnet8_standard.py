"""Standard training: cResNet-8 on handwritten digits, at the smallest scale at which the question makes sense.

    python -m jsubspace.main --config=configs/digits_cresnet8_standard.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: the baseline of every figure.
Expected: accuracy above 0.97.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.digits_cresnet8("point")
