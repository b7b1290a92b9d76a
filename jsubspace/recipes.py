"""Settings that the configs of one data set and network share, whatever the method: a config adds its subspace.

The paper's are in section 4 and, where the text leaves them out, those of the authors' program.
"""

import ml_collections

from jsubspace import config


def digits_cresnet8() -> ml_collections.ConfigDict:
    """cResNet-8 on 1,437 handwritten digits of 8 x 8 pixels: a minute on two CPU cores. Ours, not the paper's."""
    settings = config.default()
    settings.data.name = "digits"
    settings.model.depth = 8
    settings.optimizer.num_epochs = 60
    settings.log_every_steps = 12
    settings.checkpoint_every_epochs = 10
    return settings


def fashion_mnist_cresnet8() -> ml_collections.ConfigDict:
    """cResNet-8 on Fashion-MNIST: an hour or two on two CPU cores. Ours, not the paper's."""
    settings = config.default()
    settings.data.name = "fashion_mnist"
    settings.model.depth = 8
    settings.optimizer.num_epochs = 40
    return settings


def cifar10_cresnet20() -> ml_collections.ConfigDict:
    """cResNet20 on CIFAR-10: 160 epochs, batch 128, learning rate 0.1, momentum 0.9, decay 1e-4."""
    return config.default()
