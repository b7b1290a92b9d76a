"""When training ends early, because tests have not improved for a while."""

import math
from collections.abc import Mapping
from typing import Any

NOTE = "patience"
"""The name of its numbers among the notes of a checkpoint."""


class Patience:
    """Counts the tests since the best one.

    The numbers are a part of every checkpoint, so a run that was interrupted ends at the step at which it would have ended.

    Args:
      most: so many tests without improvement are the end. With 0 there is no end.
      notes: the notes of the checkpoint from which the run resumes.
    """

    def __init__(self, most: int, notes: Mapping[str, Any]) -> None:
        self._most = most
        before = notes.get(NOTE, {})
        self._best: float = before.get("best", -math.inf)  # Such a result is not noted, because JSON has no infinity.
        self._tests: int = before.get("tests", 0)

    def see(self, rank: float) -> None:
        """Takes the result of a test. A larger number is better. An equal one, or one that is not finite, is no improvement."""
        is_better = math.isfinite(rank) and rank > self._best
        self._best, self._tests = (rank, 0) if is_better else (self._best, self._tests + 1)

    def is_over(self) -> bool:
        """Whether training ends."""
        return 0 < self._most <= self._tests

    def notes(self) -> dict[str, Any]:
        """What a checkpoint notes, by the name `NOTE`. Nothing if there is no end or no test yet."""
        if not self._most or (self._best == -math.inf and not self._tests):
            return {}
        best = {} if self._best == -math.inf else {"best": self._best}
        return {NOTE: best | {"tests": self._tests}}
