"""Kills at random moments, and damage to checkpoints between two lives."""

import pathlib
import random
import shutil
import signal
import time
from collections.abc import Callable

from experiments.lib.attack import Attack, count
from experiments.lib.life import Life
from experiments.lib.phases import phase_of, saving
from jsubspace import errors
from jsubspace.storage.writer import read_rows

EPOCHS = 60


class Kills(Attack):
    """Runs that are killed by SIGKILL, and sometimes by SIGTERM. Moments are drawn from the whole run and from its saves."""

    def __init__(self, folder: pathlib.Path, seed: int, problem: pathlib.Path | None = None) -> None:
        counts = {"kills": 0, "signals": {}, "phases": {}, "damages": {}, "fallbacks": 0}
        super().__init__(folder, "report", seed, {"optimizer.num_epochs": EPOCHS}, counts, problem)
        self._last_step = 0
        self._until_saving = 0.0  # seconds of a life until its first save, when last seen

    def attacks(self) -> int:
        """The number of kills so far."""
        return self.report["kills"]

    def finish(self, method: str, seconds: dict[str, float], enough: Callable[[], bool]) -> None:
        """Lives lives until the run is finished."""
        self._last_step = self.expected(method)["step"]
        while self._live(method, seconds["main"], peaceful=enough()):
            pass

    def _live(self, method: str, seconds: float, peaceful: bool) -> bool:
        """Lives one life of a run, and returns whether the run needs another life."""
        report, workdir = self.report, self.workdir
        rng = random.Random(f"{report['seed']} {report['lives']}")
        report["lives"] += 1
        log = self.folder / "log.txt"
        rows, left = len(read_rows(workdir)), saving(workdir)
        life = Life(self.commands(method, workdir)["main"], log)
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
                phase = phase_of(workdir, self._last_step, rows, left)
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
        self.write()
        return code != 0


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
