"""What every test example says about a run's predictors: the file ``per_example.npz`` beside results.json.

results.json has means. Two runs can be compared example by example only if their scores per example are kept. The file has
``names`` ``[q]`` of the predictors, and ``correct``, ``confidence``, ``nll`` and ``brier`` ``[q, n]`` in float32.
"""

import math
import pathlib
import zipfile
from typing import Any

import jax
import numpy as np

from jsubspace.errors import UsageError
from jsubspace.evaluation.metrics import Scores
from jsubspace.evaluation.positions import PAIR
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks import Outcomes
from jsubspace.storage import files, folders

FILE = "per_example.npz"


def write(workdir: pathlib.Path, plan: Survey, outcomes: Outcomes) -> None:
    """Writes the scores of the midpoint, and of every ensemble that is no mere pair of a path, completely or not at all.

    Raises:
      UsageError: if the folder cannot be written.
    """
    names = [plan.positions[plan.center].name]
    rows = [jax.tree.map(lambda leaf: leaf[plan.center], outcomes.points)]
    for i, ensemble in enumerate(plan.ensembles):
        if ensemble.kind != PAIR:
            names.append(ensemble.name)
            rows.append(jax.tree.map(lambda leaf, i=i: leaf[i], outcomes.by_probability))
    arrays = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float32), *rows)._asdict()
    try:
        with files.new_file(workdir / FILE) as file:
            np.savez(file, names=np.array(names), **arrays)
    except OSError as error:
        raise folders.cannot_write(workdir, error) from error


def read(workdir: pathlib.Path, results: dict[str, Any]) -> dict[str, Scores]:
    """The scores ``[n]`` of every predictor, by its name. An older run has no such file, and the dictionary is empty.

    Args:
      workdir: the run's folder.
      results: the content of its results.json.

    Raises:
      UsageError: if the file is damaged, or does not belong to these results.
    """
    path = workdir / FILE
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            names = file["names"].tolist()
            found = {name: Scores(*(file[leaf][i] for leaf in Scores._fields)) for i, name in enumerate(names)}
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is damaged ({type(error).__name__}: {error}). {_again(workdir)}") from error
    for row in results["predictors"]:
        known = found.get(row["name"])
        if known is not None and not _is_mean(row, known):
            raise UsageError(f"{path} does not belong to the results.json beside it. {_again(workdir)}")
    return found


def _is_mean(row: dict[str, Any], scores: Scores) -> bool:
    """Whether a row of results.json has the means of these scores. An evaluation that was killed leaves the older row."""
    metrics = {"accuracy": scores.correct, "nll": scores.nll, "brier": scores.brier}
    return all(
        (mean := row.get(metric)) is None
        or math.isclose(np.mean(values, dtype=np.float64), mean, rel_tol=1e-6, abs_tol=1e-6)
        for metric, values in metrics.items()
    )


def _again(workdir: pathlib.Path) -> str:
    return f"Evaluate the run again: python -m jsubspace.evaluate --workdir={workdir}."
