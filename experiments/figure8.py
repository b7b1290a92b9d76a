"""Figure 8: label noise and calibration, with SWA, dropout, label smoothing and early stopping.

Dropout and label smoothing are swept. At every level of noise the strength with the best mean over seeds is shown, by
accuracy in the first panel and by calibration error in the second. The strength is chosen on validation data if the runs
keep some (``data.num_validation``), and otherwise on the test set, as in the paper.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import figure7
from experiments.lib import figure, jobs, scenarios
from experiments.lib.figure import Panel, Series
from experiments.lib.scenarios import Scenario
from jsubspace.errors import UsageError

SWEPT = {
    "dropout": ("standard", "model__dropout_rate"),
    "label smoothing": ("standard", "optimizer__label_smoothing"),
    "simplex + label smoothing": ("simplex", "optimizer__label_smoothing"),
}
PLAIN = ("standard", "SWA", "simplex")


def declare(scenario: Scenario, seeds: Sequence[int]) -> dict[str, list[jobs.Job]]:
    """Every method at every level of noise, and the swept methods at every strength."""
    declared, m = {}, scenario.noise_simplex
    for noise in scenario.noise_levels:
        noisy = scenario.noisy(noise)
        declared[f"standard {noise}"] = jobs.declare(noisy, "standard", seeds)
        for method in ("SWA", "simplex"):
            declared[f"{method} {noise}"] = figure7.center(noisy, method, seeds, m)
        for label, (method, field) in SWEPT.items():
            for strength in scenario.sweep:
                of_sweep, swept = seeds[: scenario.sweep_seeds], {field: strength}
                declared[f"{label} {noise} {strength}"] = (
                    figure7.center(noisy, method, of_sweep, m, **swept)
                    if method == "simplex"
                    else jobs.declare(noisy, method, of_sweep, **swept)
                )
    return declared


def panels(scenario: Scenario, results: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    """Accuracy and calibration error over the fraction of random labels."""
    noises = scenario.noise_levels
    accuracy = [figure.over(name, noises, [results[f"{name} {noise}"] for noise in noises]) for name in PLAIN]
    accuracy.append(early_stopping(noises, [results[f"standard {noise}"] for noise in noises]))
    accuracy += [_best(label, scenario, results, "accuracy", max) for label in SWEPT]
    ece = [figure.over(name, noises, [results[f"{name} {noise}"] for noise in noises], "ece") for name in PLAIN]
    ece += [_best(label, scenario, results, "ece", min) for label in SWEPT]
    return [
        Panel(scenario.title, "label noise", "test accuracy (%)", accuracy, percent=True),
        Panel(scenario.title, "label noise", "expected calibration error", ece),
    ]


def early_stopping(noises: Sequence[float], results: Sequence[Sequence[dict[str, Any]]]) -> Series:
    """Standard training at its best test during training."""
    stopped = [[result["early_stopping"] for result in at_noise] for at_noise in results]
    if any(best.get("tested_on", "test") != "test" for at_noise in stopped for best in at_noise):
        raise UsageError(
            "early stopping was chosen and scored on validation images, and this panel shows accuracies of the test set. Train "
            "with --config.evaluation.early_stopping=test."
        )
    values = [[best["accuracy"] for best in at_noise] for at_noise in stopped]
    return Series("early stopping", np.transpose(values).tolist(), list(noises))


def _best(label: str, scenario: Scenario, results: dict[str, list[dict[str, Any]]], metric: str, best: Any) -> Series:
    chosen = []
    for noise in scenario.noise_levels:
        sweep = [results[f"{label} {noise} {strength}"] for strength in scenario.sweep]
        judged = [[figure.midpoint(result.get("validation") or result)[metric] for result in found] for found in sweep]
        place = best(range(len(sweep)), key=lambda i: np.mean(judged[i]))
        chosen.append([figure.midpoint(result)[metric] for result in sweep[place]])
    return Series(label, np.transpose(chosen).tolist(), list(scenario.noise_levels))


FIGURE = figure.Figure(
    name="figure8",
    title="Figure 8: label noise and calibration",
    scenarios={"paper": (scenarios.CIFAR10,), "small": (scenarios.FASHION,)},
    jobs=declare,
    panels=panels,
)

if __name__ == "__main__":
    figure.command(FIGURE)
