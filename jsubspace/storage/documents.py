"""JSON as this library writes it, and the one reader of JSON from the disk.

JSON of the standard has neither NaN nor Infinity. A file may come from a stranger or from a damaged disk. The reader
therefore limits its size and depth before anything looks at the content, and refuses what no file of ours holds: a name
that occurs twice in a dictionary, a number that is not finite, an integer of more than 64 bits, half a character.
"""

import itertools
import json
import math
import pathlib
import re
from typing import Any, NoReturn

from jsubspace.errors import UsageError
from jsubspace.storage import files
from jsubspace.storage.schema import ANYTHING, Schema

DEPTH = 50
"""The largest depth of lists and dictionaries in each other. Files of ours have a depth of 10 or less."""

_LARGEST_INTEGER = 2**64

_CHUNK = 2**20

_BRACKETS = re.compile(r"[][{}]")


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a file completely or not at all. A number that is not finite is written as null (`without_nan`)."""
    files.write_text(path, to_json(content, indent=2) + "\n")


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON of the standard, which has neither NaN nor Infinity."""
    return json.dumps(without_nan(content), indent=indent, allow_nan=False)


def read(path: pathlib.Path, most_bytes: int, fix: str, schema: Schema = ANYTHING, nan_is_none: bool = False) -> Any:
    """The content of a JSON file, as its schema declares it.

    Args:
      path: an existing file.
      most_bytes: the largest size of a file of this kind.
      fix: what the user can do about a damaged file, as a sentence.
      schema: what the content must be.
      nan_is_none: as in `from_json`.

    Raises:
      UsageError: if the file cannot be read, is too large or too deep, is not JSON, or holds something else.
    """
    try:
        content = from_json(read_bytes(path, most_bytes), nan_is_none)
        schema.check(content, path.name)
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}). {fix}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}. Change this and try again.") from error
    return content


def read_bytes(path: pathlib.Path, most_bytes: int) -> bytes:
    """The content of a file.

    Raises:
      ValueError: if the file is too large, or it is no file but a pipe or a device, which might never end.
      OSError: if the file cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    content = bytearray()
    with path.open("rb") as file:  # At once, it would take memory for the largest size.
        while chunk := file.read(_CHUNK):
            content += chunk
            if len(content) > most_bytes:
                raise ValueError(f"it has more than {most_bytes} bytes")
    return bytes(content)


def from_json(text: str | bytes, nan_is_none: bool = False) -> Any:
    """The content of JSON.

    Args:
      text: JSON, as text or in UTF-8.
      nan_is_none: whether NaN and Infinity become None. Python's own writer wrote them into results.json and
        metrics.jsonl of older versions. Otherwise they are refused.

    Raises:
      ValueError: if the text is not JSON of the standard, or holds what no file of ours holds.

    Example:
      >>> from_json('{"nll": Infinity, "accuracy": 0.5}', nan_is_none=True)
      {'nll': None, 'accuracy': 0.5}
      >>> from_json("[" * 100_000)
      Traceback (most recent call last):
      ValueError: its lists and dictionaries are nested deeper than 50
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if _depth(text) > DEPTH:
        raise ValueError(f"its lists and dictionaries are nested deeper than {DEPTH}")
    content = json.loads(
        text,
        parse_constant=(lambda _: None) if nan_is_none else _refuse_constant,
        parse_float=_float,
        parse_int=_integer,
        object_pairs_hook=_dictionary,
    )
    if "\\ud" in text or "\\uD" in text:  # Half of a pair is a text that cannot be written or printed.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    return content


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


def _depth(text: str) -> int:
    """An upper bound of the depth of JSON, without recursion.

    Every second piece between quotes lies outside of strings. In text that is not JSON the pieces may be wrong, but only
    behind the place at which the parser stops.
    """
    if text.count("[") + text.count("{") <= DEPTH:
        return 0
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    steps = (1 if bracket in "[{" else -1 for bracket in _BRACKETS.findall(outside))
    return max(itertools.accumulate(steps), default=0)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which JSON does not have")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {digits[:20]}, which is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 21 or abs(int(digits)) >= _LARGEST_INTEGER:
        raise ValueError(f"it holds an integer of {len(digits)} digits, which is too large")
    return int(digits)


def _dictionary(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"a dictionary has the name {twice[:60]!r} twice")
    return content
