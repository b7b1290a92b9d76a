"""A line: cResNet-8 on handwritten digits, at the smallest scale at which the question makes sense.

    python -m jsubspace.main --config=configs/digits_cresnet8_line.py

After Wortsman et al., Learning Neural Network Subspaces, ICML 2021: figures 3 to 6.
Expected: midpoint accuracy above 0.97, squared cosine of the endpoints below 0.01.
The demo of this repository trains it with 40 % random labels.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.digits_cresnet8("line")
