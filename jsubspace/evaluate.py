"""Evaluates a run again: ``python -m jsubspace.evaluate --workdir=runs/digits_cresnet8_line``.

Training ends with the same evaluation; this is for a run that was interrupted, or after `evaluation` has learnt more.
"""

import argparse
import pathlib
from typing import Any

from jsubspace import build, config, loop, parallel, program, report
from jsubspace.checkpoint import Checkpoints
from jsubspace.errors import UsageError


def evaluate(workdir: str | pathlib.Path) -> dict[str, Any]:
    """Evaluates the newest checkpoint in ``workdir``; writes results.json and figures/, and returns the results.

    Raises:
      UsageError: if the folder holds no run or no checkpoint.
    """
    workdir = pathlib.Path(workdir)
    settings = config.load(workdir)
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise UsageError(
            f"{workdir} has no checkpoint yet; train it first: python -m jsubspace.main --workdir={workdir}."
        )
    run = build.build(settings)
    with Checkpoints(folder, settings.keep_checkpoints, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            raise UsageError(f"{folder} holds no complete checkpoint; go on training: python -m jsubspace.main.")
        state, notes = loop.restore_or_init(run, checkpoints)
    return loop.evaluate(run, state.endpoints, workdir, notes["seconds"])


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m jsubspace.evaluate", description="Evaluates a trained run.")
    parser.add_argument("--workdir", required=True, help="the run's folder")
    workdir = parser.parse_args().workdir
    parallel.use_cpu_cores()
    print(report.table(evaluate(workdir)))


if __name__ == "__main__":
    program.call(main)
