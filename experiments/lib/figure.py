"""What all figures share: their runs are finished, what they show is collected, and written as PNG, PDF, table and JSON."""

import argparse
import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.lib import plots, provenance, runs
from experiments.lib.problems import Problem
from experiments.lib.runs import Run
from jsubspace.data.workers import num_cores
from jsubspace.errors import UsageError
from jsubspace.storage.writer import write_json, write_text

SCALES = ("paper", "small")
OUTPUT = pathlib.Path("experiments") / "results" / "figures"


@dataclasses.dataclass
class Series:
    """One line of a panel.

    Attributes:
      label: of the method; its style follows from it.
      y: a row a seed: of one value for each x, or of one value where there is no x.
      x: places of the values; None for a level that holds everywhere.
    """

    label: str
    y: list[list[float]]
    x: list[float] | None = None


@dataclasses.dataclass
class Panel:
    """One pair of axes.

    Attributes:
      title: above it.
      x_label, y_label: of the axes; with an empty ``x_label`` every series is a level, and they stand side by side.
      series: what is drawn.
      percent: whether y is a fraction that is shown in percent.
      log_x: whether x is shown on a logarithmic scale.
    """

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    percent: bool = False
    log_x: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the paper.

    Attributes:
      name: of its files.
      title: a line.
      problems: for each of `SCALES`, what it is about.
      runs: ``(problem, seeds) -> {label: runs}``, a run a seed.
      panels: ``(problem, {label: results}) -> panels``, dataclasses; results are results.json of the runs, with the run's folder under
        "folder".
      draw: ``(panels, path without suffix, columns)``; that of a figure of curves, unless it says otherwise.
      table: ``panel -> Markdown``, likewise.
      columns: panels in a row.
    """

    name: str
    title: str
    problems: dict[str, tuple[Problem, ...]]
    runs: Callable[[Problem, Sequence[int]], dict[str, list[Run]]]
    panels: Callable[[Problem, dict[str, list[dict[str, Any]]]], Sequence[Any]]
    draw: Callable[[list[Any], pathlib.Path, int], None] = plots.curves
    table: Callable[[Any], str] = plots.table
    columns: int = 2

    def declared(self, scale: str, seeds: Sequence[int]) -> dict[Problem, dict[str, list[Run]]]:
        """Of every problem, its runs by label."""
        return {problem: self.runs(problem, seeds) for problem in self.problems[scale]}

    def make(self, scale: str, seeds: Sequence[int], root: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
        """Writes the figure from finished runs; returns the paths of its files."""
        panels, everything = [], []
        for problem, labelled in self.declared(scale, seeds).items():
            found = {}
            for label, of_label in labelled.items():
                read = [runs.results(run, root) for run in of_label]
                missing = [run.name for run, result in zip(of_label, read, strict=True) if result is None]
                if missing:
                    raise UsageError(f"{missing[0]} is not finished; give the command again without --plot.")
                found[label] = [
                    result | {"folder": root / run.name} for run, result in zip(of_label, read, strict=True) if result
                ]
                everything += of_label
            panels += self.panels(problem, found)
        made_by = {
            "figure": self.name,
            "title": self.title,
            "command": f"python -m experiments.{self.name} --scale={scale} --seeds {' '.join(map(str, seeds))}",
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "runs": runs.trained(everything, root),
            "trainings": {
                run.name: shlex.join(["python", *run.command(pathlib.Path("runs") / "figures")])
                for run in runs.in_order(everything)
            },
        }
        folder = output / scale
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        write_json(path.with_suffix(".json"), made_by | {"panels": [dataclasses.asdict(panel) for panel in panels]})
        text = "\n\n".join(self.table(panel) for panel in panels)
        write_text(path.with_suffix(".md"), f"# {self.title}\n\n`{made_by['command']}`\n\n{text}\n")
        self.draw(panels, path, self.columns)
        return [path.with_suffix(suffix) for suffix in (".png", ".pdf", ".md", ".json")]


def main(figures: Sequence[Figure]) -> None:
    """The command of one figure, or of several that share their runs."""
    description = figures[0].title if len(figures) == 1 else "All figures: their runs, then their files."
    name = f".{figures[0].name}" if len(figures) == 1 else ""
    parser = argparse.ArgumentParser(prog=f"python -m experiments{name}", description=description)
    parser.add_argument("--scale", default="small", choices=SCALES, help="the paper's, or one for two CPU cores")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, help="runs at once; one a core at small scale, one alone at the paper's")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs") / "figures", help="their folder")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="folder of the figure's files")
    parser.add_argument("--plot", action="store_true", help="train nothing: only draw what is finished")
    parser.add_argument("--list", action="store_true", help="train nothing: only show the commands of the runs")
    arguments = parser.parse_args()
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"--jobs is {arguments.jobs}; at least one run goes at once.")
    if len(set(arguments.seeds)) < len(arguments.seeds):
        raise UsageError(f"--seeds are {arguments.seeds}; each is a run of its own and may be there once.")
    declared = [
        run
        for figure in figures
        for labelled in figure.declared(arguments.scale, arguments.seeds).values()
        for of_label in labelled.values()
        for run in of_label
    ]
    root = arguments.runs.absolute()
    if arguments.list:
        for run in runs.in_order(declared):
            print(shlex.join(["python", *run.command(arguments.runs)]))
        return
    if not arguments.plot:
        jobs = arguments.jobs or (num_cores() if all(run.problem.one_core for run in declared) else 1)
        runs.finish(declared, root, jobs)
    for figure in figures:
        for path in figure.make(arguments.scale, arguments.seeds, root, arguments.output):
            print(path)


def grid(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the points on the grid along a line or curve."""
    return [row for row in result["points"] if row["name"][0].isdigit()]


