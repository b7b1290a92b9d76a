"""What a run was doing when it was attacked, as far as its folder shows."""

import contextlib
import pathlib

from jsubspace.storage.writer import read_rows


def saving(workdir: pathlib.Path) -> set[tuple[str, int]]:
    """Checkpoints that are being written, or were being written at a kill, by name and time of creation."""
    found = set()
    for path in (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
        with contextlib.suppress(FileNotFoundError):  # complete by now
            found.add((path.name, path.stat().st_ctime_ns))
    return found


def phase_of(workdir: pathlib.Path, last_step: int, rows: int, left: set[tuple[str, int]]) -> str:
    """The phase of a life of `main`, as far as its folder shows. It had ``rows`` and ``left`` at the start of the life."""
    if saving(workdir) - left:
        return "saving"
    if (workdir / "checkpoints" / str(last_step)).exists():
        return "evaluating"
    return "training" if len(read_rows(workdir)) > rows else "starting"
