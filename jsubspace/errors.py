"""The exceptions that a user may see. Every message is complete."""

import errno
import os
from typing import ClassVar


class UsageError(ValueError):
    """A call, a setting or a file is not as it must be.

    The message says what was given, what was expected and what to do. Programs print the message alone, without a stack
    trace, and exit with code 2.
    """


class BucketError(Exception):
    """A bucket does not answer, or refuses. Nothing is said about an object: it may exist, and be whole.

    The message is complete, and programs exit with code 2. It is neither an OSError nor a ValueError, so that nobody takes it
    for a missing or a damaged file.
    """


class TrainingDiverged(ArithmeticError):
    """A loss is not finite. The message names the step."""

    ADVICE: ClassVar[str] = (
        "Nothing since the last checkpoint has been saved. Lower optimizer.learning_rate, lengthen optimizer.warmup_epochs, or look "
        "at the data: a label that is no class or no token makes the loss NaN."
    )
    """The end of the message."""


class Preempted(BaseException):
    """A signal asked the run to stop early. Nothing is lost: the message says where the run resumes.

    Like KeyboardInterrupt it may be raised anywhere. It is no Exception, so that ``except Exception`` does not treat it as
    an error.
    """


USAGE = 2
"""Exit code after a `UsageError` or `BucketError`: a mistake of the user, or a disk or folder that only the user can fix. Do not retry."""

DIVERGED = 3
"""Exit code after `TrainingDiverged`. Do not retry."""

PREEMPTED = 75
"""Exit code of every program after `Preempted` (`preemption.SIGNALS`, a preemption of the machine): run it again.

A host that has lost another host of its run ends with this code, too.

It is EX_TEMPFAIL of sysexits.h, "temporary failure, try again". The second SIGINT or SIGTERM ends a program at
once, with 128 and the number of the signal: 130 for SIGINT, 143 for SIGTERM. If the work was done when the signal came, the
code is 0. Before Python has read the first line of this library (some hundredths of a second), a signal ends the process itself.
"""

INTERRUPTED = 130
"""Exit code after KeyboardInterrupt: SIGINT where nothing listens, as when several hosts train together."""

EXIT_CODES: dict[type[BaseException], int] = {
    UsageError: USAGE,
    BucketError: USAGE,
    TrainingDiverged: DIVERGED,
    Preempted: PREEMPTED,
    KeyboardInterrupt: INTERRUPTED,
}
"""The exit code of a program that ends with an exception of this type."""

_OF_FILE_SYSTEMS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.ENAMETOOLONG, errno.ESTALE, errno.ENOENT,
)  # fmt: skip


def one_line(error: BaseException) -> str:
    """An exception as one line for a message: the words of the file system if it failed, else type and first line.

    Orbax and TensorStore raise errors of several pages, with all their settings.

    Example:
      >>> one_line(ValueError("the first line\\nand many more"))
      'ValueError: the first line'
    """
    return file_system_failure(error) or f"{type(error).__name__}: {error}".splitlines()[0][:300]


def file_system_failure(error: BaseException) -> str | None:
    """The words of the file system if it made a library fail with an exception of any type, or None.

    Example:
      >>> file_system_failure(RuntimeError("cannot close the file: No space left on device; at byte 8192"))
      'No space left on device'
      >>> file_system_failure(RuntimeError("a mistake"))
    """
    words = [os.strerror(number) for number in _OF_FILE_SYSTEMS]
    return next((cause for cause in words if cause in str(error)), None)
