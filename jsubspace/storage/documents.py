"""JSON as this library writes and reads it: JSON of the standard, which has neither NaN nor Infinity."""

import json
import math
import pathlib
from typing import Any

from jsubspace.storage import files


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a file completely or not at all. A number that is not finite is written as null (`without_nan`)."""
    files.write_text(path, to_json(content, indent=2) + "\n")


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON of the standard, which has neither NaN nor Infinity."""
    return json.dumps(without_nan(content), indent=indent, allow_nan=False)


def from_json(text: str) -> Any:
    """The content of JSON. NaN and Infinity, which Python writes by default and older files may hold, become None.

    Raises:
      ValueError: if the text is not JSON.

    Example:
      >>> from_json('{"nll": Infinity, "accuracy": 0.5}')
      {'nll': None, 'accuracy': 0.5}
    """
    return json.loads(text, parse_constant=lambda _: None)


def without_nan(content: Any) -> Any:
    """Dictionaries, lists and tuples with None in the place of every number that is not finite.

    Example:
      >>> without_nan({"nll": float("inf"), "interval": [0.25, float("nan")]})
      {'nll': None, 'interval': [0.25, None]}
    """
    if isinstance(content, dict):
        return {name: without_nan(inner) for name, inner in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(inner) for inner in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
