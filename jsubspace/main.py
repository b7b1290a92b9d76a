"""Trains and evaluates a subspace: ``python -m jsubspace.main --config=configs/digits_cresnet8_line.py``.

Any field can be set on the command line, as in ``--config.optimizer.num_epochs=10``. The same command again goes on
where the run was interrupted. A config file is Python and is executed: run only those that you would run as a program.
"""

import difflib
import pathlib
import re
import traceback

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from jsubspace import program, runs
from jsubspace.errors import UsageError
from jsubspace.runs import config, results
from jsubspace.training import hosts, parallel
from jsubspace.training.preemption import Preemption

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file, one of configs/*.py.", lock_config=True)
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several hosts that run this command, for one run.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/<name of the config file> if not given.")


def main() -> None:
    """The program, after its flags have been parsed."""
    settings, name = read_config()
    workdir = pathlib.Path(WORKDIR.value or pathlib.Path("runs") / name)
    program.use_compilation_cache()
    parallel.use_cpu_cores()
    if DISTRIBUTED.value:
        hosts.join()
    with Preemption() as preemption:
        trained = runs.train(settings, workdir, preemption)
    if hosts.is_first():
        print(results.table(trained))
        print(f"\nresults, checkpoints and figures are in {workdir}")


def read_config() -> tuple[ml_collections.ConfigDict, str]:
    """The config of --config with the command line's values, and the name of its file.

    Raises:
      UsageError: if there is no such file.
    """
    if not flags.FLAGS["config"].present:
        raise UsageError("which run? Say --config=FILE, for example --config=configs/digits_cresnet8_line.py.")
    path = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0])
    if not path.is_file():
        nearest = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.py")], n=1)
        hint = f"; did you mean {path.parent / nearest[0]}?" if nearest else "."
        raise UsageError(f"there is no config file {path}{hint}")
    return CONFIG.value, path.stem


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line.

    Raises:
      UsageError: for an unknown flag or field, a value of the wrong type, or a config file that does not load.
    """
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:  # Also whatever executing the config file, or setting a field of it, raises.
        brief = str(error) if isinstance(error, flags.Error) else f"{type(error).__name__}: {error}"
        message = _bad_field(argv) or _bad_line(error, argv) or f"the command line is not understood: {brief}"
        raise UsageError(message.splitlines()[0]) from error
    if rest[1:]:
        raise UsageError(f"unexpected argument {rest[1]!r}; every setting is written --name=value.")
    return rest


def _bad_field(argv: list[str]) -> str | None:
    """A message for the first ``--config.a.b=...`` that is no field, or whose value is not of the field's type."""
    for argument in argv:
        field, equals, text = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not field.startswith("config."):
            continue
        field = field.removeprefix("config.")
        known = config.fields(config.default())
        if field not in known:
            return config.unknown_field(field)
        if equals and not (isinstance(known[field], bool) and text.lower() in ("true", "false")):
            try:
                config.change(config.default(), field, text)
            except UsageError as error:
                return str(error)
    return None


def _bad_line(error: BaseException | None, argv: list[str]) -> str | None:
    """A message for what a line of the config file raised, directly or inside of what absl made of it."""
    path = re.search(r"--?config[= ](\S+?)(:| |$)", " ".join(argv))
    while error is not None and path:
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(path[1])]
        if lines:
            known = config.fields(config.default())
            missing = re.search(r'Key "(\w+)" does not exist', str(error))
            near = difflib.get_close_matches(missing[1], [f.rpartition(".")[2] for f in known], n=1) if missing else []
            names = [f"config.{field}" for field in known if near and field.rpartition(".")[2] == near[0]]
            if missing:
                hint = f"did you mean {' or '.join(names)}?" if names else "jsubspace/config.py lists the fields."
                what = f"there is no field {missing[1]}; {hint}"
            else:
                what = f"{type(error).__name__}: {error}"
            return f"{path[1]}, line {lines[-1].lineno}, {lines[-1].line}: {what}"
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    app.run(lambda _: program.call(main), flags_parser=lambda argv: program.call(lambda: parse_flags(argv)))
