"""What every test example says about a run's predictors: the file ``per_example.npz`` beside results.json.

results.json has means. Two runs can be compared example by example only if their scores per example are kept. The file has
``names`` ``[q]`` of the predictors, and ``correct``, ``confidence``, ``nll`` and ``brier`` ``[q, n]`` in float32.
"""

import math
import pathlib
from typing import Any

import jax
import numpy as np

from jsubspace.errors import UsageError
from jsubspace.evaluation.metrics import Scores
from jsubspace.evaluation.positions import PAIR
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks import Outcomes
from jsubspace.storage import array_files, files, folders
from jsubspace.storage.array_files import Array
from jsubspace.storage.schema import Mismatch, Text

FILE = "per_example.npz"

_ARRAYS = {"names": Array("U", (None,))} | {leaf: Array("float32", (None, None)) for leaf in Scores._fields}
"""The declared arrays of `FILE`."""


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
    if not path.exists():
        return {}
    try:
        names, scores = _checked(array_files.read(path, _ARRAYS))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}). {_again(workdir)}") from error
    found = {name: Scores(*(leaf[i] for leaf in scores)) for i, name in enumerate(names)}
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


def _checked(arrays: dict[str, np.ndarray]) -> tuple[list[str], Scores]:
    """The names ``[q]`` and the scores ``[q, n]``. A network with outputs that are not finite has NaN as scores."""
    names, scores = arrays["names"].tolist(), Scores(*(arrays[leaf] for leaf in Scores._fields))
    for name in names:
        Text().check(name, "a name")
    if len({leaf.shape for leaf in scores}) > 1 or len(scores.correct) != len(names) or scores.correct.size == 0:
        raise Mismatch("its arrays have different lengths, or hold nothing")
    for leaf, largest in (("correct", 1), ("confidence", 1.001), ("brier", 2.001), ("nll", np.inf)):
        values = arrays[leaf]
        if ((values < 0) | (values > largest)).any():
            raise Mismatch(f"{leaf} has a value outside of 0 to {largest:g}")
    return names, scores


def _again(workdir: pathlib.Path) -> str:
    return f"Evaluate the run again: python -m jsubspace.evaluate --workdir={workdir}."
