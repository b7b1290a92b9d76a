"""Evaluates a run again: ``python -m jsubspace.evaluate --workdir=runs/digits_cresnet8_line``.

Training ends with the same evaluation. This program evaluates a run that was interrupted, or measures more:

    python -m jsubspace.evaluate --workdir=RUN --config.evaluation.corruptions=all

A run of a problem of your own needs ``--config=FILE``, the file with its ``get_problem(config)``.
"""

import argparse
import logging
import pathlib
from typing import Any

import ml_collections

from jsubspace import program, runs
from jsubspace.data import prepare, sets
from jsubspace.errors import UsageError
from jsubspace.runs import build, command_line, config, config_files, limits, memory, results, settings_table
from jsubspace.runs.problem import Problem
from jsubspace.runs.run import MakeProblem, checked_problem
from jsubspace.storage import checkpoint, checkpoint_files, lock, places, steps
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.training import device_choice
from jsubspace.training.patience import Patience

log = logging.getLogger("jsubspace.evaluate")  # As a program, this module has the name __main__.


def evaluate(
    workdir: str | pathlib.Path, changes: dict[str, str] | None = None, problem: Problem | MakeProblem | None = None
) -> dict[str, Any]:
    """Evaluates the newest checkpoint in ``workdir``, writes results.json and figures/, and returns the results.

    Args:
      workdir: the run's folder.
      changes: values of ``evaluation`` fields that differ from the values in training, as text:
        ``{"evaluation.num_points": "41"}``. results.json records them.
      problem: for a run of a problem of your own, the problem or a function ``settings -> problem``.

    Raises:
      UsageError: if the folder holds no run or no checkpoint, a run is under way in it, a change is not possible, or
        the arrays are larger than the memory.
    """
    workdir = places.located(workdir, "the run's folder")
    settings = load_settings(workdir)
    patience = settings.evaluation.patience
    for field, given in (changes or {}).items():
        if not field.startswith("evaluation."):
            raise UsageError(f"config.{field} belongs to training. Only config.evaluation fields can be changed now.")
        if field in settings_table.OF_TESTS:
            raise UsageError(
                f"config.{field} belongs to the tests during training, and cannot be changed now. Leave it out, or train another run "
                "with it."
            )
        config.change(settings, field, given)
    limits.validate(settings)
    run = build.build(settings, checked_problem(settings, problem))
    memory.check(run)
    with lock.alone(workdir):
        with Checkpoints(workdir / checkpoint.FOLDER, read_only=True) as checkpoints:
            like, last = run.state_shape, run.total_steps
            state, notes = checkpoints.restore(like, run.devices.replicated, last_step=last)
        finished = int(state.step) == last or Patience(patience, notes).is_over()
        return runs.evaluate(run, workdir, checkpoint_files.seconds_of(notes), finished)


def load_settings(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a run that has a checkpoint. The run may come from somebody else.

    The data folder in config.json is used only if the data is already prepared there. Data is never written to a path
    that comes from a file.

    Raises:
      UsageError: if the folder holds no run or no checkpoint.
    """
    settings = config_files.load(workdir)
    if not steps.steps_in(workdir / checkpoint.FOLDER):
        raise UsageError(
            f"{workdir} has no checkpoint yet. Train it first: python -m jsubspace.main --workdir={workdir}."
        )
    if config.is_of_a_problem(settings):
        return settings
    if settings.data.dir and not prepare.is_prepared(sets.find(settings.data.name), settings.data.dir):
        log.warning("%s is not prepared in %s. The default folder is used.", settings.data.name, settings.data.dir)
        settings.data.dir = ""
    return settings


def add_file(parser: argparse.ArgumentParser) -> None:
    """Adds the flag ``--config``. The parser gives it the name ``file``."""
    text = "for a problem of your own: the config file that defines get_problem(config). It is executed."
    parser.add_argument("--config", dest="file", metavar="FILE", help=text)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m jsubspace.evaluate", description="Evaluates a trained run.")
    parser.add_argument("--workdir", required=True, help="the run's folder")
    add_file(parser)
    arguments, rest = parser.parse_known_args()
    changes = {}
    for argument in rest:
        field, equals, given = argument.removeprefix("--config.").partition("=")
        if not argument.startswith("--config.") or not equals:
            raise UsageError(f"unexpected argument {argument!r}. Settings are written --config.evaluation.name=value.")
        changes[field] = given
    program.use_compilation_cache()
    device_choice.use_cpu_cores()
    problem = command_line.problem_of(arguments.file)
    print(results.table(evaluate(places.located(arguments.workdir, "--workdir"), changes, problem)))


if __name__ == "__main__":
    program.run(main)
