"""The data, network and budget of the figures, at the paper's scale and at a scale for two CPU cores."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Data, network and budget, which all jobs of a panel share.

    Attributes:
      name: the name of the folder of its runs.
      title: its title in a figure.
      config: a file in ``configs/``, for standard training.
      num_epochs: the budget.
      settings: fields that differ from the file.
      noise_levels: fractions of random labels, with 0 among them (figures 8 and 12).
      simplexes: numbers of endpoints m (figure 7).
      noise_simplex: m of the simplex that is trained with label noise (figure 8).
      samples: numbers of positions per step (appendix B).
      budgets: factors of ``num_epochs`` (figure 10).
      sweep: strengths of dropout and label smoothing. The best strength is reported.
      sweep_seeds: how many of the seeds the sweep has. The other comparisons have all seeds.
      corruptions: the corruptions of the test set (figure 9).
      shared_epochs: the numbers of epochs after which runs with the same beginning part (appendix H).
      plane_points: the points per side of the grid on a plane (figure 2).
      tests: how often the midpoint is tested during standard training. The best test is the early stopping.
      one_core: whether a job is one core's work, so that one job per core can run at once.
    """

    name: str
    title: str
    config: str
    num_epochs: int
    settings: tuple[tuple[str, Any], ...] = ()
    noise_levels: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    simplexes: tuple[int, ...] = (2, 3, 4, 5, 6)
    noise_simplex: int = 3
    samples: tuple[int, ...] = (1, 2, 4)
    budgets: tuple[float, ...] = (0.25, 0.5, 1, 2)
    sweep: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    sweep_seeds: int = 3
    corruptions: str = ""
    shared_epochs: tuple[int, ...] = ()
    plane_points: int = 25
    tests: int = 20
    one_core: bool = False

    def noisy(self, fraction: float) -> "Scenario":
        """The same scenario with random labels, or itself without noise."""
        if not fraction:
            return self
        return self._variant(f"{self.name}_noise{fraction:g}", self.num_epochs, {"data.label_noise": fraction})

    def longer(self, factor: float) -> "Scenario":
        """The same scenario with another budget, or itself with the factor 1."""
        if factor == 1:
            return self
        num_epochs = round(self.num_epochs * factor)
        return self._variant(f"{self.name}_{num_epochs}epochs", num_epochs, {})

    def _variant(self, name: str, num_epochs: int, settings: dict[str, Any]) -> "Scenario":
        changed = tuple((dict(self.settings) | settings).items())
        return dataclasses.replace(
            self, name=name, num_epochs=num_epochs, settings=changed, corruptions="", shared_epochs=()
        )


CIFAR10 = Scenario(
    "cifar10", "cResNet20 (CIFAR-10)", "configs/cifar10_cresnet20_standard.py", 160, shared_epochs=(8, 40, 80)
)
TINY_IMAGENET = Scenario("tiny_imagenet", "ResNet18 (Tiny-ImageNet)", "configs/tiny_imagenet_resnet18_standard.py", 160)
RESNET50 = Scenario(
    "imagenet_resnet50",
    "ResNet50 (ImageNet)",
    "configs/imagenet_resnet50_standard.py",
    200,
    budgets=(0.25, 0.5, 1),
    noise_levels=(0.0, 0.2, 0.4),
    corruptions="snow_3,contrast_3",
)
WIDE_RESNET50 = Scenario(
    "imagenet_wide_resnet50",
    "WideResNet50 (ImageNet)",
    "configs/imagenet_wide_resnet50_standard.py",
    100,
    noise_levels=(0.0, 0.2, 0.4),
    corruptions="snow_3,contrast_3",
)

# Our own small scale has few and small images in small batches, so that a job has the thousands of steps that a subspace
# needs within two minutes of one core. The test set is whole. How a line compares with standard training depends on the
# budget (figure 10).
_SMALL = (
    ("data.num_train", 2000),
    ("data.pooling", 2),
    ("data.batch_size", 32),
    ("num_devices", 1),
    ("evaluation.num_points", 11),
    ("evaluation.num_resamples", 20),
    ("log_every_steps", 630),
    ("checkpoint_every_epochs", 30),
)
FASHION = Scenario(
    "fashion_mnist",
    "cResNet8 (Fashion-MNIST, small)",
    "configs/fashion_mnist_cresnet8_standard.py",
    120,
    (*_SMALL, ("model.width", 8)),
    noise_levels=(0.0, 0.4),
    simplexes=(2, 6),
    noise_simplex=2,
    samples=(1, 2),
    budgets=(0.5, 1, 2, 4),
    sweep=(0.2,),
    sweep_seeds=1,
    corruptions="snow_1,contrast_1",  # the mildest, because the network has only seen black backgrounds
    shared_epochs=(5, 60),
    plane_points=11,
    tests=10,
    one_core=True,
)
WIDE_FASHION = dataclasses.replace(
    FASHION,
    name="fashion_mnist_wide",
    title="wide cResNet8 (Fashion-MNIST, small)",
    num_epochs=60,
    settings=(*_SMALL, ("model.width", 12)),
    corruptions="",
    shared_epochs=(),
)
