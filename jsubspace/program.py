"""How a program of this library ends: with its output, or with one clear message and an exit code."""

import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import TextIO, TypeVar

import jax
from absl import logging as absl_logging

from jsubspace.errors import EXIT_CODES

Result = TypeVar("Result")


def call(main: Callable[[], Result]) -> Result:
    """What ``main`` returns; what `errors` knows ends the program with its message alone, on standard error."""
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

    JAX's own variables have the last word: ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing. A folder that cannot be written costs a warning of JAX's.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "jsubspace" / "compiled"))


def log_ours_only(stream: TextIO | None = None) -> None:
    """The library's own lines as they are, and nobody else's: for programs, and for a notebook that wants to see progress.

    Orbax tells of every file that it renames, and of an error in pages; it raises it, too.

    Args:
      stream: where to; standard error if not given.
    """
    absl_logging.set_verbosity(absl_logging.FATAL)
    ours = logging.getLogger("jsubspace")
    ours.setLevel(logging.INFO)
    ours.handlers = [logging.StreamHandler(stream)]
    ours.propagate = False
