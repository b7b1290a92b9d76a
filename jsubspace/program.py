"""How a program of this library ends: with its output, or with one clear message and an exit code."""

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

from absl import logging as absl_logging

from jsubspace.errors import TrainingDiverged, UsageError

Result = TypeVar("Result")

USAGE = 2
"""Exit code for a mistake of the user's."""

DIVERGED = 3
"""Exit code for a loss that is not finite."""


def call(main: Callable[[], Result]) -> Result:
    """What ``main`` returns; what `errors` knows ends the program with its message alone, on standard error."""
    _log_ours_only()
    try:
        return main()
    except (UsageError, TrainingDiverged) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE if isinstance(error, UsageError) else DIVERGED)


def _log_ours_only() -> None:
    """The library's own lines as they are, and the errors of others: Orbax tells of every file that it renames."""
    absl_logging.set_verbosity(absl_logging.ERROR)
    ours = logging.getLogger("jsubspace")
    ours.setLevel(logging.INFO)
    ours.handlers = [logging.StreamHandler()]
    ours.propagate = False
