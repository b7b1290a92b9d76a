"""The command line of the program that trains: its flags, and plain messages for what is mistyped."""

import difflib
import pathlib
import re
import traceback

import ml_collections
from absl import flags
from ml_collections import config_flags

from jsubspace.errors import UsageError
from jsubspace.runs import config, settings

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file, one of configs/*.py.", lock_config=True)


def parse(argv: list[str]) -> list[str]:
    """Parses the command line.

    Raises:
      UsageError: for an unknown flag or field, a value of the wrong type, or a config file that does not load.
    """
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:  # The config file is executed here and its fields are set, so any exception can come.
        brief = str(error) if isinstance(error, flags.Error) else f"{type(error).__name__}: {error}"
        message = _about_a_field(argv) or _about_a_line(error, argv) or f"the command line is not understood: {brief}"
        raise UsageError(message.splitlines()[0]) from error
    if rest[1:]:
        raise UsageError(f"unexpected argument {rest[1]!r}. Every setting is written --name=value.")
    return rest


def read_config() -> tuple[ml_collections.ConfigDict, str]:
    """The config of ``--config`` with the values of the command line, and the name of its file.

    Raises:
      UsageError: if no file is given or the file does not exist.
    """
    if not flags.FLAGS["config"].present:
        raise UsageError("which run? Say --config=FILE, for example --config=configs/digits_cresnet8_line.py.")
    path = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0])
    if not path.is_file():
        nearest = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.py")], n=1)
        hint = f"; did you mean {path.parent / nearest[0]}?" if nearest else "."
        raise UsageError(f"there is no config file {path}{hint}")
    return CONFIG.value, path.stem


def _about_a_field(argv: list[str]) -> str | None:
    """A message for the first ``--config.a.b=...`` that names no field, or has a value of another type than the field."""
    for argument in argv:
        field, equals, text = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not field.startswith("config."):
            continue
        field = field.removeprefix("config.")
        if field not in settings.NAMED:
            return config.unknown_field(field)
        if equals and not (settings.NAMED[field].type is bool and text.lower() in ("true", "false")):
            try:
                config.change(config.default(), field, text)
            except UsageError as error:
                return str(error)
    return None


def _about_a_line(error: BaseException | None, argv: list[str]) -> str | None:
    """A message with the line of the config file that raised the error, or that raised the cause of the error."""
    given = re.search(r"--?config[= ](\S+?)(:| |$)", " ".join(argv))
    while error is not None and given:
        path = given[1]
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(path)]
        if lines:
            what = _about_an_attribute(error) or f"{type(error).__name__}: {error}"
            return f"{path}, line {lines[-1].lineno}, {lines[-1].line}: {what}"
        error = error.__cause__ or error.__context__
    return None


def _about_an_attribute(error: BaseException) -> str | None:
    """A message for a line that sets a field that does not exist. ml_collections names the field without its group."""
    unknown = re.search(r'Key "(\w+)" does not exist', str(error))
    if not unknown:
        return None
    last_names = {field: field.rpartition(".")[2] for field in settings.NAMED}
    nearest = difflib.get_close_matches(unknown[1], last_names.values(), n=1)
    meant = [f"config.{field}" for field, last in last_names.items() if last in nearest]
    hint = f"did you mean {' or '.join(meant)}?" if meant else "docs/settings.md lists the fields."
    return f"there is no field {unknown[1]}; {hint}"
