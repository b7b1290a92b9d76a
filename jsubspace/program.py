"""How a program of this library ends: with its output, or with one message and an exit code."""

import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import TextIO, TypeVar

from absl import logging as absl_logging
from jax.experimental.compilation_cache import compilation_cache

from jsubspace.errors import EXIT_CODES

Result = TypeVar("Result")


def call(main: Callable[[], Result]) -> Result:
    """Returns the result of ``main``. An exception of `errors` ends the program with its message on standard error."""
    log_ours_only()
    try:
        return main()
    except tuple(EXIT_CODES) as error:
        print(
            f"error: {error}" if isinstance(error, ValueError | ArithmeticError) else str(error) or "interrupted.",
            file=sys.stderr,
        )
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))


def use_compilation_cache() -> None:
    """Keeps compiled programs under ``~/.cache/jsubspace/compiled``, so that the next start need not compile them.

    JAX's own variables take precedence: ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing. JAX prints a warning if the folder cannot be written.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        compilation_cache.set_cache_dir(str(caches / "jsubspace" / "compiled"))


def log_ours_only(stream: TextIO | None = None) -> None:
    """Shows the log of this library and no other log. Programs call it, and so may a notebook that shows progress.

    Orbax logs every file that it renames, and it logs pages about an error that it also raises.

    Args:
      stream: the log is written here, or to standard error if not given.
    """
    absl_logging.set_verbosity(absl_logging.FATAL)
    ours = logging.getLogger("jsubspace")
    ours.setLevel(logging.INFO)
    ours.handlers = [logging.StreamHandler(stream)]
    ours.propagate = False
