"""Settings that the configs of one data set and network share. A config adds the subspace that is trained.

The paper's settings are from its section 4. The authors' program provides the settings that the text leaves out.
"""

import ml_collections

from jsubspace.runs import config


def digits_cresnet8(subspace: str, **fields: int | bool) -> ml_collections.ConfigDict:
    """cResNet-8 on 1,437 handwritten digits of 8 x 8 pixels: a minute on two CPU cores. The paper has no such run."""
    settings = _start(subspace, fields)
    settings.data.name = "digits"
    settings.model.depth = 8
    settings.optimizer.num_epochs = 60
    settings.log_every_steps = 12
    settings.checkpoint_every_epochs = 10
    return settings


def fashion_mnist_cresnet8(subspace: str, **fields: int | bool) -> ml_collections.ConfigDict:
    """cResNet-8 on Fashion-MNIST: some hours on two CPU cores. The paper has no such run."""
    settings = _start(subspace, fields)
    settings.data.name = "fashion_mnist"
    settings.model.depth = 8
    settings.optimizer.num_epochs = 40
    settings.checkpoint_every_epochs = 1
    return settings


def cifar10_cresnet20(subspace: str, **fields: int | bool) -> ml_collections.ConfigDict:
    """cResNet20 on CIFAR-10: 160 epochs, batch 128, learning rate 0.1, momentum 0.9, decay 1e-4."""
    return _start(subspace, fields)


def tiny_imagenet_resnet18(subspace: str, **fields: int | bool) -> ml_collections.ConfigDict:
    """ResNet18 on Tiny-ImageNet, with the optimizer of CIFAR-10."""
    settings = _start(subspace, fields)
    settings.data.name = "tiny_imagenet"
    settings.model.name = "resnet"
    settings.model.depth = 18
    settings.model.width = 64
    settings.checkpoint_every_epochs = 1
    return settings


def imagenet_resnet50(subspace: str, **fields: int | bool) -> ml_collections.ConfigDict:
    """ResNet50 on ImageNet: 200 epochs, batch 256, decay 5e-5, and BatchNorm statistics from a sample."""
    settings = _start(subspace, fields)
    settings.data.name = "imagenet2012"
    settings.data.batch_size = 256
    settings.model.name = "resnet"
    settings.model.depth = 50
    settings.model.width = 64
    settings.model.stem = "imagenet"
    settings.optimizer.weight_decay = 5e-5
    settings.optimizer.num_epochs = 200
    # 51,200 images per point. The paper takes 1.3 million for each of 21 points. `experiments.stats_sample` measures the
    # loss of accuracy.
    settings.evaluation.num_stats_batches = 200
    settings.checkpoint_every_epochs = 1
    return settings


def imagenet_wide_resnet50(subspace: str, **fields: int | bool) -> ml_collections.ConfigDict:
    """WideResNet50-2 on ImageNet: the settings of ResNet50, for 100 epochs."""
    settings = imagenet_resnet50(subspace, **fields)
    settings.model.inner_width = 2
    settings.optimizer.num_epochs = 100
    return settings


def _start(subspace: str, fields: dict[str, int | bool]) -> ml_collections.ConfigDict:
    settings = config.default()
    settings.subspace.name = subspace
    settings.subspace.update(fields)
    return settings
