"""Paths as a user writes them: with ``~`` for a home folder, and with whatever a shell or a file lets through."""

import errno
import os
import pathlib

from jsubspace.errors import UsageError


def expanded(given: str | os.PathLike[str], name: str) -> str:
    """The path that was given for ``name``, with ``~`` and ``~user`` replaced by home folders.

    An address like ``gs://bucket/run`` is returned as it was given.

    Raises:
      UsageError: if no file can have this path. It has a NUL, it is not UTF-8, a part is too long, its links lead in a
        circle, it lies where the user may not look, or the home folder is not known.

    Example:
      >>> expanded("runs/mine", "--workdir")
      'runs/mine'
      >>> expanded("x" * 300, "--workdir")
      Traceback (most recent call last):
      jsubspace.errors.UsageError: --workdir is 'xxxxxxxxxxxxxxxxxxxx...': File name too long. Choose another path.
    """
    text = os.fspath(given)
    shown = repr(text if len(text) <= 200 else f"{text[:20]}...")
    if "\0" in text:
        raise UsageError(f"{name} is {shown}: a path has no NUL in it. Choose another path.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} is {shown}: this name is not UTF-8. Choose another path.") from error
    if "://" in text:
        return text
    if text.startswith("~"):
        try:
            text = str(pathlib.Path(text).expanduser())
        except RuntimeError as error:
            raise UsageError(
                f"{name} is {shown}: the home folder of {_owner(text)} is not known. Choose a path without ~."
            ) from error
    try:
        os.lstat(text)
    except OSError as error:
        if error.errno not in (
            errno.ENOENT,
            errno.ENOTDIR,
        ):  # The path does not exist yet, and who makes it may refuse it.
            raise UsageError(f"{name} is {shown}: {os.strerror(error.errno or 0)}. Choose another path.") from error
    return text


def home_cache() -> pathlib.Path | None:
    """The user's folder for caches: ``$XDG_CACHE_HOME`` or ``~/.cache``. None if the user has no home folder.

    A container may run under a number that belongs to no user, and then no home folder is known.
    """
    if named := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(named)
    try:
        return pathlib.Path.home() / ".cache"
    except RuntimeError:
        return None


def _owner(text: str) -> str:
    user = text.partition("/")[0].removeprefix("~")
    return f"the user {user!r}" if user else "this user"
