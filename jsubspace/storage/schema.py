"""What the content of a file must be, as a declaration: a tree of schemas that mirrors the tree of the content.

Every reader of a file checks the content before anything else looks at it. Whoever reads a field later need not ask
whether the field exists or has the right type.

Example:
  >>> row = Record({"name": Text(), "score": Nullable(Number(0, 1))}, optional={"seeds": Listed(Whole())})
  >>> row.check({"name": "a", "score": 0.5, "more": [1]}, "row")
  >>> row.check({"name": "a", "score": "high"}, "row")
  Traceback (most recent call last):
  jsubspace.storage.schema.Mismatch: row.score is 'high', and must be a number from 0 to 1
"""

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from jsubspace import shown

LARGEST = 1e80
"""The largest size of a number in a file. Every number of ours is a float32, or a short sum of products of two of them."""

LARGEST_WHOLE = 2**53
"""The largest size of a whole number in a file. A float holds smaller ones exactly."""


class Mismatch(ValueError):
    """The content is not what the schema declares. The message names the place, what was found and what was expected."""


class Schema(Protocol):
    """What a content must be."""

    @property
    def words(self) -> str:
        """The schema in words, after "must be"."""
        ...

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` if the content at ``place`` is something else."""
        ...


@dataclasses.dataclass(frozen=True)
class Anything:
    """Content that nobody reads."""

    words: str = "anything"

    def check(self, content: Any, place: str) -> None:
        """Accepts everything."""


ANYTHING = Anything()


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number from ``least`` to ``most``. True and False are not numbers."""

    least: float = -LARGEST
    most: float = LARGEST

    @property
    def words(self) -> str:
        """The schema in words."""
        return f"a number{_range(self.least, self.most, LARGEST)}"

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        is_number = isinstance(content, int | float) and not isinstance(content, bool)
        if not is_number or not self.least <= content <= self.most:
            _refuse(self, content, place)


@dataclasses.dataclass(frozen=True)
class Whole:
    """An integer from ``least`` to ``most``."""

    least: int = -LARGEST_WHOLE
    most: int = LARGEST_WHOLE

    @property
    def words(self) -> str:
        """The schema in words."""
        return f"a whole number{_range(self.least, self.most, LARGEST_WHOLE)}"

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if not isinstance(content, int) or isinstance(content, bool) or not self.least <= content <= self.most:
            _refuse(self, content, place)


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False."""

    words: str = "true or false"

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if not isinstance(content, bool):
            _refuse(self, content, place)


@dataclasses.dataclass(frozen=True)
class Text:
    """One line of text that is not empty and has no control characters.

    Attributes:
      pattern: a regular expression that the whole text must match, or "" for any text.
      longest: the largest number of characters.
    """

    pattern: str = ""
    longest: int = 1000

    @property
    def words(self) -> str:
        """The schema in words."""
        form = f" of the form {self.pattern}" if self.pattern else ""
        return f"a line of text{form}, of 1 to {self.longest} characters"

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if (
            not isinstance(content, str)
            or len(content) > self.longest
            or not content.strip()
            or not shown.is_plain(content)
            or (self.pattern and re.fullmatch(self.pattern, content) is None)
        ):
            _refuse(self, content, place)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of some values, of the same type."""

    values: tuple[Any, ...]

    @property
    def words(self) -> str:
        """The schema in words."""
        return " or ".join(map(repr, self.values))

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if not any(type(content) is type(value) and content == value for value in self.values):
            _refuse(self, content, place)


@dataclasses.dataclass(frozen=True)
class Either:
    """Content that one of several schemas accepts."""

    schemas: tuple[Schema, ...]

    @property
    def words(self) -> str:
        """The schema in words."""
        return " or ".join(schema.words for schema in self.schemas)

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        for schema in self.schemas:
            with contextlib.suppress(Mismatch):
                return schema.check(content, place)
        _refuse(self, content, place)


@dataclasses.dataclass(frozen=True)
class Nullable:
    """``of`` or null."""

    of: Schema

    @property
    def words(self) -> str:
        """The schema in words."""
        return f"{self.of.words} or null"

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if content is not None:
            self.of.check(content, place)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A list of ``least`` to ``most`` values that are each ``of`` a schema."""

    of: Schema
    least: int = 0
    most: int = 10_000_000

    @property
    def words(self) -> str:
        """The schema in words."""
        if self.least == self.most:
            return f"a list of length {self.least}"
        return "a list" + (f" of length {self.least} or more" if self.least else "")

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if not isinstance(content, list) or not self.least <= len(content) <= self.most:
            _refuse(self, content, place)
        for i, inner in enumerate(content):
            self.of.check(inner, f"{place}[{i}]")


@dataclasses.dataclass(frozen=True)
class Named:
    """A dictionary whose names are text and whose values are each ``of`` a schema."""

    of: Schema
    words: str = "a dictionary"

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if not isinstance(content, dict):
            _refuse(self, content, place)
        for name, inner in content.items():
            Text().check(name, f"a name in {place}")
            self.of.check(inner, f"{place}.{name}")


@dataclasses.dataclass(frozen=True)
class Record:
    """A dictionary with fields of its own. Fields that are not declared are not read by anybody, and may be anything.

    Attributes:
      required: the fields that must exist.
      optional: the fields that may be missing.
      others: the schema of all other fields.
    """

    required: Mapping[str, Schema]
    optional: Mapping[str, Schema] = dataclasses.field(default_factory=dict)
    others: Schema = ANYTHING
    words: str = "a dictionary"

    def check(self, content: Any, place: str) -> None:
        """Raises `Mismatch` for something else."""
        if not isinstance(content, dict):
            _refuse(self, content, place)
        for name in self.required:
            if name not in content:
                raise Mismatch(f"{place} lacks the field {name!r}")
        known = {**self.required, **self.optional}
        for name, inner in content.items():
            known.get(name, self.others).check(inner, f"{place}.{shorten(name)}")

    def extended(self, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> "Record":
        """The same record with more fields."""
        return dataclasses.replace(
            self, required={**self.required, **required}, optional={**self.optional, **(optional or {})}
        )


def check_shape(rows: list[list[Any]], shape: tuple[int, int], place: str) -> None:
    """Raises `Mismatch` if a list of lists does not have this shape."""
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise Mismatch(f"{place} is not a table of {shape[0]} rows and {shape[1]} columns")


def shorten(content: Any) -> str:
    """A content in a few words, for a message. Containers are not written out, because they may be large or deep."""
    if isinstance(content, dict):
        return f"a dictionary of length {len(content)}"
    if isinstance(content, list | tuple):
        return f"a list of length {len(content)}"
    if isinstance(content, int) and abs(content) >= 10**40:
        return "an integer of more than 40 digits"
    text = repr(content) if isinstance(content, str) and not content.isidentifier() else str(content)
    return shown.escaped(text if len(text) <= 60 else f"{text[:57]}...", lines=False)


def _range(least: float, most: float, largest: float) -> str:
    if least <= -largest and most >= largest:
        return ""
    return f" from {least:g} on" if most >= largest else f" from {least:g} to {most:g}"


def _message(schema: Schema, content: Any, place: str) -> str:
    found = repr(content) if isinstance(content, str) and len(content) <= 60 else shorten(content)
    return f"{place} is {shown.escaped(found, lines=False)}, and must be {schema.words}"


def _refuse(schema: Schema, content: Any, place: str) -> NoReturn:
    raise Mismatch(_message(schema, content, place))
