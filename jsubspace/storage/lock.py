"""Keeps a run's folder to one process at a time, and refuses links that lead out of it."""

import contextlib
import errno
import logging
import os
import pathlib
import platform
from collections.abc import Iterator

from jsubspace.errors import UsageError
from jsubspace.storage import files, folders
from jsubspace.storage.documents import from_json, to_json
from jsubspace.storage.places import in_bucket
from jsubspace.storage.schema import Record, Text, Whole

log = logging.getLogger(__name__)

LOCK = ".lock"

_OWNER_BYTES = 1000

_OWNER = Record({"pid": Whole(0), "host": Text()})

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def alone(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of the existing folder ``workdir`` until the context is left or the process ends.

    It uses the kernel's lock of an open file. The lock of a killed process vanishes with the process. The file stays, and
    its existence means nothing. On a file system without such locks (some network file systems) and in a bucket it only warns.

    Raises:
      UsageError: if another process holds the lock. The message names the process. Also if a symbolic link inside the
        folder points outside it, so that a downloaded run cannot redirect our writes.
    """
    if in_bucket(workdir):
        log.warning("a bucket has no locks: do not start two runs in %s.", workdir)
        files.remove_leftovers(workdir)
        yield
        return
    _refuse_links(workdir)
    try:
        import fcntl
    except ImportError:  # Windows
        log.warning("this system has no file locks: do not start two runs in %s.", workdir)
        yield
        return
    try:
        file = files.lock_file(workdir / LOCK)
    except OSError as error:
        raise folders.cannot_write(workdir, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{workdir} is in use by {_owner(file.read(_OWNER_BYTES))}. Wait for it or end it, or choose another --workdir."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning("the file system of %s has no file locks: do not start two runs in it.", workdir)
        try:
            files.remove_leftovers(workdir)  # Nobody else writes here now. They may be what fills the disk.
            file.truncate(0)
            file.write(to_json({"pid": os.getpid(), "host": platform.node()}).encode("utf-8"))
            file.flush()
        except OSError as error:
            raise folders.cannot_write(workdir, error) from error
        yield


def _refuse_links(workdir: pathlib.Path) -> None:
    inside = workdir.resolve()
    for path in (*workdir.glob("*"), *workdir.glob("*/*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UsageError(
                f"{path} is a link out of the run's folder, to {path.resolve()}. Replace the link by the file or folder itself. "
                "To have a run elsewhere, let --workdir itself be a link."
            )


def _owner(content: bytes) -> str:
    try:
        owner = from_json(content)
        _OWNER.check(owner, LOCK)
    except ValueError:
        return "another process"
    return f"process {owner['pid']} on {owner['host'][:100]}"
