"""A run's folder on the disk."""

import pathlib

from jsubspace.errors import UsageError
from jsubspace.storage import files
from jsubspace.storage.places import in_bucket


def check_folder(workdir: pathlib.Path) -> None:
    """Checks that `make_folder` will succeed, without leaving a trace.

    Raises:
      UsageError: if it will not.
    """
    try:
        existing = next(path for path in (workdir, *workdir.absolute().parents) if in_bucket(path) or path.exists())
        files.check_writable(existing)
    except OSError as error:
        raise cannot_write(workdir, error) from error


def make_folder(workdir: pathlib.Path) -> None:
    """Makes a run's folder if it does not exist.

    Raises:
      UsageError: if the folder cannot be made.
    """
    try:
        files.make_folder(workdir)
    except OSError as error:
        raise UsageError(f"cannot make the run's folder {workdir}: {error}. Choose another --workdir.") from error


def cannot_write(workdir: pathlib.Path, error: OSError) -> UsageError:
    """The error for a run's folder that cannot be written."""
    return UsageError(f"cannot write the run's folder {workdir}: {error}. Choose another --workdir.")
