"""Evaluates a run again: ``python -m jsubspace.evaluate --workdir=runs/digits_cresnet8_line``.

Training ends with the same evaluation; this is for a run that was interrupted, or to ask more of it:

    python -m jsubspace.evaluate --workdir=RUN --config.evaluation.corruptions=all
"""

import argparse
import pathlib
from typing import Any

import jax

from jsubspace import build, config, loop, parallel, program, report, stacks
from jsubspace.checkpoint import Checkpoints
from jsubspace.errors import UsageError


def evaluate(workdir: str | pathlib.Path, changes: dict[str, str] | None = None) -> dict[str, Any]:
    """Evaluates the newest checkpoint in ``workdir``; writes results.json and figures/, and returns the results.

    Args:
      workdir: the run's folder.
      changes: other values of ``evaluation`` fields than the run was trained with, as text: ``{"evaluation.num_points":
        "41"}``. results.json records them.

    Raises:
      UsageError: if the folder holds no run or no checkpoint, or a change is not possible.
    """
    workdir = pathlib.Path(workdir)
    settings = config.load(workdir)
    for field, given in (changes or {}).items():
        if not field.startswith("evaluation."):
            raise UsageError(f"config.{field} belongs to training; only config.evaluation fields can be changed now.")
        config.change(settings, field, given)
    config.validate(settings)
    folder = workdir / stacks.CHECKPOINTS
    if not folder.is_dir():
        raise UsageError(
            f"{workdir} has no checkpoint yet; train it first: python -m jsubspace.main --workdir={workdir}."
        )
    run = build.build(settings)
    with Checkpoints(folder, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            raise UsageError(f"{folder} holds no complete checkpoint; go on training: python -m jsubspace.main.")
        _, notes = checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated)
    return loop.evaluate(run, workdir, notes["seconds"])


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m jsubspace.evaluate", description="Evaluates a trained run.")
    parser.add_argument("--workdir", required=True, help="the run's folder")
    arguments, rest = parser.parse_known_args()
    changes = {}
    for argument in rest:
        field, equals, given = argument.removeprefix("--config.").partition("=")
        if not argument.startswith("--config.") or not equals:
            raise UsageError(f"unexpected argument {argument!r}; settings are written --config.evaluation.name=value.")
        changes[field] = given
    parallel.use_cpu_cores()
    print(report.table(evaluate(arguments.workdir, changes)))


if __name__ == "__main__":
    program.call(main)
