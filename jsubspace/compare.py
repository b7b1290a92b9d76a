"""Compares finished runs: ``python -m jsubspace.compare RUN RUN ...``.

Runs that differ in their seed alone are one method: the table has the mean over them and half of its 95 % t interval. A method
has a row for every predictor that it is known by: the network at the midpoint, and its ensembles. Columns of their own have
the difference to the first row, paired over the test examples, with its 95 % interval. The first kind of interval is about
other seeds, and the second kind is about other test examples. docs/statistics.md explains both.
"""

import argparse
import difflib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jsubspace import preemption, program, shown
from jsubspace.errors import UsageError
from jsubspace.evaluation import bounds, paired, score_names
from jsubspace.runs import comparable, comparison_figure, methods, per_example
from jsubspace.runs import results as results_of
from jsubspace.storage import files, places
from jsubspace.storage.documents import write_json

USUAL = ("accuracy", "nll", "brier", "ece")
"""The metrics of a classification that are shown if nobody asks for others. Other tasks show all of their scores."""

BEST_EPOCH = "best epoch, chosen on the test set"
"""The predictor that is the best test of the midpoint during training, where the test set was used for these tests."""


NOTE = (
    "± is half of the 95 % t interval of the mean over runs that differ in their seed. A difference to the first row is paired "
    "over the test examples. Its 95 % interval is about other test examples and not about other seeds."
)

NOTE_OF_BEST_EPOCH = (
    f"The predictor '{BEST_EPOCH}' is a maximum over the tests during training. The test set chose the epoch and also "
    "scored it, so these scores are too good on average. Their interval does not contain this error."
)

_Numbers: TypeAlias = dict[str, np.ndarray]
"""Numbers ``[n]`` of one predictor on every example, by name."""


class Entry(NamedTuple):
    """A row of the comparison.

    Attributes:
      method: what was trained.
      predictor: the network or ensemble.
      networks: how many networks predict.
      runs: the folders it was found in.
      values: of each metric, one value per run. It is None where the results of an older version lack the metric, or the value
        is not finite.
      over_runs: of each metric, the 95 % t interval of the mean over runs, or None for a single run or a few equal ones.
      to_first: of each metric, the ``difference`` to the first entry and its ``interval`` over the test examples that both
        share, or None without scores per example.
    """

    method: str
    predictor: str
    networks: int
    runs: tuple[str, ...]
    values: dict[str, list[float | None]]
    over_runs: dict[str, list[float] | None]
    to_first: dict[str, dict[str, Any] | None]


