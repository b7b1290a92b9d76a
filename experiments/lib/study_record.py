"""What is kept of the finished runs of a study: one line of JSON per run, in a file of the repository.

With this file a study resumes on a fresh clone, where the folders of the runs do not exist. Lines of another file can be added,
so several machines can share a study.
"""

import json
import math
import pathlib
from typing import Any

import numpy as np

from experiments.lib.figure import midpoint
from experiments.lib.jobs import Job
from jsubspace.errors import UsageError
from jsubspace.storage.files import make_folder, write_text

SCORES = ("accuracy", "nll", "ece", "ece_debiased")
ROOT = pathlib.Path("runs")
"""The folder of runs that the recorded settings name, whatever the folder is."""


class Record:
    """The rows of finished runs, by the name of the run.

    Args:
      path: the file. It is made with the first row.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._rows = _read(path)

    def row(self, job: Job) -> dict[str, Any] | None:
        """The row of a run, or None if the run is not finished.

        Raises:
          UsageError: if the run was trained with other settings.
        """
        found = self._rows.get(job.name)
        if found is None:
            return None
        declared = settings_of(job)
        if found["settings"] != declared:
            other = sorted(
                name for name in {*declared, *found["settings"]} if declared.get(name) != found["settings"].get(name)
            )
            raise UsageError(
                f"{self.path} has a row of {job.name} with another config.{other[0]} ({found['settings'].get(other[0])!r}) than the "
                f"study declares ({declared.get(other[0])!r}). Delete the row, and the study trains the run again."
            )
        return found

    def add(self, job: Job, result: dict[str, Any] | None, made: dict[str, Any]) -> None:
        """Adds the row of a finished run to the file.

        Args:
          job: the run.
          result: the content of its results.json, or None if it diverged.
          made: its row of `crew.trained`.
        """
        row = {"run": job.name, "seed": job.seed, "settings": settings_of(job)} | made
        if result is not None:
            row |= {"training_seconds": result["seconds"]["training"], "jax": result["versions"]["jax"]} | measured(
                result
            )
        self._rows = _read(self.path) | {job.name: row}  # Another program may have added rows.
        self._write()

    def take(self, path: pathlib.Path) -> int:
        """Adds the rows of another file for runs that have no row yet. Returns their number."""
        if not path.is_file():
            raise UsageError(f"there is no file {path}. Give the runs.jsonl of another checkout.")
        others = {name: row for name, row in _read(path).items() if name not in self._rows}
        self._rows |= others
        self._write()
        return len(others)

    def _write(self) -> None:
        make_folder(self.path.parent)
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self._rows.values()))


def settings_of(job: Job) -> dict[str, Any]:
    """The fields by which a run differs from its config file, as JSON keeps them."""
    fields: dict[str, Any] = json.loads(json.dumps(job.fields(ROOT)))
    return fields


def measured(result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of results.json.

    ``test`` has the scores of the midpoint, ``validation`` has them on validation images, ``ensemble`` has the scores of the
    ensemble of the ends, and ``ends`` has the mean accuracy of one end. ``cosine_squared`` and ``distance`` are means over pairs
    of ends. What a run does not have is None.
    """
    pair = next((row for row in result["ensembles"] if row["kind"] == "ends"), None)
    ends = [row["accuracy"] for row in result["points"] if "end" in row["roles"]]
    return {
        "test": _scores(midpoint(result)),
        "validation": _scores(midpoint(result["validation"])) if result["validation"] else None,
        "ensemble": _scores(pair["mean_probability"]) if pair else None,
        "ends": float(np.mean(ends)) if pair else None,
        "cosine_squared": _mean_over_pairs(result, "cosine_squared") if pair else None,
        "distance": _mean_over_pairs(result, "l2") if pair else None,
    }


def _scores(row: dict[str, Any]) -> dict[str, float | None]:
    finite = {name: row[name] for name in SCORES}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in finite.items()}


def _mean_over_pairs(result: dict[str, Any], name: str) -> float:
    matrix = np.array(result["endpoints"]["kernels"][name])
    return float(np.mean(matrix[np.triu_indices(len(matrix), 1)]))


def _read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], 1):
        try:
            row = json.loads(line)
            rows[row["run"]] = row
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"line {number} of {path} is no row of a run. Delete the line, and the study trains the run again."
            ) from error
    return rows