def along(label: str, results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of P(alpha) over alpha."""
    x = [row["alpha"] for row in grid(results[0])]
    return Series(label, [[row[metric] for row in grid(result)] for result in results], x)


def ensembles_along(label: str, results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of the ensemble of P(alpha) and P(1 - alpha) over alpha; at 1/2 it is the midpoint."""
    y = []
    for result in results:
        pairs = [row for row in result["ensembles"] if all(member[0].isdigit() for member in row["members"])]
        half = [row["mean_probability"][metric] for row in pairs]
        y.append([*half, midpoint(result)[metric], *half[::-1]])
    return Series(label, y, [row["alpha"] for row in grid(results[0])])


def along_and_ensembles(
    problem: Problem, results: dict[str, list[dict[str, Any]]], of_ensembles: Sequence[Series] = ()
) -> list[Panel]:
    """Accuracy of P(alpha), and of its ensemble with P(1 - alpha): of every label but "standard", which is a level.

    Args:
      problem: for the title.
      results: by label.
      of_ensembles: more levels beside the ensembles.
    """
    lines = {label: found for label, found in results.items() if label != "standard"}
    standard = level("standard", results["standard"])
    single = [standard, *(along(label, found) for label, found in lines.items())]
    both = [standard, *of_ensembles, *(ensembles_along(label, found) for label, found in lines.items())]
    return [
        Panel(problem.title, "α", "test accuracy (%)", single, percent=True),
        Panel(problem.title, "α", "ensemble test accuracy (%)", both, percent=True),
    ]


def midpoint(result: dict[str, Any]) -> dict[str, Any]:
    """The row of the midpoint: of a single network itself."""
    return next(row for row in result["points"] if row["name"] == result["midpoint"])


def ensemble(result: dict[str, Any], name: str) -> dict[str, Any]:
    """Scores of an ensemble, of mean probability."""
    return next(row for row in result["ensembles"] if row["name"] == name)["mean_probability"]


def level(label: str, results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of the midpoint, or of the single network, as a level."""
    return Series(label, [[midpoint(result)[metric]] for result in results])


def over(
    label: str, x: Sequence[float], results: Sequence[Sequence[dict[str, Any]]], metric: str = "accuracy"
) -> Series:
    """A metric of the midpoint over x: ``results`` has the runs of each x, a seed each."""
    values = np.array([[midpoint(result)[metric] for result in at_x] for at_x in results])
    return Series(label, values.T.tolist(), list(x))


def command(figure: Figure) -> None:
    """Runs a figure's module as a program."""
    from jsubspace import program

    program.call(lambda: main([figure]))
    sys.exit()
