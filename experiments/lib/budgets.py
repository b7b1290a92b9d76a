"""The budgets and methods of `experiments.budget`: the study for two CPU cores, and a scale for a GPU.

The methods, grids, seeds and budgets were declared before any result of the study. Three things came later: what a run costs in the
forecast, the control of six endpoints (`CONTROL_SIX`) in the one budget in which six endpoints had been more accurate, and two methods
of the scale for a GPU that have the rate and the decay of the study.
"""

import dataclasses
from typing import Any

from experiments.lib.noisy_digits import DIGITS, NOISE
from experiments.lib.scenarios import FASHION, Scenario
from experiments.lib.study import INDEPENDENT, STANDARD, Budget, Method

RATES, DECAYS = (0.05, 0.1, 0.2, 0.4), (1e-4, 5e-4)
SEEDS, GPU_SEEDS = (0, 1, 2, 3, 4), (0, 1, 2)
SMOOTHING = 0.1
"""The strength of label smoothing, which is not tuned."""

CENTER = (("subspace.pull_back", "center"), ("subspace.spread_growth", 0.5))
"""Both options of docs/center.md. Their one number, the fraction 0.5, is not tuned."""

_SIX = ("subspace.num_endpoints", 6)
LINE = Method("line", "line", "line")
LINE_CENTER = Method("line_center", "line, center and growing spread", "line", CENTER, plain="line")
CONTROL = Method("control", "standard, lr/2 and decay·2", "standard", (), 1 / 2, 2.0)
SMOOTHED = Method(
    "label_smoothing", f"label smoothing {SMOOTHING}", "standard", (("optimizer.label_smoothing", SMOOTHING),)
)
SIX = Method("six", "six endpoints", "simplex", (_SIX,))
SIX_CENTER = Method("six_center", "six endpoints, center and growing spread", "simplex", (_SIX, *CENTER), plain="six")
CONTROL_SIX = Method("control_six", "standard, lr/6 and decay·6", "standard", (), 1 / 6, 6.0)

METHODS = (STANDARD, LINE, LINE_CENTER, CONTROL, SMOOTHED, SIX, SIX_CENTER)
"""In the order in which they are trained."""

_POINTS = {"evaluation.num_points": 3, "evaluation.num_random_points": 1}


def _scenario(base: Scenario, name: str, num_epochs: int, noise: float = 0.0, **further: Any) -> Scenario:
    settings = dict(base.settings) | _POINTS | further | ({"data.label_noise": noise} if noise else {})
    return dataclasses.replace(
        base, name=name, num_epochs=num_epochs, settings=tuple(settings.items()), corruptions="", shared_epochs=()
    )


PERCEPTRON = dataclasses.replace(
    FASHION,
    title="perceptron (Fashion-MNIST)",
    settings=(
        *(("model.name", "mlp"), ("model.depth", 2), ("model.width", 256)),
        *(("num_devices", 1), ("evaluation.num_resamples", 20)),
        *(("log_every_steps", 469), ("checkpoint_every_epochs", 5), ("optimizer.warmup_epochs", 1)),
    ),
)
"""Two hidden layers of 256 units on all images of 28 x 28 pixels, in batches of 128."""


def _digits(noise: float = 0.0) -> Budget:
    scenario = _scenario(DIGITS, _named("digits_60", noise), 60, noise)
    methods = (*METHODS, CONTROL_SIX) if noise else METHODS
    title = _titled("digits, 60 epochs", noise)
    return Budget(scenario, title, methods, 1437, 200, RATES, DECAYS, SEEDS, **_cost(15, 0.015))


def _small(num_epochs: int, noise: float = 0.0) -> Budget:
    scenario = _scenario(FASHION, _named(f"fashion_{num_epochs}", noise), num_epochs, noise)
    title = _titled(f"2,000 images of Fashion-MNIST, {num_epochs} epochs", noise)
    return Budget(scenario, title, METHODS, 2000, 5000, RATES, DECAYS, SEEDS, **_cost(15, 0.0045))


def _perceptron(num_epochs: int, noise: float = 0.0) -> Budget:
    scenario = _scenario(PERCEPTRON, _named(f"perceptron_{num_epochs}", noise), num_epochs, noise)
    title = _titled(f"perceptron on Fashion-MNIST, {num_epochs} epochs", noise)
    return Budget(scenario, title, METHODS, 60000, 5000, RATES, DECAYS, SEEDS, **_cost(10, 0.0021))


def _cost(seconds: float, per_step: float) -> dict[str, float]:
    return {"seconds": seconds, "seconds_per_step": per_step}


def _named(name: str, noise: float) -> str:
    return f"{name}_noise{noise:g}" if noise else name


def _titled(title: str, noise: float) -> str:
    return f"{title}, {noise:.0%} random labels" if noise else title


SMALL = (
    _digits(),
    _small(30),
    _perceptron(10),
    _digits(NOISE),
    _small(120, NOISE),
    _perceptron(10, NOISE),
    _small(120),
    _perceptron(40),
    _small(480),
)
"""The study, in the order in which it is trained: one whole budget after the other, and the most expensive one last."""

GPU_METHODS = (
    STANDARD,
    LINE,
    LINE_CENTER,
    Method("standard_tuned", "standard, decay of the study", "standard", (), 1.0, 5.0),
    Method("line_tuned", "line, center and growing spread, rate and decay of the study", "line", CENTER, 2.0, 5.0),
    Method("layerwise_line", "layerwise line", "layerwise line"),
    Method("curve", "curve", "curve"),
    Method("simplex3", "three endpoints", "simplex", (("subspace.num_endpoints", 3),)),
    SIX,
    Method("swa", "SWA of three networks", "SWA", (("optimizer.num_collected", 3),)),
    Method("two_independent", "two independent networks", INDEPENDENT),
)

CRESNET20 = Scenario(
    "gpu",
    "cResNet20 (Fashion-MNIST)",
    "configs/fashion_mnist_cresnet8_standard.py",
    160,
    (
        *(("model.depth", 20), ("data.batch_size", 128), ("num_devices", 1)),
        *(("evaluation.num_points", 11), ("checkpoint_every_epochs", 4)),
    ),
)
"""The paper's network and budget on all images of 28 x 28 pixels: 75,040 steps."""


def _gpu(noise: float) -> Budget:
    scenario = dataclasses.replace(
        CRESNET20,
        name=_named("gpu_160", noise),
        settings=(*CRESNET20.settings, *((("data.label_noise", noise),) if noise else ())),
    )
    title = _titled("cResNet20 on Fashion-MNIST, 160 epochs", noise)
    return Budget(scenario, title, GPU_METHODS, 60000, 0, (0.1,), (1e-4,), GPU_SEEDS, **_cost(60, 0.003))


GPU = tuple(_gpu(noise) for noise in (0.0, 0.2, 0.4))
"""The rates are the paper's, so nothing is chosen. Two methods have the rate and the decay that the study chose for them on 2,000
images of Fashion-MNIST and 120 epochs."""

SCALES = {"small": SMALL, "gpu": GPU}