def compare(runs: Sequence[str | pathlib.Path]) -> list[Entry]:
    """One `Entry` for every predictor of every method, in the order of the runs.

    Raises:
      UsageError: if there is no run, one is not finished or was evaluated by another version, one is given twice, two runs of
        one method have the same seed, or they were tested on different data sets, on different examples or for different tasks.
    """
    if isinstance(runs, str | pathlib.Path) or not runs:
        raise UsageError(
            "which runs? Name their folders: python -m jsubspace.compare RUN RUN ..., or compare([run, run]) in Python."
        )
    folders = [places.located(run, "a run's folder") for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError(f"a run is given twice in {', '.join(map(str, folders))}. Its mean would count it twice.")
    found = {str(folder): _read(folder) for folder in folders}
    comparable.check(found)
    metrics = metrics_of(next(iter(found.values())))
    names = methods.names_of({run: results_of.settings_of(results) for run, results in found.items()})
    comparable.check_seeds(names, found)
    entries: dict[tuple[str, str], Entry] = {}
    for run, results in found.items():
        rows = list(results["predictors"])
        best = results["early_stopping"]
        if best and best.get("tested_on", "test") == "test":  # Scores on validation data are of other examples.
            rows.append({"name": BEST_EPOCH, "networks": 1} | best)
        for row in rows:
            name = (names[run], row["name"])
            entry = entries.setdefault(
                name, Entry(*name, row["networks"], (), {metric: [] for metric in metrics}, {}, {})
            )
            values = {metric: [*entry.values[metric], row.get(metric)] for metric in metrics}
            entries[name] = entry._replace(runs=(*entry.runs, run), values=values)
    return _with_intervals(list(entries.values()), found)


def metrics_of(results: dict[str, Any]) -> list[str]:
    """What can be compared of a run: the scores of its task."""
    return list(score_names.higher_is_better(results))


def _num_bins(results: dict[str, Any]) -> int:
    """The number of bins of the calibration errors. A problem of one's own has no setting for it, but a diagram or nothing."""
    diagram = results.get("reliability", {}).get("count", ())
    return int(results_of.settings_of(results)["evaluation"].get("num_bins", len(diagram)))


def _with_intervals(entries: list[Entry], found: dict[str, dict[str, Any]]) -> list[Entry]:
    """Entries with both kinds of intervals."""
    scores = {run: per_example.read(places.located(run, "a run's folder"), results) for run, results in found.items()}
    bins = {_num_bins(results) for results in found.values()}
    first, metrics = _scores_of(entries[0], scores), list(entries[0].values)
    task = next(iter(found.values())).get("task")

    def to_first(entry: Entry, metric: str) -> dict[str, Any] | None:
        preemption.check()
        ours = _scores_of(entry, scores)
        if entry is entries[0] or not ours or not first or _num_examples(ours) != _num_examples(first):
            return None
        if task:
            of_ours, of_first = ([run[metric] for run in runs] for runs in (ours, first))
            return _named(paired.of_means(of_ours, of_first, metric in task["fractions"]))
        if "ece" in metric and len(bins) > 1:
            return None  # Errors of different bins are different quantities.
        return _named(paired.difference(ours, first, metric, min(bins)))

    def over_runs(values: list[float | None]) -> list[float] | None:
        known = [value for value in values if value is not None]
        is_known = len(known) == len(values) and not bounds.without_spread(known)
        return bounds.of_runs(known) if is_known else None

    return [
        entry._replace(
            over_runs={metric: over_runs(values) for metric, values in entry.values.items()},
            to_first={metric: to_first(entry, metric) for metric in metrics},
        )
        for entry in entries
    ]


def _named(both: tuple[float, list[float]] | None) -> dict[str, Any] | None:
    return None if both is None else {"difference": both[0], "interval": both[1]}


def _num_examples(runs: list[_Numbers]) -> int:
    return len(next(iter(runs[0].values())))


def _scores_of(entry: Entry, scores: dict[str, dict[str, _Numbers]]) -> list[_Numbers]:
    """The numbers per example of every run of an entry. The list is empty if a run does not have them."""
    if entry.predictor == BEST_EPOCH or any(entry.predictor not in scores[run] for run in entry.runs):
        return []
    return [scores[run][entry.predictor] for run in entry.runs]


def table(entries: list[Entry], metrics: Sequence[str] = ()) -> str:
    """The comparison in Markdown, of all metrics or of some.

    Every metric has a column with means. Where a row has several runs, half of the t interval over runs follows the mean. If
    runs have scores per example, a second column has the differences to the first row. Both kinds of intervals are never in
    one column.

    Raises:
      UsageError: for an unknown metric.
    """
    known = list(entries[0].values)
    metrics = metrics or known
    for metric in metrics:
        if metric not in known:
            nearest = difflib.get_close_matches(metric, known, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise UsageError(f"unknown metric {metric!r}. The metrics are {', '.join(known)}.{hint}")
    is_paired = any(entry.to_first.get(metric) for entry in entries for metric in metrics)
    titles = [
        title
        for metric in metrics
        for title in (score_names.title(metric), *((f"{score_names.title(metric)} − first",) if is_paired else ()))
    ]
    lines = [
        f"| method | predictor | networks | runs | {' | '.join(titles)} |",
        f"| --- | --- | --- | --- |{' --- |' * len(titles)}",
    ]
    for entry in entries:
        cells = []
        for metric in metrics:
            cells.append(_mean(entry, metric))
            if is_paired:
                cells.append(_difference(entry, metric))
        lines.append(
            f"| {shown.cell(entry.method)} | {shown.cell(entry.predictor)} | {entry.networks} | {len(entry.runs)} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def notes(entries: list[Entry]) -> list[str]:
    """What a reader of the table must know, one paragraph each."""
    has_best_epoch = any(entry.predictor == BEST_EPOCH for entry in entries)
    return [NOTE, *((NOTE_OF_BEST_EPOCH,) if has_best_epoch else ())]


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m jsubspace.compare", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of finished runs")
    parser.add_argument(
        "--metrics",
        help=f"scores of the runs' task, with commas between. For classifiers: {','.join(USUAL)} by default",
    )
    parser.add_argument("--out", help="a folder for table.md, comparison.json and comparison.png")
    arguments = parser.parse_args(argv)
    entries = compare([places.located(run, "RUN") for run in arguments.runs])
    usual = [metric for metric in USUAL if set(USUAL) <= set(entries[0].values)] or list(entries[0].values)
    metrics = usual if arguments.metrics is None else [metric.strip() for metric in arguments.metrics.split(",")]
    text = "\n\n".join((table(entries, metrics), *notes(entries)))
    print(text)
    preemption.check()
    if arguments.out:
        folder = places.located(arguments.out, "--out")
        try:
            files.make_folder(folder)
            files.write_text(folder / "table.md", text + "\n")
            write_json(folder / "comparison.json", [entry._asdict() for entry in entries])
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error}. Choose another --out.") from error
        preemption.check()
        draw(entries, metrics, folder / "comparison.png")


def draw(entries: list[Entry], metrics: Sequence[str], path: pathlib.Path) -> None:
    """Draws the figure of a comparison into a PNG file. Without matplotlib nothing is drawn."""
    names = [shown.label(f"{entry.method}: {entry.predictor}") for entry in entries]
    comparison_figure.draw(names, _panels(entries, metrics), path)


def _panels(entries: list[Entry], metrics: Sequence[str]) -> list[list[comparison_figure.Panel]]:
    """Means with their intervals over runs in one row, and differences over test examples in another."""

    def difference(entry: Entry, metric: str) -> comparison_figure.Value:
        found = entry.to_first[metric]
        return (found["difference"], found["interval"]) if found else (None, None)

    means = [
        (score_names.title(metric), [(_average(entry.values[metric]), entry.over_runs[metric]) for entry in entries])
        for metric in metrics
    ]
    differences = [
        (f"{score_names.title(metric)} − first", [difference(entry, metric) for entry in entries]) for metric in metrics
    ]
    is_paired = any(value is not None for _, values in differences for value, _ in values)
    return [means, differences] if is_paired else [means]


def _read(folder: pathlib.Path) -> dict[str, Any]:
    preemption.check()
    results = results_of.read(folder)
    if results is None or not results_of.is_finished(results):
        raise UsageError(f"{folder} holds no finished run. Finish it: python -m jsubspace.main.")
    return results


def _mean(entry: Entry, metric: str) -> str:
    mean, interval = _average(entry.values[metric]), entry.over_runs.get(metric)
    if mean is None:
        return "-"
    return f"{mean:.4f}" + (f" ± {(interval[1] - interval[0]) / 2:.4f}" if interval else "")


def _difference(entry: Entry, metric: str) -> str:
    found = entry.to_first.get(metric)
    if not found:
        return "-"
    low, high = found["interval"]
    return f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


if __name__ == "__main__":
    program.run(main)
