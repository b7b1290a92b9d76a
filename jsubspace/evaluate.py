"""Evaluates a run again: ``python -m jsubspace.evaluate --workdir=runs/digits_cresnet8_line``.

Training ends with the same evaluation; this is for a run that was interrupted, or after `evaluation` has learnt more.
"""

import argparse
import logging
import pathlib
from typing import Any

import ml_collections

from jsubspace import build, config, lock, loop, parallel, program, report
from jsubspace.checkpoint import Checkpoints
from jsubspace.data import prepare, sets
from jsubspace.errors import UsageError

log = logging.getLogger(__name__)


def evaluate(workdir: str | pathlib.Path) -> dict[str, Any]:
    """Evaluates the newest checkpoint in ``workdir``; writes results.json and figures/, and returns the results.

    Raises:
      UsageError: if the folder holds no run or no checkpoint, or a run is under way in it.
    """
    workdir = pathlib.Path(workdir)
    settings, folder = load_config(workdir), workdir / "checkpoints"
    run = build.build(settings)
    with lock.alone(workdir), Checkpoints(folder, settings.keep_checkpoints, read_only=True) as checkpoints:
        state, notes = loop.restore_or_init(run, checkpoints)
        finished = int(state.step) == run.total_steps
        return loop.evaluate(run, state.endpoints, workdir, notes["seconds"], finished)


def load_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a run that has a checkpoint; the run may be somebody else's.

    Its data folder counts if the data is there. Nothing is ever prepared, that is written, in a folder that a file names.

    Raises:
      UsageError: if the folder holds no run or no checkpoint.
    """
    settings = config.load(workdir)
    if not any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*")):
        raise UsageError(
            f"{workdir} has no checkpoint yet; train it first: python -m jsubspace.main --workdir={workdir}."
        )
    if settings.data.dir and not prepare.is_prepared(sets.find(settings.data.name), settings.data.dir):
        log.warning("%s is not prepared in %s; looking in the default folder.", settings.data.name, settings.data.dir)
        settings.data.dir = ""
    return settings


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m jsubspace.evaluate", description="Evaluates a trained run.")
    parser.add_argument("--workdir", required=True, help="the run's folder")
    workdir = parser.parse_args().workdir
    parallel.use_cpu_cores()
    print(report.table(evaluate(workdir)))


if __name__ == "__main__":
    program.call(main)
