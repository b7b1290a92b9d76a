"""What a report says about its scores: which there are, which is the main one, and what they are called."""

from collections.abc import Mapping
from typing import Any

from jsubspace.evaluation.tasks.classification import Classification

TITLES = {"nll": "NLL", "rmse": "RMSE", "crps": "CRPS", "brier": "Brier", "ece": "ECE", "ece_debiased": "debiased ECE",
          "adaptive_ece": "adaptive ECE"}  # fmt: skip
"""What a score is called in a table, if it is not called by its name."""


def title(score: str) -> str:
    """What a score is called in a table.

    Example:
      >>> title("rmse"), title("bits_per_byte")
      ('RMSE', 'bits per byte')
    """
    return TITLES.get(score, score.replace("_", " "))


def higher_is_better(report: Mapping[str, Any]) -> Mapping[str, bool | None]:
    """The names of the scores of a report, or of results.json, and whether a higher score is the better one."""
    task = report.get("task")
    return task["higher_is_better"] if task else Classification.higher_is_better


def main(report: Mapping[str, Any]) -> str:
    """The score that is drawn, and by which a subspace connects its ends."""
    task = report.get("task")
    return task["main"] if task else Classification().main


def chosen_by(report: Mapping[str, Any]) -> str:
    """The score by which a point is chosen on validation data: the NLL if it is a score, else the main score."""
    return "nll" if "nll" in higher_is_better(report) else main(report)
