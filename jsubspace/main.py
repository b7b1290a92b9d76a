"""Trains and evaluates a subspace: ``python -m jsubspace.main --config=configs/digits_cresnet8_line.py``.

Any field can be set on the command line, as in ``--config.optimizer.num_epochs=10``. The same command again goes on
where the run was interrupted. A config file is Python and is executed: run only those that you would run as a program.
"""

import difflib
import pathlib

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from jsubspace import config, loop, parallel, program, report
from jsubspace.errors import UsageError

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file, one of configs/*.py.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/<name of the config file> if not given.")


def main() -> None:
    """The program, after its flags have been parsed."""
    settings, name = read_config()
    workdir = pathlib.Path(WORKDIR.value or pathlib.Path("runs") / name)
    parallel.use_cpu_cores()
    print(report.table(loop.train(settings, workdir)))
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
    except flags.Error as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # Whatever executing the config file, or setting a field of it, raises.
        raise UsageError(
            _unknown_field(argv) or f"the config does not load: {type(error).__name__}: {error}"
        ) from error
    if rest[1:]:
        raise UsageError(f"unexpected argument {rest[1]!r}; every setting is written --name=value.")
    return rest


def _unknown_field(argv: list[str]) -> str | None:
    """A message for the first ``--config.a.b=...`` that is no field."""
    known = config.fields(config.default())
    for argument in argv:
        field = argument.lstrip("-").split("=")[0].removeprefix("config.")
        if argument.lstrip("-").startswith("config.") and field not in known:
            return config.unknown_field(field)
    return None


if __name__ == "__main__":
    app.run(lambda _: program.call(main), flags_parser=lambda argv: program.call(lambda: parse_flags(argv)))
