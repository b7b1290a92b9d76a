"""The settings of a run as a config: a typed and locked ``ConfigDict`` that is made from the table of settings.

A file in ``configs/`` starts from `default` and sets what differs. A mistyped field is an error, in a file as on the
command line (``--config.optimizer.learning_rate=0.05``).
"""

import ast
import difflib
import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from jsubspace.errors import UsageError
from jsubspace.runs import settings
from jsubspace.training import schedules

PROBLEM = "problem"
"""The group of the settings of a problem of one's own. Its fields are free."""

_DEEPEST = 5


def default(problem: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """Every field with its default, in the order of the table of settings.

    Args:
      problem: for a problem of one's own, the fields of its group ``problem``, possibly empty. The config then lacks the
        settings of images and of the programs' networks.

    Raises:
      UsageError: if a field of the group ``problem`` has a value that no JSON file can hold.
    """
    config = ml_collections.ConfigDict()
    for setting in settings.SETTINGS:
        if problem is not None and setting.of_images:
            continue
        group, _, name = setting.name.rpartition(".")
        if group and group not in config:
            config[group] = ml_collections.ConfigDict()
        (config[group] if group else config)[name] = setting.default
    if problem is not None:
        config[PROBLEM] = ml_collections.ConfigDict(dict(problem))
        check_free(config[PROBLEM].to_dict())
    return config.lock()


def default_settings(**problem: Any) -> Any:  # ConfigDict's own types refuse ``settings.subspace.name = "line"``.
    """Every setting of a problem of one's own, with its default. docs/settings.md explains the settings.

    Args:
      problem: the settings of the problem itself, by name: numbers, texts, truth values, and tuples and dictionaries of
        them. They are recorded, and a run resumes only with the same values. The problem's code reads them.

    Raises:
      UsageError: if one of them is something else.

    Example:
      >>> settings = default_settings(width=64)
      >>> settings.subspace.name, settings.problem.width
      ('line', 64)
    """
    return default(problem)


def is_of_a_problem(config: ml_collections.ConfigDict) -> bool:
    """Whether these are settings of a problem of one's own, and not of the programs' images."""
    return PROBLEM in config


def check_free(content: Any, place: str = PROBLEM, depth: int = 0) -> None:
    """Checks the settings of a problem of one's own.

    Raises:
      UsageError: if a name or a value is nothing that config.json can hold.
    """
    if isinstance(content, Mapping) and depth < _DEEPEST:
        for name, inner in content.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise UsageError(f"config.{place} has a field {name!r}. The names of fields are Python names.")
            check_free(inner, f"{place}.{name}", depth + 1)
    elif isinstance(content, tuple | list) and depth < _DEEPEST:
        for number, inner in enumerate(content):
            check_free(inner, f"{place}[{number}]", depth + 1)
    elif not isinstance(content, bool | int | float | str) or (
        isinstance(content, float) and not math.isfinite(content)
    ):
        raise UsageError(
            f"config.{place} is {content!r}. A setting of a problem is a finite number, a text, True or False, or a tuple or "
            f"dictionary of them, at most {_DEEPEST} levels deep."
        )


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Checks that a config has every field and no other, and that the table of settings allows each value.

    Raises:
      UsageError: if not. The message names the field, its value and what it may be.
    """
    given, expected = fields(config), tuple(settings.NAMED)
    if is_of_a_problem(config):
        expected = settings.of_a_problem()
        if not isinstance(config[PROBLEM], ml_collections.ConfigDict):
            raise UsageError(f"config.{PROBLEM} is {config[PROBLEM]!r}. It is a group of settings of your own.")
        check_free(config[PROBLEM].to_dict())
        given = {field: value for field, value in given.items() if not is_free(field)}
    for field in given:
        if field in settings.NAMED and field not in expected:
            raise UsageError(
                f"config.{field} is a setting of the programs' images and networks. A problem of your own has no such setting: its "
                "code decides."
            )
        if field not in settings.NAMED:
            raise UsageError(unknown_field(field))
    for field in expected:
        if field not in given:
            default_value = settings.NAMED[field].default
            raise UsageError(
                f"config.{field} is missing. Start from jsubspace.runs.config.default(), where it is {default_value!r}."
            )
        if refusal := settings.refusal(field, given[field]):
            raise UsageError(refusal)


def is_free(field: str) -> bool:
    """Whether a field, by its full name, belongs to the settings of a problem of one's own."""
    return field == PROBLEM or field.startswith(f"{PROBLEM}.")


def collects(config: ml_collections.ConfigDict) -> bool:
    """Whether the run collects networks during training and is evaluated as the simplex of these networks."""
    return config.optimizer.schedule in schedules.COLLECTING


def change(config: ml_collections.ConfigDict, field: str, text: str) -> None:
    """Sets a field from text, as on a command line.

    Raises:
      UsageError: if no such field exists, or the text is not of its type.
    """
    if field not in settings.NAMED:
        raise UsageError(unknown_field(field))
    kind = settings.NAMED[field].type
    try:
        given = text if kind is str or not isinstance(text, str) else ast.literal_eval(text)
        if kind is float and type(given) is int:
            given = float(given)
        if type(given) is not kind:
            raise ValueError(f"of type {type(given).__name__}")
    except (ValueError, SyntaxError, OverflowError, RecursionError, MemoryError) as error:
        raise UsageError(f"config.{field} is {text!r}. It must be of type {kind.__name__}.") from error
    group, _, name = field.rpartition(".")
    (value(config, group) if group else config)[name] = given


def unknown_field(field: str) -> str:
    """A message for a field that does not exist."""
    nearest = difflib.get_close_matches(field, settings.NAMED, n=1)
    hint = f"did you mean config.{nearest[0]}?" if nearest else "docs/settings.md lists the fields."
    return f"there is no field config.{field}; {hint}"


def fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Every field by its full name: ``{"optimizer.num_epochs": 160, ...}``."""
    flat: dict[str, Any] = {}
    for name, content in config.items():
        nested = isinstance(content, ml_collections.ConfigDict)
        flat |= {f"{name}.{inner}": v for inner, v in fields(content).items()} if nested else {name: content}
    return flat


def value(config: ml_collections.ConfigDict, path: str) -> Any:
    """The field with this full name, as ``optimizer.num_epochs``, or the group, as ``optimizer``."""
    for name in path.split("."):
        config = config[name]
    return config
