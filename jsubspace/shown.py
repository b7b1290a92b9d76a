"""Text from a file as a terminal, a log, a table or a figure may show it: control characters are written out.

A run's folder may come from a stranger. A control character in one of its files could clear the screen, hide a line, or
exchange the order in which a line is read.
"""

import logging
import re
import unicodedata
from typing import SupportsInt

_HARMLESS = "\n\t"


def escaped(text: str, lines: bool = True) -> str:
    """The text with every control character and lone surrogate written as an escape, like ``\\\\x1b``.

    Args:
      text: any text.
      lines: whether newlines and tabs stay as they are. A name, which is one line, has neither.

    Example:
      >>> escaped("fine\\x1b[2J \\u202e")
      'fine\\\\x1b[2J \\\\u202e'
      >>> escaped("two\\nlines", lines=False)
      'two\\\\nlines'
    """
    if text.isprintable():
        return text
    return "".join(_written_out(character) if _is_control(character, lines) else character for character in text)


def is_plain(text: str) -> bool:
    """Whether the text is one line without control characters.

    Example:
      >>> is_plain("0.00 & 1.00"), is_plain("a\\nb")
      (True, False)
    """
    return escaped(text, lines=False) == text


def cell(text: str) -> str:
    """The text for a cell of a Markdown table.

    Example:
      >>> print(cell("a | b"))
      a \\| b
    """
    return escaped(text, lines=False).replace("|", r"\|")


def label(text: str) -> str:
    """The text for a label of matplotlib, which would read text between dollar signs as mathematics.

    Example:
      >>> print(label("5 $ or 6 $"))
      5 \\$ or 6 \\$
    """
    return re.sub(r"(?<!\\)\$", r"\\$", escaped(text, lines=False))


class Formatter(logging.Formatter):
    """The format of this library's log. Newlines in the values of a message are escaped, too. Numbers stay numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        if isinstance(record.args, tuple):
            args = tuple(value if isinstance(value, SupportsInt) else _Value(value) for value in record.args)
            record = logging.makeLogRecord(record.__dict__ | {"args": args})
        return escaped(super().format(record))


class _Value:
    """A value that prints itself escaped."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return escaped(str(self._value), lines=False)

    def __repr__(self) -> str:
        return escaped(repr(self._value), lines=False)


def _is_control(character: str, lines: bool) -> bool:
    """Controls (Cc), formats (Cf: bidirectional overrides among them), surrogates (Cs), and separators of lines."""
    if lines and character in _HARMLESS:
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _written_out(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
