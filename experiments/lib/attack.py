"""Runs under attack: what they train, how an undisturbed run ends, and the report, which is continued over several calls."""

import json
import os
import pathlib
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import jsubspace
from experiments.lib import provenance
from experiments.lib.ends import end_of
from experiments.lib.life import Life, in_a_process
from jsubspace.errors import UsageError
from jsubspace.storage.documents import write_json

CONFIG = pathlib.Path(__file__).parent.parent.parent / "configs" / "digits_cresnet8_line.py"

EPOCH_STEPS = 3

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "model.depth": 1,
    "model.width": 32,
    "data.batch_size": 479,  # a third of an epoch: one shape to compile, and steps that are as quick as their saves
    "checkpoint_every_epochs": 1,
    "log_every_steps": 5,  # not a multiple of an epoch's 3 steps: a window is open at most checkpoints
    "evaluation.num_points": 3,
    "evaluation.num_random_points": 2,
    "num_devices": 1,
}

METHODS: dict[str, dict[str, Any]] = {
    "line": {},
    "standard": {"subspace.name": "point"},
    "curve": {"subspace.name": "curve"},
    "simplex": {"subspace.name": "simplex", "subspace.num_endpoints": 3},
    "line, layerwise, two samples, dropout, label noise": {
        "subspace.layerwise": True,
        "subspace.num_samples": 2,
        "model.dropout_rate": 0.1,
        "data.label_noise": 0.2,
        "data.batch_size": 480,  # the last of an epoch is smaller
    },
}


class Attack:
    """Attacks on runs of all methods in turn, and the report about them.

    Args:
      folder: the folder of the runs. A report in it is continued.
      name: the name of the report and of the folders of its runs.
      seed: the seed of everything that is drawn.
      settings: what the runs differ in from `SETTINGS`.
      counts: what the report counts, with its first values.
      problem: a config file that trains a problem of its own, with its own settings, in the place of all methods.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        seed: int,
        settings: Mapping[str, Any],
        counts: Mapping[str, Any],
        problem: pathlib.Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._problem = problem
        self._methods: dict[str, dict[str, Any]] = METHODS if problem is None else {problem.stem: {}}
        self.folder, self.workdir = folder, folder / f"attacked_{name}"
        self._name, self._path = name, folder / f"{name}.json"
        self._settings = SETTINGS | dict(settings) if problem is None else {}
        self.report: dict[str, Any] = {
            "command": "python -m experiments.stress",
            "commits": [],
            "seed": seed,
            "versions": {"jsubspace": jsubspace.__version__} | provenance.versions("orbax-checkpoint"),
            "machine": f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}; nice {os.nice(0)}",
            "verdict": "under way",
            **counts,
            "lives": 0,
            "runs": {},
            "seconds": 0.0,
            "failures": [],
        }
        if self._path.is_file():
            before = json.loads(self._path.read_text())
            if any(before[name] != self.report[name] for name in ("seed", "versions")):
                raise UsageError(f"{self._path} is the report of another seed or version. Choose another --folder.")
            self.report = before
        if (commit := provenance.commit()) not in self.report["commits"]:
            self.report["commits"].append(commit)
        self._before, self._start = self.report["seconds"], time.monotonic()

    def run(self, attacks: int, minutes: float) -> bool:
        """Continues until ``attacks`` or ``minutes`` are reached, and then to the end of the run that is under way.

        Returns:
          Whether nothing has failed.
        """

        def enough() -> bool:
            done, seconds = self.attacks(), time.monotonic() - self._start
            return bool(attacks and done >= attacks) or bool(minutes and seconds > 60 * minutes)

        self.report["verdict"] = "under way"
        shutil.rmtree(self.workdir, ignore_errors=True)  # of a stress test that was stopped
        while not enough():
            method = list(self._methods)[sum(self.report["runs"].values()) % len(self._methods)]
            expected = self._undisturbed(method)
            self.finish(method, expected["seconds"], enough)
            self._compare(method, expected["end"])
            shutil.rmtree(self.workdir)
        self.report["verdict"] = "identical" if not self.report["failures"] else "different"
        self.write()
        return not self.report["failures"]

    def attacks(self) -> int:
        """The number of attacks so far."""
        raise NotImplementedError

    def finish(self, method: str, seconds: dict[str, float], enough: Callable[[], bool]) -> None:
        """Brings a run to its end in `workdir`, under attack until there are ``enough`` attacks.

        Args:
          method: what is trained.
          seconds: the duration of an undisturbed life of each command.
          enough: whether the rest is peaceful.
        """
        raise NotImplementedError

    def commands(self, method: str, workdir: pathlib.Path) -> dict[str, list[str]]:
        """The commands of a run in their order, by name."""
        fields = self._settings | self._methods[method]
        overrides = [f"--config.{field}={value}" for field, value in fields.items()]
        return {"main": ["jsubspace.main", f"--config={self._problem or CONFIG}", f"--workdir={workdir}", *overrides]}

    def end(self, workdir: pathlib.Path) -> dict[str, Any]:
        """What must be the same at the end of a run."""
        return end_of(workdir, self._problem)

    def write(self) -> None:
        """Writes the report."""
        self.report["seconds"] = round(self._before + time.monotonic() - self._start, 1)
        write_json(self._path, self.report)

    def expected(self, method: str) -> dict[str, Any]:
        """The end of a run that nobody disturbs."""
        end: dict[str, Any] = self._undisturbed(method)["end"]
        return end

    def _undisturbed(self, method: str) -> dict[str, Any]:
        """The end of a run that nobody disturbs, and the seconds that its commands take in a second such run."""
        name = f"undisturbed_{self._name}_{list(self._methods).index(method)}"
        path, workdir, log = self.folder / f"{name}.json", self.folder / name, self.folder / "log.txt"
        if not path.is_file():
            for _ in range(2):  # The first one compiles.
                shutil.rmtree(workdir, ignore_errors=True)
                seconds = {}
                for command, arguments in self.commands(method, workdir).items():
                    start = time.monotonic()
                    assert Life(arguments, log).wait() == 0, log.read_text()
                    seconds[command] = time.monotonic() - start
            write_json(path, {"end": in_a_process(lambda: self.end(workdir)), "seconds": seconds})
        return json.loads(path.read_text())

    def _compare(self, method: str, expected: dict[str, Any]) -> None:
        count(self.report["runs"], method)
        end = in_a_process(lambda: self.end(self.workdir))
        different = [name for name in expected if end[name] != expected[name]]
        if different:
            kept = self.folder / f"different_{self._name}_{self.report['lives']}"
            shutil.copytree(self.workdir, kept)
            self.report["failures"].append({"method": method, "different": different, "kept": kept.name})
        self.write()


def count(counts: dict[str, int], name: str) -> None:
    """Adds one to the count of that name."""
    counts[name] = counts.get(name, 0) + 1
