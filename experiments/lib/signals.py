"""Signals at moments that are uniform over the whole life of a run's commands."""

import json
import pathlib
import random
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

from experiments.lib.attack import EPOCH_STEPS, Attack, count
from experiments.lib.ends import end_of
from experiments.lib.life import Life
from experiments.lib.phases import phase_of, saving
from jsubspace.errors import PREEMPTED
from jsubspace.exchange import network_files
from jsubspace.storage.writer import read_rows

EPOCHS = 4

FRESH = 0.05
"""The share of lives that start a Python of their own, so that imports are attacked too."""

SECOND = 0.25
"""The share of attacks with a second signal."""

LONGER = 1.1
"""Moments are drawn from this multiple of an undisturbed life. The last moments of a life are then as likely as the first."""

MOST = {"main": 5, "evaluate": 2, "export": 2, "compare": 2}
"""How many lives of a command are attacked in one run. The next life is left in peace."""

WRITING_SECONDS = 0.25
"""How long after a signal a command may still write its last file, and end in 0 as if the signal had come after it."""

NOISE = ("Traceback", "Exception ignored")


class Signals(Attack):
    """Runs whose commands (training, evaluation, export, comparison) get SIGTERM and SIGINT, at times a second one."""

    def __init__(self, folder: pathlib.Path, seed: int) -> None:
        counts = {"signals": 0, "sent": {}, "fresh": 0, "phases": {}, "import_seconds": None}
        super().__init__(
            folder, "signals", seed, {"optimizer.num_epochs": EPOCHS, "optimizer.warmup_epochs": 1}, counts
        )
        self._slower = 1.0  # than at the time of the undisturbed run, because of other work on the machine

    def attacks(self) -> int:
        """The number of lives that got a signal."""
        return self.report["signals"]

    def commands(self, method: str, workdir: pathlib.Path) -> dict[str, list[str]]:
        """Training, evaluation, export and comparison of a run."""
        return super().commands(method, workdir) | {
            "evaluate": ["jsubspace.evaluate", f"--workdir={workdir}"],
            "export": ["jsubspace.export", f"--workdir={workdir}", f"--to={_last_file('export', workdir)}"],
            "compare": ["jsubspace.compare", str(workdir), f"--out={_last_file('compare', workdir).parent}"],
        }

    def end(self, workdir: pathlib.Path) -> dict[str, Any]:
        """What must be the same: the run, the exported network and the comparison."""
        comparison = json.loads((_last_file("compare", workdir).parent / "comparison.json").read_text())
        return end_of(workdir) | {
            "network": network_files.load(_last_file("export", workdir))[1],  # Its facts have a digest of the arrays.
            "comparison": [entry | {"runs": len(entry["runs"])} for entry in comparison],
        }

    def finish(self, method: str, seconds: dict[str, float], enough: Callable[[], bool]) -> None:
        """Lives lives until every command of the run has ended in 0."""
        if self.report["import_seconds"] is None:
            start = time.monotonic()
            assert Life(["jsubspace.main", "--help"], self.folder / "log.txt", fresh=True).wait() == 0
            self.report["import_seconds"] = round(time.monotonic() - start, 1)
        for name, command in self.commands(method, self.workdir).items():
            lives = 0
            while self._live(name, command, seconds[name], peaceful=enough() or lives == MOST[name]):
                lives += 1

    def _live(self, name: str, command: list[str], seconds: float, peaceful: bool) -> bool:
        """Lives one life of a command, and returns whether the command has to be given again."""
        report, workdir, log = self.report, self.workdir, self.folder / "log.txt"
        rng = random.Random(f"{report['seed']} {report['lives']}")
        report["lives"] += 1
        rows, left = len(read_rows(workdir)), saving(workdir)
        life = Life(command, log, fresh=rng.random() < FRESH and not peaceful)
        importing = report["import_seconds"] if life.fresh else 0
        moment = rng.uniform(0, LONGER * self._slower * (seconds + importing))
        numbers = [rng.choice([signal.SIGTERM, signal.SIGINT]) for _ in range(1 + (rng.random() < SECOND))]
        pause = 0.5 * rng.random() ** 3  # Most programs end soon after the first signal.
        sent: list[signal.Signals] = []
        if not peaceful:
            life.sleep_until(lambda: False, moment)
            if life.fresh:
                life.sleep_until(life.listens, 30)
        if life.is_running() and not peaceful:
            is_importing = time.time() - life.start < importing
            phase = "importing" if is_importing else _phase(name, workdir, life.start, rows, left)
            sent_at = time.time()
            for number in numbers:
                if life.is_running():
                    life.send(number)
                    sent.append(number)
                    life.sleep_until(lambda: False, pause)
        code, text = life.wait(), log.read_text(errors="replace")
        if not sent:
            documented = code == 0
            if name != "main" and not life.fresh:  # A life of main may have had less to do.
                self._slower += 0.2 * ((time.time() - life.start) / seconds - self._slower)
        else:
            written = _written(_last_file(name, workdir))
            done = life.start < written < sent_at + (4 if name == "export" else 1) * WRITING_SECONDS
            # The kernel delivers two signals that wait together in its own order.
            second = [128 + number for number in sent] if len(sent) > 1 else []
            documented = code in (PREEMPTED, *second) or (code == 0 and done)
            report["signals"] += 1
            report["fresh"] += life.fresh
            count(report["sent"], " ".join(number.name for number in sent))
            count(report["phases"].setdefault(f"{name}, {phase}", {}), str(code))
        if not documented or any(noise in text for noise in NOISE):
            report["failures"].append(
                {"life": report["lives"], "command": name, "sent": [number.name for number in sent],
                 "phase": phase if sent else None, "exit code": code, "log": text[-3000:]}
            )  # fmt: skip
        self.write()
        if code not in (0, PREEMPTED, 128 + signal.SIGTERM, 128 + signal.SIGINT):
            kept = self.folder / f"refused_{report['lives']}"
            shutil.copytree(workdir, kept, dirs_exist_ok=True) if workdir.exists() else kept.mkdir()
            raise SystemExit(f"a life ended with {code}. {kept} is its folder, and the report has its log.")
        return code != 0


def _last_file(name: str, workdir: pathlib.Path) -> pathlib.Path:
    """The file that a command writes last. The files of export and compare lie in the run's folder."""
    names = {"export": "network.safetensors", "compare": "compared/comparison.png"}
    return workdir / names.get(name, "results.json")


def _written(path: pathlib.Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _phase(name: str, workdir: pathlib.Path, start: float, rows: int, left: set[tuple[str, int]]) -> str:
    """What a command is doing, as far as the folder shows."""
    if _written(_last_file(name, workdir)) > start:
        return "ending"
    if any(_written(path) > start for path in workdir.glob("figures/*")):
        return "drawing"
    return phase_of(workdir, EPOCH_STEPS * EPOCHS, rows, left) if name == "main" else "working"
