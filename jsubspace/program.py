"""What the programs of this library share: how they end, what they log, and where compiled programs are kept."""

import logging
import os
from collections.abc import Callable
from typing import NoReturn, TextIO, TypeVar

from absl import logging as absl_logging
from jax.experimental.compilation_cache import compilation_cache

from jsubspace import endings, paths, shown
from jsubspace.errors import UsageError

log = logging.getLogger("jsubspace.program")

Result = TypeVar("Result")


def call(main: Callable[[], Result]) -> Result:
    """Returns the result of ``main``, or ends the program with one message: see `endings.call`."""
    log_ours_only()
    return endings.call(main)


def run(main: Callable[[], object]) -> NoReturn:
    """Runs a program to the end of its process: see `endings.run`."""
    log_ours_only()
    endings.run(main)


def use_compilation_cache() -> None:
    """Keeps compiled programs under ``~/.cache/jsubspace/compiled``, so that the next start need not compile them.

    JAX's own variables take precedence: ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing. JAX prints a warning if the folder cannot be written.
    Nothing is kept for a user without a home folder, or if the folder has a name that jax cannot write.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    caches = paths.home_cache()
    try:
        if caches is not None:
            compilation_cache.set_cache_dir(paths.expanded(caches / "jsubspace" / "compiled", "the folder for caches"))
    except UsageError as error:
        log.warning("compiled programs are not kept: %s", error)


def log_ours_only(stream: TextIO | None = None) -> None:
    """Shows the log of this library and no other log. Programs call it, and so may a notebook that shows progress.

    Orbax logs every file that it renames, and it logs pages about an error that it also raises.

    Args:
      stream: the log is written here, or to standard error if not given.
    """
    absl_logging.set_verbosity(absl_logging.FATAL)
    ours = logging.getLogger("jsubspace")
    ours.setLevel(logging.INFO)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(shown.Formatter())
    ours.handlers = [handler]
    ours.propagate = False
