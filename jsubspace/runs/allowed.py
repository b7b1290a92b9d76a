"""The values that a setting may have besides its type: a range, one of several names, or a condition in words."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, Protocol

from jsubspace import arguments


class Allowed(Protocol):
    """The values that a setting may have. Every value has the setting's type already."""

    def accepts(self, value: Any) -> bool:
        """Whether the setting may have this value."""

    def words(self, value: Any = None) -> str:
        """What the setting must be, to be read after "it must be". A hint is added if ``value`` looks mistyped."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``least`` to ``most``. Infinity and NaN are in no range.

    Attributes:
      least, most: the smallest and the largest number.
      above: whether the number must be larger than ``least``.
      below: whether the number must be smaller than ``most``.
      also: a number outside of the range that is allowed too.
      odd: whether the number must be odd.
      because: a reason, which is added to the words.

    Example:
      >>> Range(2, 1000, also=0).words()
      '0, or at least 2 and at most 1000'
    """

    least: float
    most: float
    above: bool = False
    below: bool = False
    also: float | None = None
    odd: bool = False
    because: str = ""

    def accepts(self, value: Any) -> bool:
        """Whether the number is in the range."""
        if value == self.also:
            return True
        high_enough = value > self.least if self.above else value >= self.least
        low_enough = value < self.most if self.below else value <= self.most
        return high_enough and low_enough and (not self.odd or value % 2 == 1)

    def words(self, value: Any = None) -> str:
        """The range in words."""
        also = "" if self.also is None else f"{self.also}, or "
        odd = "odd, " if self.odd else ""
        lower, upper = "more than" if self.above else "at least", "less than" if self.below else "at most"
        because = f", {self.because}" if self.because else ""
        return f"{also}{odd}{lower} {_plain(self.least)} and {upper} {_plain(self.most)}{because}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several names."""

    names: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Whether the value is one of the names."""
        return value in self.names

    def words(self, value: Any = None) -> str:
        """The names, and the nearest one if the value looks like it."""
        nearest = difflib.get_close_matches(value or "", self.names, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        return f"one of {', '.join(self.names)}{hint}"


@dataclasses.dataclass(frozen=True)
class Words:
    """Words with commas between, as `arguments.words` reads them, or an empty text for no word.

    Attributes:
      expected: what the words are.
      names: the words that are allowed, or empty if something else decides.

    Example:
      >>> allowed = Words("of random, gaussian", ("random", "gaussian"))
      >>> allowed.accepts("random, gaussian"), allowed.accepts("random,"), allowed.accepts("")
      (True, False, True)
    """

    expected: str
    names: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether every word exists, and is one of the names."""
        try:
            found = arguments.words(value)
        except ValueError:
            return False
        return not self.names or set(found) <= set(self.names)

    def words(self, value: Any = None) -> str:
        """The condition in words."""
        return f"{self.expected}, with commas between, or empty"


@dataclasses.dataclass(frozen=True)
class Check:
    """A condition with its words."""

    expected: str
    holds: Callable[[Any], bool] = lambda value: True

    def accepts(self, value: Any) -> bool:
        """Whether the condition holds."""
        return self.holds(value)

    def words(self, value: Any = None) -> str:
        """The condition in words."""
        return self.expected


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else str(number)
