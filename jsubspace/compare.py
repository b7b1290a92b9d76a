"""Compares finished runs: ``python -m jsubspace.compare RUN RUN ...``.

Runs that differ in their seed alone are one method: the table has the mean over them and its standard deviation. A method
has a row for every predictor that it is known by: the network at the midpoint, and its ensembles.
"""

import argparse
import difflib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jsubspace import paths, program
from jsubspace.errors import UsageError
from jsubspace.runs import comparison_figure, methods
from jsubspace.runs import results as results_of
from jsubspace.storage.writer import write_json, write_text

METRICS = {
    "accuracy": "accuracy",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "adaptive_ece": "adaptive ECE",
}
"""What can be compared, with its title."""


class Entry(NamedTuple):
    """A row of the comparison.

    Attributes:
      method: what was trained.
      predictor: the network or ensemble.
      networks: how many networks predict.
      runs: the folders it was found in.
      values: of each metric, one a run.
    """

    method: str
    predictor: str
    networks: int
    runs: tuple[str, ...]
    values: dict[str, list[float]]


def compare(runs: Sequence[str | pathlib.Path]) -> list[Entry]:
    """One `Entry` for every predictor of every method, in the order of the runs.

    Raises:
      UsageError: if there is no run, one is not finished or was evaluated by another version, one is given twice, or
        they were tested on different data sets.
    """
    if not runs:
        raise UsageError("which runs? Name their folders: python -m jsubspace.compare RUN RUN ...")
    folders = [pathlib.Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError(f"a run is given twice in {', '.join(map(str, folders))}. Its mean would count it twice.")
    found = {str(folder): _read(folder) for folder in folders}
    sets = {results_of.settings_of(results)["data"]["name"] for results in found.values()}
    if len(sets) > 1:
        raise UsageError(
            f"the runs were tested on different data sets, {', '.join(sorted(sets))}. Compare runs on one data set."
        )
    names = methods.names_of({run: results_of.settings_of(results) for run, results in found.items()})
    entries: dict[tuple[str, str], Entry] = {}
    for run, results in found.items():
        rows = list(results["predictors"])
        if best := results["early_stopping"]:
            rows.append({"name": "early stopping", "networks": 1} | best)
        for row in rows:
            name = (names[run], row["name"])
            entry = entries.setdefault(name, Entry(*name, row["networks"], (), {metric: [] for metric in METRICS}))
            values = {metric: [*entry.values[metric], row[metric]] for metric in METRICS}
            entries[name] = entry._replace(runs=(*entry.runs, run), values=values)
    return list(entries.values())


def table(entries: list[Entry], metrics: Sequence[str]) -> str:
    """The comparison in Markdown: mean, and ± standard deviation (n - 1) where there are several runs.

    Raises:
      UsageError: for an unknown metric.
    """
    for metric in metrics:
        if metric not in METRICS:
            nearest = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise UsageError(f"unknown metric {metric!r}. The metrics are {', '.join(METRICS)}.{hint}")
    lines = [
        f"| method | predictor | networks | runs | {' | '.join(METRICS[metric] for metric in metrics)} |",
        f"| --- | --- | --- | --- |{' --- |' * len(metrics)}",
    ]
    for entry in entries:
        cells = " | ".join(_cell(entry.values[metric]) for metric in metrics)
        lines.append(f"| {entry.method} | {entry.predictor} | {entry.networks} | {len(entry.runs)} | {cells} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m jsubspace.compare", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of finished runs")
    parser.add_argument(
        "--metrics", default="accuracy,nll,brier,ece", help=f"with commas between, of {', '.join(METRICS)}"
    )
    parser.add_argument("--out", help="a folder for table.md, comparison.json and comparison.png")
    arguments = parser.parse_args(argv)
    metrics = [metric.strip() for metric in arguments.metrics.split(",")]
    entries = compare([paths.expanded(run, "RUN") for run in arguments.runs])
    text = table(entries, metrics)
    print(text)
    if arguments.out:
        folder = pathlib.Path(paths.expanded(arguments.out, "--out"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "table.md", text + "\n")
            write_json(folder / "comparison.json", [entry._asdict() for entry in entries])
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error}. Choose another --out.") from error
        named = {METRICS[metric]: metric for metric in metrics}
        comparison_figure.draw(
            [(f"{entry.method}: {entry.predictor}", entry.values) for entry in entries],
            named,
            folder / "comparison.png",
        )


def _read(folder: pathlib.Path) -> dict[str, Any]:
    results = results_of.read(folder)
    if results is None or not results_of.is_finished(results):
        raise UsageError(f"{folder} holds no finished run. Finish it: python -m jsubspace.main.")
    return results


def _cell(values: list[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.4f}"


if __name__ == "__main__":
    program.call(main)
