"""How a command ends: with its output, or with one message and an exit code of `jsubspace.errors`."""

import codecs
import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from jsubspace import collector, shown
from jsubspace.errors import EXIT_CODES, Preempted, UsageError, one_line
from jsubspace.preemption import Preemption

Result = TypeVar("Result")

_SPELT_OUT = {"±": "+-", "α": "alpha", "β": "beta", "ω": "omega", "−": "-", "²": "^2", "…": "..."}
"""What is printed for a character if the terminal or the file does not have it."""


def run(main: Callable[[], object]) -> NoReturn:
    """Runs a program and ends its process. Only what stands under ``if __name__ == "__main__"`` calls it.

    From here to the end of the process, the first signal ends the program with `errors.PREEMPTED` and one message, unless its
    work is done. The second SIGTERM or SIGINT ends it at once (`preemption.Preemption`).
    """
    signals = Preemption()
    signals.hold()  # Nothing is raised outside of the try.
    collector.resume()
    with signals:
        try:
            with signals.released():
                call(lambda: _returned(main))
            code: str | int | None = 0
        except SystemExit as end:
            code = end.code
        except (Preempted, KeyboardInterrupt) as late:  # It arrived while another end was under way.
            code = report(late)
        finally:
            signals.end()
    sys.exit(code)


def call(main: Callable[[], Result]) -> Result:
    """Returns the result of ``main``. What only the user can change ends the program with one message on standard error.

    This is the case for the exceptions of `errors`, for whatever the operating system refuses (a full disk, a name that is
    too long, a closed pipe), and for a platform that jax does not find. All other exceptions are mistakes of this library,
    unless a signal has asked the program to end: a library that is interrupted may raise anything.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=spell_out.__name__)
    try:
        result = main()
        if sys.stdout is not None:
            sys.stdout.flush()  # A full disk is noticed here, and not when Python ends.
        return result
    except (Exception, Preempted, KeyboardInterrupt) as error:
        known = stopped(error) or as_known(error)
        if known is None:
            raise
        sys.exit(report(known))


def as_known(error: BaseException) -> BaseException | None:
    """The exception as one of `errors`, or None if it is a mistake of this library.

    Example:
      >>> as_known(OSError(28, "No space left on device", "runs/a"))
      UsageError('No space left on device: runs/a. Change this, and run the same command again.')
      >>> as_known(RuntimeError("a mistake"))
    """
    if isinstance(error, tuple(EXIT_CODES)):
        return error
    if isinstance(error, OSError):
        files = [os.fsdecode(file) for file in (error.filename, error.filename2) if isinstance(file, str | bytes)]
        reason = ": ".join([error.strerror or str(error) or type(error).__name__, *files])
        return UsageError(f"{reason}. Change this, and run the same command again.")
    if isinstance(error, RuntimeError | AssertionError) and _raised_in(error).endswith("xla_bridge"):
        asked = os.environ.get("JAX_PLATFORMS")
        reason = f": {str(error).splitlines()[0]}" if str(error) else "."
        how = (
            f"JAX_PLATFORMS is {asked!r}. Unset it, or install jax for this platform."
            if asked
            else "Set JAX_PLATFORMS=cpu."
        )
        return UsageError(f"jax finds no device{reason} {how}")
    return None


def spell_out(error: UnicodeError) -> tuple[str, int]:
    """Writes a character that an output cannot have in other characters. It is an error handler of Python's codecs.

    Example:
      >>> "0.9 ± 0.1 \\udcff".encode("ascii", errors="spell_out")
      b'0.9 +- 0.1 \\\\udcff'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(
        _SPELT_OUT.get(character) or character.encode("ascii", "backslashreplace").decode() for character in lost
    ), error.end


codecs.register_error(spell_out.__name__, spell_out)


def _raised_in(error: BaseException) -> str:
    """The module that raised an exception. jax may have removed its own modules from the traceback, but not the last one."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__")) if frames else ""


def _returned(main: Callable[[], object]) -> None:
    """Returns where ``main`` ends the process as finished."""
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


def stopped(error: BaseException) -> Preempted | None:
    """`Preempted` if a signal is the reason for an exception. Libraries make other exceptions of it on its way."""
    reason: BaseException | None = error
    while reason is not None and not isinstance(reason, Preempted):
        reason = reason.__cause__ or reason.__context__
    if reason is None and as_known(error) is None and (name := Preemption.current().received()):
        return Preempted(f"stopped by {name}, with {one_line(error)}. Run the same command again.")
    return reason


def report(error: BaseException) -> int:
    """Prints the message of an exception of `errors`, and returns its exit code."""
    text = f"error: {error}" if isinstance(error, Exception) else str(error) or "interrupted."
    with contextlib.suppress(OSError):  # Standard error may be what cannot be written.
        print(shown.escaped(text), file=sys.stderr, flush=True)  # A path or a setting may come from a stranger's file.
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:  # Python would try again at the end, and fail with another exit code.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
