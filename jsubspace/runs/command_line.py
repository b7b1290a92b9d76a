"""The command line of the program that trains: its flags, and plain messages for what is mistyped."""

import difflib
import pathlib
import re
import runpy
import traceback
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

import jsubspace
from jsubspace import paths
from jsubspace.errors import UsageError, one_line
from jsubspace.runs import config, settings
from jsubspace.runs.problem import Problem
from jsubspace.runs.run import MakeProblem

_ARGUMENTS: list[str] = []
"""The command line that `parse` is given. ml_collections finds the values of fields here."""

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The config file: a path, or the name of a config of this library.",
    lock_config=True,
    sys_argv=_ARGUMENTS,
)


def parse(argv: list[str]) -> list[str]:
    """Parses the command line.

    The value of ``--config`` is a path, or the name of a config that is installed with the library.

    Raises:
      UsageError: for an unknown flag or field, a value of the wrong type, or a config file that does not exist or load.
    """
    try:
        argv = [argv[0], *flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)]
        _ARGUMENTS[:] = argv = _with_files(argv)
        _check_digits(argv)
        rest = flags.FLAGS(argv)
    except SystemExit as error:  # --help was asked for, which is no mistake.
        raise SystemExit(0) from error
    except UsageError:
        raise
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
      UsageError: if no file is given, or it makes no config.
    """
    given = flags.FLAGS["config"].present and config_flags.get_config_filename(flags.FLAGS["config"])
    if not given:
        raise UsageError("which run? Say --config=FILE or --config=NAME, for example --config=digits_cresnet8_line.")
    path = pathlib.Path(given.split(":")[0])
    if not isinstance(CONFIG.value, ml_collections.ConfigDict):
        raise UsageError(
            f"get_config() of {path} returns {CONFIG.value!r}. It must return a config, as jsubspace.runs.config.default() does."
        )
    return CONFIG.value, path.stem


def problem_of_config(given: ml_collections.ConfigDict) -> MakeProblem | None:
    """``get_problem`` of the config file, or None for a config of the images and networks of the library.

    Raises:
      UsageError: if the file has one of the two, a group ``problem`` and a function ``get_problem``, without the other.
    """
    path = config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]
    found = _executed(path)
    if config.is_of_a_problem(given) and found is None:
        raise UsageError(
            f"{path} has settings of a problem of its own, but no get_problem(config), which returns the problem."
        )
    if found is not None and not config.is_of_a_problem(given):
        raise UsageError(
            f"{path} defines get_problem, so its get_config() must start from jsubspace.training.default_settings(). It returns the "
            "settings of a run on the images of the library."
        )
    return found


def problem_of(given: str | None) -> MakeProblem | None:
    """``get_problem`` of the file that ``--config`` names in a program that reads the settings from a run's folder.

    Raises:
      UsageError: if the file does not exist or load, or has no such function.
    """
    if given is None:
        return None
    path = find_file(given)
    found = _executed(str(path))
    if found is None:
        raise UsageError(
            f"{path} defines no get_problem(config). The settings themselves are read from the run's folder."
        )
    return found


def problem_in(given: str | None) -> tuple[ml_collections.ConfigDict, MakeProblem]:
    """``get_config()`` and ``get_problem`` of a file, for a program that has no run.

    Raises:
      UsageError: if the file does not exist or load, lacks one of the functions, or its config is not of a problem.
    """
    if given is None:
        raise UsageError(
            "which problem? Say --config=FILE, the file that defines get_config() and get_problem(config)."
        )
    path = str(find_file(given))
    names = _names(path)
    found = _maker(names, path)
    if found is None or "get_config" not in names:
        raise UsageError(
            f"{path} must define get_config() and get_problem(config), as a file of a problem of your own does."
        )
    try:
        settings = names["get_config"]()
    except Exception as error:
        raise UsageError(_in_file(error, path)) from error
    if not isinstance(settings, ml_collections.ConfigDict) or not config.is_of_a_problem(settings):
        raise UsageError(f"get_config() of {path} must start from jsubspace.training.default_settings().")
    return settings, found


def _executed(path: str) -> MakeProblem | None:
    """``get_problem`` of a config file, which is executed, or None if the file does not define it.

    Raises:
      UsageError: if the file raises an error, now or when it makes the problem. The message has the line.
    """
    return _maker(_names(path), path)


def _names(path: str) -> dict[str, Any]:
    try:
        return runpy.run_path(path, run_name="problem")
    except Exception as error:
        raise UsageError(_in_file(error, path)) from error


def _maker(names: Mapping[str, Any], path: str) -> MakeProblem | None:
    get_problem = names.get("get_problem")
    if get_problem is None:
        return None

    def make(given: ml_collections.ConfigDict) -> Problem:
        try:
            made: Problem = get_problem(given)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(_in_file(error, path)) from error
        return made

    return make


def shipped() -> dict[str, pathlib.Path]:
    """The configs that come with the library, by name. A checkout has them beside the package, an installation inside."""
    package = pathlib.Path(jsubspace.__file__).parent
    beside = package.parent / "configs"
    folder = beside if (package.parent / "setup.py").is_file() and beside.is_dir() else package / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def find_file(given: str) -> pathlib.Path:
    """The config file for a path or a name.

    The path of a file comes first. If the file does not exist, ``digits_cresnet8_line``, ``digits_cresnet8_line.py`` and
    ``configs/digits_cresnet8_line.py`` are the config of the library, so that documented commands work in every folder.

    Raises:
      UsageError: if neither exists.
    """
    path = paths.on_disk(given, "--config")
    if path.is_file():
        return path
    configs = shipped()
    name = path.name.removesuffix(".py")
    if path.parent in (pathlib.Path(), pathlib.Path("configs")) and name in configs:
        return configs[name]
    files = {file.name: str(file) for file in path.parent.glob("*.py")}
    nearest = difflib.get_close_matches(path.name, files, n=1) or difflib.get_close_matches(name, configs, n=1)
    if nearest:
        raise UsageError(f"there is no config file {path}; did you mean {files.get(nearest[0], nearest[0])}?")
    raise UsageError(
        f"there is no config file {path}. Give the path of a file, or the name of a config of the library: "
        f"{', '.join(configs)}."
    )


def _with_files(argv: list[str]) -> list[str]:
    """The command line with the path of a file as the value of every ``--config``. A text after a colon stays."""
    found = list(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    for i in range(1, end):
        flag, equals, given = argv[i].partition("=")
        if flag not in ("--config", "-config"):
            continue
        if not equals and i + 1 < end:
            given = argv[i + 1]
        name, colon, parameter = given.partition(":")
        if name:
            value = f"{find_file(name)}{colon}{parameter}"
            found[i if equals else i + 1] = f"{flag}={value}" if equals else value
    return found


def _check_digits(argv: list[str]) -> None:
    """Refuses numbers in other characters than ASCII. Python's int reads the Arabic digit four as 4, but no JSON file does."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, text = argument.partition("=")
        field = flag.lstrip("-").removeprefix("config.")
        if not flag.startswith("-") or field not in settings.NAMED:
            continue
        given, kind = text if equals else following, settings.NAMED[field].type
        if kind is not str and not given.isascii():
            raise UsageError(f"config.{field} is {given!r}. It must be of type {kind.__name__}.")


def _about_a_field(argv: list[str]) -> str | None:
    """A message for the first ``--config.a.b=...`` that names no field, or has a value of another type than the field."""
    for argument in argv:
        field, equals, text = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not field.startswith("config."):
            continue
        field = field.removeprefix("config.")
        if config.is_free(field):
            continue
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
    given = re.search(r"^--?config[=\n](.+?)(:|$)", "\n".join(argv), re.MULTILINE)
    return _line_of(error, given[1]) if given else None


def _line_of(error: BaseException | None, path: str) -> str | None:
    while error is not None:
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(path)]
        if lines:
            what = _about_an_attribute(error) or f"{type(error).__name__}: {error}"
            return f"{path}, line {lines[-1].lineno}, {lines[-1].line}: {what}"
        error = error.__cause__ or error.__context__
    return None


def _in_file(error: Exception, path: str) -> str:
    return (_line_of(error, path) or f"{path}: {one_line(error)}").splitlines()[0]


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
