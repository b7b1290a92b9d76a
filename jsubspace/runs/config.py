"""The settings of a run as a config: a typed and locked ``ConfigDict`` that is made from the table of settings.

A file in ``configs/`` starts from `default` and sets what differs. A mistyped field is an error, in a file as on the
command line (``--config.optimizer.learning_rate=0.05``).
"""

import ast
import difflib
from typing import Any

import ml_collections

from jsubspace.errors import UsageError
from jsubspace.runs import settings
from jsubspace.training import schedules


def default() -> ml_collections.ConfigDict:
    """Every field with its default, in the order of the table of settings."""
    config = ml_collections.ConfigDict()
    for setting in settings.SETTINGS:
        group, _, name = setting.name.rpartition(".")
        if group and group not in config:
            config[group] = ml_collections.ConfigDict()
        (config[group] if group else config)[name] = setting.default
    return config.lock()


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Checks that a config has every field and no other, and that the table of settings allows each value.

    Raises:
      UsageError: if not. The message names the field, its value and what it may be.
    """
    given = fields(config)
    for field in given:
        if field not in settings.NAMED:
            raise UsageError(unknown_field(field))
    for field, setting in settings.NAMED.items():
        if field not in given:
            raise UsageError(
                f"config.{field} is missing. Start from jsubspace.runs.config.default(), where it is {setting.default!r}."
            )
        if refusal := settings.refusal(field, given[field]):
            raise UsageError(refusal)


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
        given = text if kind is str else ast.literal_eval(text)
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
