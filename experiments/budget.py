"""What a line is worth after equal steps, if every method has its best rate and decay: ``python -m experiments.budget``.

Rules that were fixed before any result was known:

- The methods are standard training, a line as in the paper, a line with both options of docs/center.md, standard training with
  half the rate and twice the decay (which a line's midpoint has without being told), label smoothing of strength 0.1, and six
  endpoints, plain and with both options.
- Rates 0.05, 0.1, 0.2 and 0.4 and decays 1e-4 and 5e-4 are tried for each method and each budget, with seed 100. The lowest NLL
  of the midpoint on validation images chooses. Validation images have true labels, and no run trains on them.
- Seeds 0 to 4 are trained with the chosen rate and decay on all training images of the budget. The tables show the test scores
  of these runs alone, and no test score chooses.
- Means have 95 % t intervals over seeds. Differences to standard training are paired by seed.
- A chosen rate at the edge of the grid is marked. A run that diverges is never chosen and stays in the record.

One budget is trained after the other, and within it one method after the other. Every finished run is a line of
``runs.jsonl`` in the folder ``--record``. Tables and a picture of complete methods stand beside it. A study resumes from this
file on any machine: commit it, and give the same command on a fresh clone. ``--scale=gpu`` trains the paper's network on all of
Fashion-MNIST with the paper's rate.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from experiments.lib import crew, forecast, jobs, study_picture, study_tables
from experiments.lib.budgets import SCALES
from experiments.lib.jobs import Job
from experiments.lib.study import Budget, Method
from experiments.lib.study_record import Record
from jsubspace import program
from jsubspace.data import prepare
from jsubspace.data.workers import num_cores
from jsubspace.errors import UsageError
from jsubspace.storage import files
from jsubspace.storage.files import make_folder, write_text

RECORDED = pathlib.Path("experiments") / "results"
RUNS_FILE = "runs.jsonl"
RESULTS = "results.json"
TIMER = "timer of the study"
"""The name of a thread that acts after some seconds."""


class Study:
    """The budgets of a command, their record and their folders.

    Args:
      budgets: what is trained.
      record: the finished runs.
      root: the folder of the runs' folders.
      at_once: how many runs are trained at once.
      scale: its name.
      whole: what the tables show, if it is more than what is trained.
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        record: Record,
        root: pathlib.Path,
        at_once: int,
        scale: str,
        whole: Sequence[Budget] = (),
    ) -> None:
        self.budgets, self.record, self.root, self.at_once = budgets, record, root, at_once
        self.scale, self.whole = scale, whole or budgets

    def train(self) -> None:
        """Trains what is missing, one budget after the other, and writes the tables after every method."""
        if any("digits" in budget.scenario.config for budget in self.budgets):
            prepare.prepare("digits")
        for budget in self.budgets:
            for method in budget.methods:
                self._finish(list(budget.choosing(method).values()))
                self._finish(self._reported(budget, method))
                self._forget(budget)
                self.write()

    def _reported(self, budget: Budget, method: Method) -> list[Job]:
        """The reported runs of a method, or no run before its cell is chosen."""
        cell = study_tables.state(budget, method, self.record).cell
        return budget.reported(method, cell) if cell else []

    def _finish(self, declared: Sequence[Job]) -> None:
        missing = [job for job in declared if self.record.row(job) is None]
        for job in missing:  # A run may have ended just before the program was killed.
            if job.name in crew.trained([job], self.root):
                self._keep(job)
        missing = [job for job in missing if self.record.row(job) is None]
        if missing:
            crew.finish(missing, self.root, self.at_once, self._keep)

    def _keep(self, job: Job) -> None:
        made = crew.trained([job], self.root)[job.name]
        result = jobs.results(job, self.root)
        if self.record.row(job) is None and (result is not None or "diverged" in made):
            self.record.add(job, result, made)

    def _forget(self, budget: Budget) -> None:
        """Removes all files of finished runs but results.json. Runs that a missing run starts from are kept whole."""
        known = self._known(budget)
        needed = {start.name for job in known if self.record.row(job) is None for start in job.starts}
        for job in known:
            folder = self.root / job.name
            is_kept = self.record.row(job) is not None and (folder / RESULTS).is_file()
            if is_kept and job.name not in needed:
                for path in folder.iterdir():
                    if path.name != RESULTS:
                        files.remove(path)

    def _known(self, budget: Budget) -> list[Job]:
        choosing = [job for method in budget.methods for job in budget.choosing(method).values()]
        return choosing + [job for method in budget.methods for job in self._reported(budget, method)]

    def write(self) -> pathlib.Path:
        """Writes the tables beside the record, and returns their path."""
        path = self.record.path.with_name("budget.md")
        command = f"python -m experiments.budget --scale={self.scale}"
        make_folder(path.parent)
        title = f"The study at scale {self.scale}"
        write_text(path, study_tables.report(self.whole, self.record, title, command))
        return path

    def draw(self) -> pathlib.Path | None:
        """Draws the picture of complete methods beside the record. Returns its path, or None if there is nothing to draw."""
        path = self.record.path.with_name("budget.png")
        return path if study_picture.draw(self.whole, self.record, path) else None

    def commands(self) -> list[str]:
        """The commands of all runs that are known. The reported runs of a method are known when its cell is chosen."""
        known = [job for budget in self.budgets for job in self._known(budget)]
        return [shlex.join(["python", *job.command(self.root)]) for job in jobs.in_order(known)]

    def say_speed(self) -> bool:
        """Prints how long the runs under way, and all missing runs, take at the present speed. Returns whether a run has one."""
        found = []
        for budget in self.budgets:
            for job in self._known(budget):
                if self.record.row(job) is None and (self.root / job.name).is_dir():
                    found.append(forecast.of_run_under_way(job, budget, self.root))
                    print(found[-1] or f"{job.name} has logged no speed yet.", flush=True)
        return any(found)


