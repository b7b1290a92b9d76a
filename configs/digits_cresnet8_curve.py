"""A Bezier curve with one bend: cResNet-8 on handwritten digits, at the smallest scale at which the question makes sense.

    python -m jsubspace.main --config=configs/digits_cresnet8_curve.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 2, 4 and 5.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.digits_cresnet8("curve")
