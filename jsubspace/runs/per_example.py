"""What every test example says about a run's predictors: the file ``per_example.npz`` beside results.json.

results.json has means. Two runs can be compared example by example only if their scores per example are kept. The file has
``names`` ``[q]`` of the predictors, and ``correct``, ``confidence``, ``nll`` and ``brier`` ``[q, n]`` in float32. A run with
another task has an array for each score instead (`evaluation.summaries.values`). The mean of such an array is the score.
"""

import math
import pathlib
from typing import Any

import jax
import numpy as np

from jsubspace.errors import UsageError
from jsubspace.evaluation import score_names
from jsubspace.evaluation.metrics import Scores
from jsubspace.evaluation.positions import PAIR
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks import Outcomes, Task
from jsubspace.storage import array_files, files, folders
from jsubspace.storage.array_files import Array
from jsubspace.storage.schema import Mismatch, Text

FILE = "per_example.npz"


def write(workdir: pathlib.Path, plan: Survey, outcomes: Outcomes, task: Task) -> None:
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
    kept = [task.kept(row) for row in rows]
    arrays: dict[str, Any] = {name: np.stack([one[name] for one in kept]).astype(np.float32) for name in kept[0]}
    try:
        with files.new_file(workdir / FILE) as file:
            np.savez(file, names=np.array(names), **arrays)
    except OSError as error:
        raise folders.cannot_write(workdir, error) from error


def read(workdir: pathlib.Path, results: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The numbers ``[n]`` of every predictor, by its name and by what they are. An older run has no such file, and the dictionary is empty.

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
        names, numbers = _checked(array_files.read(path, _arrays_of(results)), results.get("task") is None)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}). {_again(workdir)}") from error
    found = {name: {leaf: values[i] for leaf, values in numbers.items()} for i, name in enumerate(names)}
    for row in results["predictors"]:
        known = found.get(row["name"])
        if known is not None and not _is_mean(row, known):
            raise UsageError(f"{path} does not belong to the results.json beside it. {_again(workdir)}")
    return found


def _arrays_of(results: dict[str, Any]) -> dict[str, Array]:
    """The declared arrays of `FILE`."""
    leaves = score_names.higher_is_better(results) if results.get("task") else Scores._fields
    return {"names": Array("U", (None,))} | {leaf: Array("float32", (None, None)) for leaf in leaves}


def _is_mean(row: dict[str, Any], numbers: dict[str, np.ndarray]) -> bool:
    """Whether a row of results.json has the means of these numbers. An evaluation that was killed leaves the older row."""
    means = {"accuracy" if leaf == "correct" else leaf: values for leaf, values in numbers.items()}
    return all(
        (mean := row.get(metric)) is None
        or math.isclose(np.mean(values, dtype=np.float64), mean, rel_tol=1e-6, abs_tol=1e-6)
        for metric, values in means.items()
    )


def _checked(arrays: dict[str, np.ndarray], is_classification: bool) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names ``[q]`` and the numbers ``[q, n]``. A network with outputs that are not finite has NaN as numbers."""
    names = arrays.pop("names").tolist()
    for name in names:
        Text().check(name, "a name")
    shapes = {leaf.shape for leaf in arrays.values()}
    if len(shapes) > 1 or min(shapes)[0] != len(names) or 0 in min(shapes):
        raise Mismatch("its arrays have different lengths, or hold nothing")
    of_class = (("correct", 1), ("confidence", 1.001), ("brier", 2.001), ("nll", np.inf))
    for leaf, largest in of_class if is_classification else ():
        values = arrays[leaf]
        if ((values < 0) | (values > largest)).any():
            raise Mismatch(f"{leaf} has a value outside of 0 to {largest:g}")
    return names, arrays


def _again(workdir: pathlib.Path) -> str:
    return f"Evaluate the run again: python -m jsubspace.evaluate --workdir={workdir}."
