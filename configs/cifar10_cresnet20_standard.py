"""Standard training: cResNet20 on CIFAR-10.

    python -m jsubspace.main --config=configs/cifar10_cresnet20_standard.py

Wortsman et al., Learning Neural Network Subspaces, ICML 2021: the baseline of every figure.
The paper plots accuracies between 0.913 and 0.935 along its subspaces. No table has its numbers.
Figure 8 uses label noise (``--config.data.label_noise=c``), dropout (``--config.model.dropout_rate=p``) and label smoothing
(``--config.optimizer.label_smoothing=s``) of 0.05, 0.1, 0.2, 0.4 and 0.8.
"""

import ml_collections

from jsubspace.runs import recipes


def get_config() -> ml_collections.ConfigDict:
    return recipes.cifar10_cresnet20("point")
