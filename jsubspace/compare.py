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

from jsubspace import program
from jsubspace.errors import UsageError
from jsubspace.runs import figures, report, settings
from jsubspace.storage.writer import write_json, write_text

METRICS = {
    "accuracy": "accuracy",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "adaptive_ece": "adaptive ECE",
}
"""What can be compared, and what it is called."""


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
        raise UsageError(f"a run is given twice in {', '.join(map(str, folders))}; its mean would count it twice.")
    found = {str(folder): _read(folder) for folder in folders}
    sets = {results["config"]["data"]["name"] for results in found.values()}
    if len(sets) > 1:
        raise UsageError(
            f"the runs were tested on different data sets, {', '.join(sorted(sets))}; compare those of one."
        )
    names = _names({run: _flat(results["config"]) for run, results in found.items()}, found)
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
            raise UsageError(f"unknown metric {metric!r}; the metrics are {', '.join(METRICS)}.{hint}")
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
    entries = compare(arguments.runs)
    text = table(entries, metrics)
    print(text)
    if arguments.out:
        folder = pathlib.Path(arguments.out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "table.md", text + "\n")
            write_json(folder / "comparison.json", [entry._asdict() for entry in entries])
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error}; choose another --out.") from error
        named = {METRICS[metric]: metric for metric in metrics}
        figures.compare(
            [(f"{entry.method}: {entry.predictor}", entry.values) for entry in entries],
            named,
            folder / "comparison.png",
        )


def _read(folder: pathlib.Path) -> dict[str, Any]:
    results = report.read(folder)
    if results is None or not results.get("finished", True):
        raise UsageError(f"{folder} holds no finished run ; finish it: python -m jsubspace.main.")
    if results.get("schema") != report.SCHEMA:
        raise UsageError(
            f"{folder / report.RESULTS} has schema {results.get('schema')}, and this version reads {report.SCHEMA}; evaluate "
            f"it again: python -m jsubspace.evaluate --workdir={folder}."
        )
    return results


def _names(flat: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The method of each run; where two methods would be called the same, with the settings that tell them apart."""
    short = {run: report.method(results["config"]) for run, results in found.items()}
    may_differ = settings.may_differ_between_compared_runs()
    names = {}
    for run, name in short.items():
        alike = [flat[other] for other in flat if short[other] == name]
        differing = [
            field for field in flat[run] if field not in may_differ and len({str(a.get(field)) for a in alike}) > 1
        ]
        names[run] = ", ".join([name, *(f"{field} = {flat[run][field]}" for field in differing)])
    return names


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, content in config.items():
        inner = {f"{name}.{field}": v for field, v in _flat(content).items()} if isinstance(content, dict) else {}
        flat |= inner or {name: content}
    return flat


def _cell(values: list[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.4f}"


if __name__ == "__main__":
    program.call(main)
