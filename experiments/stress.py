"""Kills a training run at random moments until it ends: ``python -m experiments.stress --kills=200``.

A small MLP is trained on the digits, by every method in turn and with a checkpoint after each epoch. The first run is
undisturbed. The second run is killed (by SIGKILL, sometimes by SIGTERM) and started again. The moments are drawn at random
from the whole run and from inside its saves. Between two lives a checkpoint is sometimes damaged: a bit is flipped, or a
file is cut or deleted. In the end parameters, optimizer state, metrics, TensorBoard points and results must equal the
undisturbed run's, bit for bit.

Every life is a process of its own that runs ``python -m jsubspace.main``. It is forked from a process that has done the
imports. The report is written after each kill. Started again with the same folder, the command resumes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import platform
import random
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import matplotlib.pyplot  # noqa: F401  This and the others that are not used: what each life would import again.
import numpy as np
import orbax.checkpoint
import tensorboardX  # noqa: F401
import tensorflow_datasets  # noqa: F401

import jsubspace.runs.run
from jsubspace import errors, program
from jsubspace.data import prepare
from jsubspace.errors import UsageError
from jsubspace.runs import build, config_files
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.documents import write_json
from jsubspace.storage.writer import read_rows

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "digits_cresnet8_line.py"

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "model.depth": 1,
    "model.width": 32,
    "data.batch_size": 479,  # a third of an epoch: one shape to compile, and steps that are as quick as their saves
    "optimizer.num_epochs": 60,
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

LAST_STEP = 3 * SETTINGS["optimizer.num_epochs"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.stress", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0, help="stop after this number of kills (0: --minutes decides)")
    parser.add_argument("--minutes", type=float, default=0, help="stop after this time (0: --kills decides)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the moments and the damage")
    parser.add_argument(
        "--folder", type=pathlib.Path, default=pathlib.Path("runs/stress"), help="the folder of the runs and the report"
    )
    arguments = parser.parse_args()
    if arguments.kills <= 0 and arguments.minutes <= 0:
        parser.error("say --kills=N or --minutes=N")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str((arguments.folder / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    prepare.prepare("digits")
    sys.exit(0 if Stress(arguments.folder, arguments.seed).run(arguments.kills, arguments.minutes) else 1)


class Stress:
    """Runs under attack, and the report about them.

    Args:
      folder: the folder of the runs. A report in it is continued.
      seed: the seed of everything that is drawn.
    """

    def __init__(self, folder: pathlib.Path, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / "report.json"
        self._report: dict[str, Any] = {
            "command": "python -m experiments.stress",
            "seed": seed,
            "versions": {
                "jsubspace": jsubspace.__version__,
                "jax": jax.__version__,
                "orbax-checkpoint": orbax.checkpoint.__version__,
                "python": platform.python_version(),
            },
            "machine": f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}; nice {os.nice(0)}",
            "verdict": "under way",
            "kills": 0,
            "signals": {},
            "phases": {},
            "damages": {},
            "fallbacks": 0,
            "lives": 0,
            "runs": {},
            "seconds": 0.0,
            "failures": [],
        }
        if self._path.is_file():
            before = json.loads(self._path.read_text())
            same = all(before[name] == self._report[name] for name in ("seed", "versions"))
            if not same:
                raise UsageError(f"{self._path} is the report of another seed or version. Choose another --folder.")
            self._report = before
        self._until_saving = 0.0  # seconds of a life until its first save, when last seen
        self._before = self._report["seconds"]
        self._start = time.monotonic()

    def run(self, kills: int, minutes: float) -> bool:
        """Continues until ``kills`` or ``minutes`` are reached, and then to the end of the run that is under way."""

        def enough() -> bool:
            killed, seconds = self._report["kills"], time.monotonic() - self._start
            return bool(kills and killed >= kills) or bool(minutes and seconds > 60 * minutes)

        self._report["verdict"] = "under way"
        while not enough():
            method = list(METHODS)[sum(self._report["runs"].values()) % len(METHODS)]
            expected, seconds = self._undisturbed(method)
            workdir = self._folder / "attacked"
            while self._live(method, workdir, seconds, peaceful=enough()):
                pass
            self._compare(method, workdir, expected)
            shutil.rmtree(workdir)
        self._report["verdict"] = "identical" if not self._report["failures"] else "different"
        self._write()
        return not self._report["failures"]

    def _undisturbed(self, method: str) -> tuple[dict[str, Any], float]:
        """The end of a run that nobody kills, and the seconds that a second such run takes."""
        name = f"undisturbed_{list(METHODS).index(method)}"
        path = self._folder / f"{name}.json"
        if not path.is_file():
            for _ in range(2):  # The first one compiles.
                shutil.rmtree(self._folder / name, ignore_errors=True)
                start = time.monotonic()
                process = Life(method, self._folder / name, self._folder / "log.txt")
                assert process.wait() == 0, (self._folder / "log.txt").read_text()
                seconds = time.monotonic() - start
            write_json(path, {"end": in_a_process(lambda: end_of(self._folder / name)), "seconds": seconds})
        content = json.loads(path.read_text())
        return content["end"], content["seconds"]

    def _live(self, method: str, workdir: pathlib.Path, seconds: float, peaceful: bool) -> bool:
        """Lives one life of a run, and returns whether the run needs another life."""
        report = self._report
        rng = random.Random(f"{report['seed']} {report['lives']}")
        report["lives"] += 1
        log = self._folder / "log.txt"
        rows, left = len(read_rows(workdir)), saving(workdir)
        life = Life(method, workdir, log)
        number = signal.SIGTERM if rng.random() < 0.15 else signal.SIGKILL
        if not peaceful:
            if rng.random() < 0.4:
                start = time.monotonic()
                life.sleep_until(lambda: bool(saving(workdir) - left), 60)
                self._until_saving = time.monotonic() - start  # A busy machine's speed changes.
                life.sleep_until(lambda: False, rng.uniform(0, 0.05))
            else:
                life.sleep_until(lambda: False, rng.uniform(0, 2 * (self._until_saving or seconds / 2)))
            if life.is_running():
                phase = phase_of(workdir, rows, left)
                life.send(number)
                count(report["phases"], phase)
                count(report["signals"], number.name)
                report["kills"] += 1
        code = life.wait()
        text = log.read_text(errors="replace")
        report["fallbacks"] += text.count("is damaged (")
        if code not in (0, -signal.SIGKILL, -signal.SIGTERM, errors.PREEMPTED):
            report["failures"].append({"life": report["lives"], "exit code": code, "log": text[-2000:]})
            shutil.rmtree(workdir)  # A run that does not start again would never end.
        elif code != 0 and rng.random() < 0.15:
            damage(workdir / "checkpoints", rng, report["damages"])
        self._write()
        return code != 0

    def _compare(self, method: str, workdir: pathlib.Path, expected: dict[str, Any]) -> None:
        count(self._report["runs"], method)
        end = in_a_process(lambda: end_of(workdir))
        different = [name for name in expected if end[name] != expected[name]]
        if different:
            kept = self._folder / f"different_{self._report['lives']}"
            shutil.copytree(workdir, kept)
            self._report["failures"].append({"method": method, "different": different, "kept": kept.name})
        self._write()

    def _write(self) -> None:
        self._report["seconds"] = round(self._before + time.monotonic() - self._start, 1)
        write_json(self._path, self._report)


class Life:
    """A process that runs the program ``jsubspace.main``."""

    def __init__(self, method: str, workdir: pathlib.Path, log: pathlib.Path) -> None:
        self._code: int | None = None
        self._pid = os.fork()
        if self._pid:
            return
        code = 70
        try:
            with open(log, "w") as file:
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            overrides = [f"--config.{field}={value}" for field, value in (SETTINGS | METHODS[method]).items()]
            sys.argv = ["jsubspace.main", f"--config={CONFIG}", f"--workdir={workdir}", *overrides]
            runpy.run_module("jsubspace.main", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is None

    def sleep_until(self, happens: Callable[[], bool], seconds: float) -> None:
        """Returns when something happens, when the process has ended, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.is_running() and not happens():
            time.sleep(0.004)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self._pid, number)

    def wait(self) -> int:
        """Its exit code, minus the number of the signal that ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code


def saving(workdir: pathlib.Path) -> set[tuple[str, int]]:
    """Checkpoints that are being written, or were being written at a kill, by name and time of creation."""
    found = set()
    for path in (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
        with contextlib.suppress(FileNotFoundError):  # complete by now
            found.add((path.name, path.stat().st_ctime_ns))
    return found


def phase_of(workdir: pathlib.Path, rows: int, left: set[tuple[str, int]]) -> str:
    """The phase of a life, as far as its folder shows. The folder had ``rows`` and ``left`` at the start of the life."""
    if saving(workdir) - left:
        return "saving"
    if (workdir / "checkpoints" / str(LAST_STEP)).exists():
        return "evaluating"
    return "training" if len(read_rows(workdir)) > rows else "starting"


def damage(folder: pathlib.Path, rng: random.Random, counts: dict[str, int]) -> None:
    """Damages the newest checkpoint, if an older one exists."""
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    if len(steps) < 2:
        return
    file = rng.choice(sorted(path for path in (folder / str(steps[-1])).glob("*/**/*") if path.is_file()))
    kind = rng.choice(["bit flipped", "file cut", "file deleted"])
    content = bytearray(file.read_bytes())
    match kind:
        case "bit flipped":
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(content)
        case "file cut":
            file.write_bytes(content[: rng.randrange(len(content))])
        case "file deleted":
            file.unlink()
    count(counts, kind)


def end_of(workdir: pathlib.Path) -> dict[str, Any]:
    """Everything about a finished run that must be the same, as digests and numbers."""
    run = build.build(config_files.load(workdir))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, notes = checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated)
    leaves = {
        jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    rows = [{name: row[name] for name in row if name != "images_per_second"} for row in read_rows(workdir)]
    results = json.loads((workdir / "results.json").read_text())
    measured = {name: results[name] for name in ("points", "ensembles", "endpoints", "reliability")}
    assert int(state.step) == LAST_STEP
    return {
        "state": leaves,
        "journal": notes["journal"],
        "metrics.jsonl": rows,
        "results.json": measured,
        "TensorBoard": points(workdir),
    }


def points(workdir: pathlib.Path) -> list[list[Any]]:
    """Step, tag and value of every TensorBoard point except the speed."""
    from tensorboardX.proto import event_pb2

    found = []
    for file in sorted(workdir.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while content:  # length (8 bytes), its checksum (4), event, its checksum (4)
            length = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            found += [[event.step, v.tag, v.simple_value] for v in event.summary.value if "per_second" not in v.tag]
            content = content[16 + length :]
    return found


def in_a_process(function: Callable[[], Any]) -> Any:
    """The result of ``function`` as JSON. It runs in a process where jax may start, because this process must stay fit to fork."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(function(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe, contextlib.suppress(ValueError):
        content = json.load(pipe)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "see above"
    return content


def count(counts: dict[str, int], name: str) -> None:
    """Adds one to the count of that name."""
    counts[name] = counts.get(name, 0) + 1


if __name__ == "__main__":
    program.call(main)
