"""Every write, rename, deletion and new folder of this library. Orbax, TFDS and tensorboardX write files of their own.

A file appears under its name completely or not at all. Until it is complete, it is a partial file beside its place, named
``NAME.PID.partial``. The partial file is removed if anything fails. Only a process that is killed leaves one behind, and
whoever looks at a folder knows it as a leftover (`is_leftover`).

No write follows a symbolic link. A folder from a stranger could lead it out of the folder, or onto another file in it.

`bucket_files` does the same in a bucket (`places`), and says what is different there.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from jsubspace.storage import bucket_files
from jsubspace.storage.places import in_bucket

PARTIAL = ".partial"
"""The ending of a partial file or folder."""

_LEFTOVER = re.compile(r".+\.\d+\.partial|.+\.(json|jsonl|npz)\.partial")  # Former versions wrote no number.


def is_leftover(path: pathlib.Path) -> bool:
    """Whether this is a partial file or folder: of a write that is under way, or of a process that was killed.

    Example:
      >>> is_leftover(pathlib.Path("run/results.json.4711.partial")), is_leftover(pathlib.Path("run/results.json"))
      (True, False)
    """
    return _LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes the partial files and folders in a folder. The caller knows that nobody is writing there."""
    for path in folder.glob("*" + PARTIAL):
        if is_leftover(path):
            remove(path)


def is_unfinished(folder: pathlib.Path) -> bool:
    """Whether this is a folder of a bucket that a killed process did not fill, or did not remove, to the end."""
    return in_bucket(folder) and bucket_files.is_unfinished(folder)


def all_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files in a folder and in the folders in it, in order."""
    if in_bucket(folder):
        return bucket_files.all_files(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write. It replaces the file at ``path`` when the context is left, and is removed if an exception leaves it.

    Raises:
      OSError: if the file cannot be written.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers"
      >>> with new_file(path) as file:
      ...   _ = file.write(b"12")
      ...   path.exists()
      False
      >>> path.read_bytes()
      b'12'
    """
    if in_bucket(path):
        with bucket_files.new_file(path) as file:
            yield file
        return
    partial = _partial(path)
    try:
        remove(partial)  # A killed process may have had the same number.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(partial, path)
    finally:
        remove(partial)
    _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill. It gets the name ``path`` when the context is left, and is removed if an exception leaves it.

    Raises:
      OSError: if something exists at ``path``, or the folder cannot be written.
    """
    if in_bucket(path):
        with bucket_files.new_folder(path) as folder:
            yield folder
        return
    partial = _partial(path)
    try:
        remove(partial)
        os.mkdir(partial)
        yield partial
        os.rename(partial, path)
    finally:
        remove(partial)
    _sync(path.parent)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file completely or not at all."""
    with new_file(path) as file:
        file.write(content)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file of UTF-8 completely or not at all."""
    write_bytes(path, text.encode("utf-8"))


class Appended:
    """A file that grows by what is written to it. It is made if it does not exist.

    Nothing can be appended to an object in a bucket. There the whole file is kept in memory, and `sync` uploads it.
    """

    def __init__(self, path: pathlib.Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file: BinaryIO | bucket_files.Grown = (
            bucket_files.Grown(path) if in_bucket(path) else os.fdopen(os.open(path, flags, 0o666), "ab")
        )

    def write(self, content: bytes) -> None:
        """Adds bytes. A kill of this process cannot remove them, except in a bucket."""
        self._file.write(content)
        self._file.flush()

    def flush(self) -> None:
        """Does nothing: `write` leaves nothing in a buffer."""

    def sync(self) -> None:
        """Returns when the bytes are on the disk, or in the bucket."""
        if isinstance(self._file, bucket_files.Grown):
            self._file.upload()
        else:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Returns as `sync` does in a bucket. Nothing can be written later."""
        self._file.close()


def lock_file(path: pathlib.Path) -> BinaryIO:
    """A file to lock. It is made if it does not exist, and its content and existence mean nothing."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b")


def check_writable(folder: pathlib.Path) -> None:
    """Checks that files can be made in a folder. It leaves no trace.

    Raises:
      OSError: if they cannot.
    """
    if in_bucket(folder):
        bucket_files.check_writable(_partial(folder / "probe"))
        return
    try:
        os.close(os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600))  # A file that never gets a name.
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        probe = _partial(folder / "probe")  # Not every file system has files without a name.
        os.mkdir(probe)
        os.rmdir(probe)


def make_folder(path: pathlib.Path) -> None:
    """Makes a folder, and the folders above it, if it does not exist. In a bucket, the first file in it makes it."""
    if not in_bucket(path):
        path.mkdir(parents=True, exist_ok=True)


def rename(path: pathlib.Path, to: pathlib.Path) -> None:
    """Gives a file or folder another name in the same file system. A file may replace a file."""
    if in_bucket(path):
        bucket_files.rename(path, to)
    else:
        os.rename(path, to)


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link, or a folder with all that is in it. Nothing happens if there is nothing."""
    with contextlib.suppress(FileNotFoundError):
        if in_bucket(path):
            bucket_files.remove(path)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _partial(path: pathlib.Path) -> pathlib.Path:
    """Two processes that write the same file, for example a decoded data set, do not get into each other's way."""
    return path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")


def _sync(folder: pathlib.Path) -> None:
    """Returns when the names in a folder are on the disk, as far as the file system can do it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
