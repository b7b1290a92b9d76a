"""How a program of this library starts and ends: flags in, one clear message and an exit code out."""

import logging
import sys
from collections.abc import Callable

from absl import app, flags

from jsubspace.errors import TrainingDiverged, UsageError

USAGE = 2
"""Exit code for a mistake of the user's."""

DIVERGED = 3
"""Exit code for a loss that is not finite."""


def run(main: Callable[[], None]) -> None:
    """Parses the flags, calls ``main`` and exits; what `errors` knows ends in its message alone, on standard error."""
    app.run(lambda _: _exit(main), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, UsageError) as error:
        _fail(str(error), USAGE)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError, ImportError) as error:
        # What ml_collections lets through while it executes a config file and sets its fields.
        _fail(str(error.args[0] if isinstance(error, KeyError) and error.args else error), USAGE)
    if rest[1:]:
        _fail(f"unexpected argument {rest[1]!r}: every setting is written --name=value.", USAGE)
    return rest


def _exit(main: Callable[[], None]) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("jsubspace").setLevel(logging.INFO)
    try:
        main()
    except UsageError as error:
        _fail(str(error), USAGE)
    except TrainingDiverged as error:
        _fail(str(error), DIVERGED)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
