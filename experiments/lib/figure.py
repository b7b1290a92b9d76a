"""What all figures share: a figure's jobs are finished, then its numbers are collected and written as PNG, PDF, table and JSON."""

import argparse
import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.lib import crew, jobs, plots, provenance
from experiments.lib.jobs import Job
from experiments.lib.scenarios import Scenario
from jsubspace.data.workers import num_cores
from jsubspace.errors import UsageError
from jsubspace.storage.documents import write_json
from jsubspace.storage.files import write_text

SCALES = ("paper", "small")
OUTPUT = pathlib.Path("experiments") / "results" / "figures"


@dataclasses.dataclass
class Series:
    """One line of a panel.

    Attributes:
      label: the name of the method, from which its style follows.
      y: one row per seed, with one value per x, or with a single value if x is None.
      x: where the values stand, or None for a level that holds everywhere.
    """

    label: str
    y: list[list[float]]
    x: list[float] | None = None


@dataclasses.dataclass
class Panel:
    """One pair of axes.

    Attributes:
      title: the line above the axes.
      x_label, y_label: the labels of the axes. With an empty ``x_label`` every series is a level, and the levels stand side
        by side.
      series: the lines that are drawn.
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
      name: the name of its module and of its files.
      title: one line.
      scenarios: for each of `SCALES`, the scenarios that it shows.
      jobs: ``(scenario, seeds) -> {label: jobs}``, one job per seed.
      panels: ``(scenario, {label: results}) -> panels``, which are dataclasses. The results are the contents of results.json,
        each with the folder of its run under "folder".
      draw: ``(panels, path without suffix, columns)``. By default it draws curves.
      table: ``panel -> Markdown``. By default it is the table of a figure of curves.
      columns: how many panels stand in a row.
    """

    name: str
    title: str
    scenarios: dict[str, tuple[Scenario, ...]]
    jobs: Callable[[Scenario, Sequence[int]], dict[str, list[Job]]]
    panels: Callable[[Scenario, dict[str, list[dict[str, Any]]]], Sequence[Any]]
    draw: Callable[[list[Any], pathlib.Path, int], None] = plots.curves
    table: Callable[[Any], str] = plots.table
    columns: int = 2

    def declared(self, scale: str, seeds: Sequence[int]) -> dict[Scenario, dict[str, list[Job]]]:
        """For every scenario, its jobs by label."""
        return {scenario: self.jobs(scenario, seeds) for scenario in self.scenarios[scale]}

    def make(self, scale: str, seeds: Sequence[int], root: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
        """Writes the figure from finished jobs, and returns the paths of its files."""
        panels: list[Any] = []
        everything: list[Job] = []
        for scenario, labelled in self.declared(scale, seeds).items():
            found = {}
            for label, of_label in labelled.items():
                read = [jobs.results(job, root) for job in of_label]
                missing = [job.name for job, result in zip(of_label, read, strict=True) if result is None]
                if missing:
                    raise UsageError(f"{missing[0]} is not finished. Give the command again without --plot.")
                found[label] = [
                    result | {"folder": root / job.name} for job, result in zip(of_label, read, strict=True) if result
                ]
                everything += of_label
            panels += self.panels(scenario, found)
        made_by = {
            "figure": self.name,
            "title": self.title,
            "command": f"python -m experiments.{self.name} --scale={scale} --seeds {' '.join(map(str, seeds))}",
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "runs": crew.trained(everything, root),
            "trainings": {
                job.name: shlex.join(["python", *job.command(pathlib.Path("runs") / "figures")])
                for job in jobs.in_order(everything)
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
    """The command of one figure, or of several figures that share their jobs."""
    description = figures[0].title if len(figures) == 1 else "All figures: their runs, then their files."
    name = f".{figures[0].name}" if len(figures) == 1 else ""
    parser = argparse.ArgumentParser(prog=f"python -m experiments{name}", description=description)
    parser.add_argument(
        "--scale", default="small", choices=SCALES, help="the paper's scale, or a scale for two CPU cores"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--jobs", type=int, help="runs at once; by default one per core at small scale, and one at the paper's"
    )
    parser.add_argument(
        "--runs", type=pathlib.Path, default=pathlib.Path("runs") / "figures", help="the folder of the runs"
    )
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the folder of the figure's files")
    parser.add_argument("--plot", action="store_true", help="train nothing: only draw finished runs")
    parser.add_argument("--list", action="store_true", help="train nothing: only show the commands of the runs")
    arguments = parser.parse_args()
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"--jobs is {arguments.jobs}. It must be at least 1, the number of runs at once.")
    if len(set(arguments.seeds)) < len(arguments.seeds):
        raise UsageError(f"--seeds are {arguments.seeds}; each seed is a run of its own and may be given once.")
    declared = [
        job
        for figure in figures
        for labelled in figure.declared(arguments.scale, arguments.seeds).values()
        for of_label in labelled.values()
        for job in of_label
    ]
    root = arguments.runs.absolute()
    if arguments.list:
        for job in jobs.in_order(declared):
            print(shlex.join(["python", *job.command(arguments.runs)]))
        return
    if not arguments.plot:
        at_once = arguments.jobs or (num_cores() if all(job.scenario.one_core for job in declared) else 1)
        crew.finish(declared, root, at_once)
    for figure in figures:
        for path in figure.make(arguments.scale, arguments.seeds, root, arguments.output):
            print(path)


def grid(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the points on the grid along a line or curve."""
    return [row for row in result["points"] if row["kind"] == "grid"]


def along(label: str, results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of P(alpha) over alpha."""
    x = [row["alpha"] for row in grid(results[0])]
    return Series(label, [[row[metric] for row in grid(result)] for result in results], x)


def ensembles_along(label: str, results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of the ensemble of P(alpha) and P(1 - alpha) over alpha. At 1/2 it is the midpoint's."""
    y = []
    for result in results:
        pairs = [row for row in result["ensembles"] if row["kind"] in ("ends", "pair")]
        half = [row["mean_probability"][metric] for row in pairs]
        y.append([*half, midpoint(result)[metric], *half[::-1]])
    return Series(label, y, [row["alpha"] for row in grid(results[0])])


def along_and_ensembles(
    scenario: Scenario, results: dict[str, list[dict[str, Any]]], of_ensembles: Sequence[Series] = ()
) -> list[Panel]:
    """Accuracy of P(alpha), and of its ensemble with P(1 - alpha), for every label. The label "standard" is a level.

    Args:
      scenario: its title is the panels' title.
      results: by label.
      of_ensembles: further levels in the panel of the ensembles.
    """
    lines = {label: found for label, found in results.items() if label != "standard"}
    standard = level("standard", results["standard"])
    single = [standard, *(along(label, found) for label, found in lines.items())]
    both = [standard, *of_ensembles, *(ensembles_along(label, found) for label, found in lines.items())]
    return [
        Panel(scenario.title, "α", "test accuracy (%)", single, percent=True),
        Panel(scenario.title, "α", "ensemble test accuracy (%)", both, percent=True),
    ]


def midpoint(result: dict[str, Any]) -> dict[str, Any]:
    """The row of the midpoint, which is the network itself in standard training."""
    return next(row for row in result["points"] if "center" in row["roles"])


def ensemble(result: dict[str, Any], kind: str = "ends") -> dict[str, Any]:
    """The scores of the ensemble of that kind, by mean probability."""
    return next(row for row in result["ensembles"] if row["kind"] == kind)["mean_probability"]


def level(label: str, results: Sequence[dict[str, Any]], metric: str = "accuracy") -> Series:
    """A metric of the midpoint, or of the single network, as a level."""
    return Series(label, [[midpoint(result)[metric]] for result in results])


def over(
    label: str, x: Sequence[float], results: Sequence[Sequence[dict[str, Any]]], metric: str = "accuracy"
) -> Series:
    """A metric of the midpoint over x. For each x, ``results`` has one entry per seed."""
    values = np.array([[midpoint(result)[metric] for result in at_x] for at_x in results])
    return Series(label, values.T.tolist(), list(x))


def command(figure: Figure) -> None:
    """Runs a figure's module as a program."""
    from jsubspace import program

    program.run(lambda: main([figure]))
    sys.exit()
