"""Paths as a user writes them: with ``~`` for a home folder, and with whatever a shell or a file lets through."""

import errno
import os
import pathlib
import re

from jsubspace.errors import UsageError

BUCKET = "gs://"
"""How the address of a folder in a bucket of Google Cloud Storage begins."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://.*|gs:.*", re.IGNORECASE | re.DOTALL)
_FOLDER = re.compile(r"gs://[a-z0-9][a-z0-9._-]{2,220}(/+[^/]+)+/*", re.DOTALL)
_SPECIAL = re.compile(r"[*?\[\]#\x00-\x1f\x7f]")


def expanded(given: str | os.PathLike[str], name: str) -> str:
    """The path that was given for ``name``, with ``~`` and ``~user`` replaced by home folders.

    The address of a bucket's folder, like ``gs://bucket/run``, is returned as it was given.

    Raises:
      UsageError: if it is no path, or no file can have this path. It has a NUL, it is not UTF-8, a part is too long, its links lead in a
        circle, it lies where the user may not look, or the home folder is not known. Also for an address that names no
        folder in a bucket.

    Example:
      >>> expanded("runs/mine", "--workdir")
      'runs/mine'
      >>> expanded("x" * 300, "--workdir")
      Traceback (most recent call last):
      jsubspace.errors.UsageError: --workdir is 'xxxxxxxxxxxxxxxxxxxx...': File name too long. Choose another path.
    """
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{name} is a {type(given).__name__}, but it must be a path: text, or a pathlib.Path.")
    text = os.fspath(given)
    shown = repr(text if len(text) <= 200 else f"{text[:20]}...")
    if "\0" in text:
        raise UsageError(f"{name} is {shown}: a path has no NUL in it. Choose another path.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} is {shown}: this name is not UTF-8. Choose another path.") from error
    if is_address(text):
        _check_address(text, f"{name} is {shown}")
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


def is_address(text: str) -> bool:
    """Whether a text is an address and no path of the disk. A mistyped address of a bucket is an address, too.

    Example:
      >>> is_address("gs://bucket/run"), is_address("gs:/bucket/run"), is_address("runs/mine")
      (True, True, False)
    """
    return _ADDRESS.fullmatch(text) is not None


def on_disk(given: str | os.PathLike[str], name: str) -> pathlib.Path:
    """The path that was given for ``name``, where a bucket's folder does not do.

    Raises:
      UsageError: as `expanded`, and for every address.

    Example:
      >>> on_disk("gs://bucket/data", "data.dir")
      Traceback (most recent call last):
      jsubspace.errors.UsageError: data.dir is 'gs://bucket/data', but it must be a path of the disk. Copy the files first.
    """
    text = expanded(given, name)
    if is_address(text):
        raise UsageError(f"{name} is {text!r}, but it must be a path of the disk. Copy the files first.")
    return pathlib.Path(text)


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


def _check_address(text: str, given: str) -> None:
    """Raises UsageError unless ``text`` names a folder or file in a bucket, in characters that every program takes there."""
    scheme = text.partition(":")[0]
    if scheme.lower() == "file":
        raise UsageError(f"{given}. Give the path itself, without the scheme.")
    if scheme.lower() != "gs":
        raise UsageError(
            f"{given}. The only addresses that work are gs://BUCKET/FOLDER, of Google Cloud Storage. Choose one of them, or a "
            "path of the disk."
        )
    if not text.startswith(BUCKET):
        raise UsageError(
            f"{given}. The address of a bucket's folder is gs://BUCKET/FOLDER, with two slashes. A pathlib.Path keeps only one "
            "of them: give the address as a string."
        )
    if not _FOLDER.fullmatch(text):
        raise UsageError(f"{given}, which does not name a bucket and a folder in it. Write gs://BUCKET/FOLDER.")
    if _SPECIAL.search(text) or {".", ".."} & set(text.removeprefix(BUCKET).split("/")):
        raise UsageError(
            f"{given}. In a bucket, a name must not have control characters or the characters * ? [ ] #, and no part of it may "
            "be '.' or '..'. Choose another folder."
        )


def _owner(text: str) -> str:
    user = text.partition("/")[0].removeprefix("~")
    return f"the user {user!r}" if user else "this user"