@contextlib.contextmanager
def _every(seconds: float, act: Callable[[], bool]) -> Iterator[None]:
    """Does something again and again, until it returns True or the context ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds) and not act():
            pass

    thread = threading.Thread(target=run, name=TIMER, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _end() -> bool:
    """Ends this program as a signal of a batch queue would: the runs under way are saved."""
    os.kill(os.getpid(), signal.SIGTERM)
    return True


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.budget", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=SCALES, default="small", help="two CPU cores, or a GPU")
    parser.add_argument("--budgets", nargs="+", metavar="NAME", help="train a part of the budgets, by name; see --list")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="train a part of the methods, by name; see --list")
    parser.add_argument("--jobs", type=int, help="runs at once; by default one per core, and one with --scale=gpu")
    parser.add_argument("--steps", type=int, help="a test: two epochs of this number of steps for every run")
    parser.add_argument("--minutes", type=float, help="save and end after this time; the same command resumes")
    parser.add_argument("--plot", action="store_true", help="train nothing: write the tables and the picture")
    parser.add_argument("--list", action="store_true", help="train nothing: show the budgets and the commands")
    parser.add_argument(
        "--runs", type=pathlib.Path, default=pathlib.Path("runs") / "budget", help="the folder of the runs"
    )
    parser.add_argument("--record", type=pathlib.Path, help=f"the folder of {RUNS_FILE}, by default in {RECORDED}")
    parser.add_argument("--take", type=pathlib.Path, help=f"first add the rows of another {RUNS_FILE}")
    arguments = parser.parse_args()
    study = _study(arguments)
    if arguments.take:
        print(f"{study.record.take(arguments.take)} rows are new.")
    print(forecast.table(study.budgets, study.record), flush=True)
    if arguments.list:
        print(
            "\n".join(
                [
                    "",
                    *(f"{budget.name}: {budget.title}" for budget in study.whole),
                    "",
                    *(f"{name}: {title}" for name, title in _titles(study.whole).items()),
                    "",
                    *study.commands(),
                ]
            )
        )
        return
    if not arguments.plot:
        with contextlib.ExitStack() as timers:
            timers.enter_context(_every(60, study.say_speed))  # A run that still compiles has no speed after a minute.
            if arguments.minutes:
                timers.enter_context(_every(60 * arguments.minutes, _end))
            study.train()
    print(f"\nThe tables are in {study.write()}")
    if picture := study.draw():
        print(f"The picture is {picture}")


def _study(arguments: argparse.Namespace) -> Study:
    whole = SCALES[arguments.scale]
    if arguments.steps and arguments.steps > 0:
        whole = tuple(budget.short(arguments.steps) for budget in whole)
    names = [budget.name for budget in SCALES[arguments.scale]]
    chosen = _named("--budgets", arguments.budgets, names)
    budgets = [budget for name, budget in zip(names, whole, strict=True) if name in chosen]
    methods = _named("--methods", arguments.methods, list(_titles(whole)))
    budgets = [
        dataclasses.replace(budget, methods=tuple(method for method in budget.methods if method.name in methods))
        for budget in budgets
    ]
    for option, given in (("--jobs", arguments.jobs), ("--steps", arguments.steps), ("--minutes", arguments.minutes)):
        if given is not None and given <= 0:
            raise UsageError(f"{option} is {given}. It must be more than 0.")
    folder = arguments.record or RECORDED / ("budget" if arguments.scale == "small" else f"budget_{arguments.scale}")
    if arguments.steps:
        folder = arguments.record or arguments.runs
    at_once = arguments.jobs or (num_cores() if arguments.scale == "small" else 1)
    return Study(budgets, Record(folder / RUNS_FILE), arguments.runs.absolute(), at_once, arguments.scale, whole)


def _titles(budgets: Sequence[Budget]) -> dict[str, str]:
    """The titles of all methods, by name."""
    return {method.name: method.title for budget in budgets for method in budget.methods}


def _named(option: str, given: Sequence[str] | None, names: Sequence[str]) -> Sequence[str]:
    """The given names, or all names without the option."""
    for name in given or ():
        if name not in names:
            raise UsageError(f"{option} has {name}. It may have {', '.join(names)}.")
    return given or names


if __name__ == "__main__":
    program.run(main)
