"""The trainings that figures are made of: what they are called, what they set, and how those that are missing are run.

A run is ``python -m jsubspace.main`` in a folder of its own, and figures share runs: what one has trained, the next finds.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from experiments.lib import provenance
from experiments.lib.problems import Problem
from jsubspace.errors import Preempted, UsageError
from jsubspace.program import PREEMPTED
from jsubspace.runs import report

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

ONE_CORE = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
"""XLA's threads for single operations gain nothing on small images; without them a run is one core's work."""

METHODS: dict[str, dict[str, Any]] = {
    "standard": {"subspace.name": "point"},
    "line": {"subspace.name": "line"},
    "layerwise line": {"subspace.name": "line", "subspace.layerwise": True},
    "curve": {"subspace.name": "curve"},
    "simplex": {"subspace.name": "simplex"},
    "layerwise simplex": {"subspace.name": "simplex", "subspace.layerwise": True},
    "SWA": {"subspace.name": "point", "optimizer.schedule": "swa_cyclic"},
    "snapshots": {"subspace.name": "point", "optimizer.schedule": "snapshot"},
}
"""The fields by which methods differ from the config file of a problem."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
      problem: data, network and budget.
      method: its name.
      seed: of initialisation, alphas and the order of the data.
      settings: fields that make the method.
      details: fields besides; they are a part of the run's name.
      starts: runs whose networks it starts from.
    """

    problem: Problem
    method: str
    seed: int
    settings: tuple[tuple[str, Any], ...]
    details: tuple[tuple[str, Any], ...] = ()
    starts: tuple["Run", ...] = ()

    @property
    def name(self) -> str:
        """Of its folder: ``cifar10/simplex_num_endpoints=3/seed0``."""
        words = [self.method.replace(" ", "_")]
        words += [f"{field.rpartition('.')[2]}={str(given).replace(' ', '')}" for field, given in self.details]
        return f"{self.problem.name}/{'_'.join(words)}/seed{self.seed}"

    def fields(self, root: pathlib.Path) -> dict[str, Any]:
        """Every field that differs from the config file."""
        starts = {"start.runs": ",".join(str(root / run.name) for run in self.starts)} if self.starts else {}
        budget = {"seed": self.seed, "optimizer.num_epochs": self.problem.num_epochs}
        return budget | dict(self.problem.settings) | dict(self.settings) | dict(self.details) | starts

    def command(self, root: pathlib.Path) -> list[str]:
        """The command that trains it, after ``python``."""
        fields = [f"--config.{field}={given}" for field, given in self.fields(root).items()]
        return ["-m", "jsubspace.main", f"--config={self.problem.config}", f"--workdir={root / self.name}", *fields]


def declare(problem: Problem, method: str, seeds: Sequence[int], **details: Any) -> list[Run]:
    """One `Run` a seed.

    Args:
      problem: data, network and budget.
      method: of `METHODS`.
      seeds: one run each.
      details: other fields, with two underscores for the dot: ``subspace__num_endpoints=3``. Those of the evaluation are
        no part of the run's name.
    """
    settings = dict(METHODS[method])
    fields = {name.replace("__", "."): given for name, given in details.items()}
    settings |= {field: fields.pop(field) for field in list(fields) if field.startswith("evaluation.")}
    plain = not fields
    if method == "standard" and plain:
        settings |= {"evaluation.every_epochs": max(1, problem.num_epochs // problem.tests)}
        settings |= {"keep_epochs": problem.shared_epochs} if problem.shared_epochs else {}
    if plain and problem.corruptions and method in ("standard", "line"):
        settings |= {"evaluation.corruptions": problem.corruptions}
    return [Run(problem, method, seed, tuple(settings.items()), tuple(fields.items())) for seed in seeds]


def stacked(name: str, pairs: Sequence[tuple[Run, Run]]) -> list[Run]:
    """The lines through pairs of networks that were trained apart: nothing is trained on them."""
    settings = {"subspace.name": "line", "optimizer.num_epochs": 0}
    return [Run(pair[0].problem, name, pair[0].seed, tuple(settings.items()), (), pair) for pair in pairs]


def independent_pairs(problem: Problem, seeds: Sequence[int]) -> list[Run]:
    """Each seed's standard training with the next one's (of one seed alone, with the seed after it)."""
    partners = [*seeds[1:], seeds[0]] if len(seeds) > 1 else [seeds[0] + 1]
    first, second = declare(problem, "standard", seeds), declare(problem, "standard", partners)
    return stacked("two independent", list(zip(first, second, strict=True)))


def branches(problem: Problem, seeds: Sequence[int], epoch: int) -> list[Run]:
    """The lines between standard training and a run that goes on from its first epochs with another seed."""
    pairs = []
    for run in declare(problem, "standard", seeds):
        details = (("start.epoch", epoch),)
        pairs.append((run, Run(problem, "branch", run.seed + 1000, (("subspace.name", "point"),), details, (run,))))
    return stacked(f"shared until {epoch}", pairs)


def results(run: Run, root: pathlib.Path) -> dict[str, Any] | None:
    """What results.json of a finished run says; None if it is not finished.

    Raises:
      UsageError: if the folder holds a run with other settings.
    """
    found = report.read(root / run.name)
    if found is None or not found["finished"]:
        return None
    for field, given in run.fields(root).items():
        there: Any = found["config"]
        for word in field.split("."):
            there = there[word]
        there = tuple(there) if isinstance(there, list) else there
        if there != given and field != "start.runs":
            raise UsageError(
                f"{root / run.name} was trained with config.{field} = {there!r}, and {given!r} is declared; delete that "
                "folder, or choose another --runs."
            )
    return found


def finish(runs: Sequence[Run], root: pathlib.Path, jobs: int) -> None:
    """Trains what is missing of ``runs`` and of those that they start from; what was interrupted goes on.

    Args:
      runs: to be finished.
      root: of their folders.
      jobs: how many are trained at once.

    Raises:
      UsageError: if one fails; the message has its last words.
      Preempted: after SIGINT or SIGTERM; what was under way is saved.
    """
    ordered = in_order(runs)
    missing = [run for run in ordered if results(run, root) is None]
    if not missing:
        return
    print(f"{len(missing)} of {len(ordered)} runs to do, {jobs} at once, in {root}", flush=True)
    with _Crew(root, len(missing)) as crew, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        # In this order a run that waits for another never keeps it from being started.
        futures: dict[Run, concurrent.futures.Future[None]] = {}
        try:
            for run in missing:
                before = [futures[start] for start in run.starts if start in futures]
                futures[run] = pool.submit(crew.train, run, before)
            for future in concurrent.futures.as_completed(futures.values()):
                future.result()
        except BaseException:
            crew.stop()
            raise


def in_order(runs: Sequence[Run]) -> list[Run]:
    """Every run once, after those that it starts from."""
    ordered: dict[Run, None] = {}

    def add(run: Run) -> None:
        for start in run.starts:
            add(start)
        ordered.setdefault(run)

    for run in runs:
        add(run)
    return list(ordered)


class _Crew:
    """Trains runs in processes of their own, and ends them together."""

    def __init__(self, root: pathlib.Path, total: int) -> None:
        self._root, self._total, self._done = root, total, 0
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped, self._lock = False, threading.Lock()

    def __enter__(self) -> "_Crew":
        def end(number: int, frame: Any) -> None:
            raise Preempted(f"stopped by {signal.Signals(number).name}; the same command goes on from there.")

        self._before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def train(self, run: Run, before: Sequence[concurrent.futures.Future[None]]) -> None:
        """Trains one run, after those that it starts from."""
        for future in before:
            future.result()
        log = (self._root / run.name).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    return
                # A session of its own: the terminal's SIGINT reaches it through `stop` alone.
                process = subprocess.Popen(
                    [sys.executable, *run.command(self._root)],
                    cwd=REPOSITORY,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | (ONE_CORE if run.problem.one_core else {}),
                    start_new_session=True,
                )
                self._processes.add(process)
            made_at, code = provenance.commit(), process.wait()
        self._processes.discard(process)
        if self._stopped or code == PREEMPTED:
            return
        if code:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise UsageError(f"{run.name} ended with exit code {code}: {' '.join(last)} (all of it is in {log})")
        with self._lock:
            self._done += 1
            seconds = round(time.monotonic() - start, 1)
            row = {"run": run.name, "commit": made_at, "seconds": seconds, "machine": provenance.machine()}
            with (self._root / "trained.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"[{self._done}/{self._total}] {run.name}: {seconds:.0f} s", flush=True)

    def stop(self) -> None:
        """Asks every run to save and end, and waits until they have."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.send_signal(signal.SIGTERM)
        for process in list(self._processes):
            process.wait()


def trained(runs: Sequence[Run], root: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Of every run, the commit, the seconds and the machine it was trained with, as far as `finish` did it here."""
    path, names = root / "trained.jsonl", {run.name for run in in_order(runs)}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = (json.loads(line) for line in lines)
    return {row.pop("run"): row for row in rows if row["run"] in names}
