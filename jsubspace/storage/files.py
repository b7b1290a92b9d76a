"""Every write, rename, deletion and new folder of this library. Orbax, TFDS, tensorboardX and
huggingface-hub write files of their own.

A file appears under its name completely or not at all. Until it is complete, it is a partial file beside its place, named
``NAME.NUMBER.partial``. The partial file is removed if anything fails. Only a process that is killed leaves one behind, and
whoever looks at a folder knows it as a leftover (`is_leftover`). The next write of the same file removes it.

No write follows a symbolic link. A folder from a stranger could lead it out of the folder, or onto another file in it.

`bucket_files` does the same in a bucket (`places`), and says what is different there.
"""

import contextlib
import errno
import os
import pathlib
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from jsubspace.storage import bucket_files
from jsubspace.storage.places import in_bucket

PARTIAL = ".partial"
"""The ending of a partial file or folder."""

_LEFTOVER = re.compile(r".+\.\d+\.partial|.+\.(json|jsonl|npz)\.partial")  # Former versions wrote no number.

_NUMBERED = re.compile(r"\.\d+\.partial")


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
    with _partial(path, _create) as (partial, descriptor):
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(partial, path)
    _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill. It gets the name ``path`` when the context is left, and is removed if an exception leaves it.

    Raises:
      OSError: if a file, or a folder that is not empty, exists at ``path``, or the folder cannot be written.
    """
    if in_bucket(path):
        with bucket_files.new_folder(path) as folder:
            yield folder
        return
    with _partial(path, _create_folder) as (partial, _):
        yield partial
        os.rename(partial, path)
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
        bucket_files.check_writable(_unused_name(folder / "probe"))
        return
    try:
        nameless = getattr(
            os, "O_TMPFILE", 0
        )  # A file that never gets a name. Without it, a folder cannot be opened so.
        os.close(os.open(folder, os.O_WRONLY | nameless | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        probe = _unused_name(folder / "probe")  # Not every file system has files without a name.
        os.mkdir(probe)
        os.rmdir(probe)


def make_folder(path: pathlib.Path) -> None:
    """Makes a folder, and the folders above it, if it does not exist. In a bucket, the first file in it makes it."""
    if not in_bucket(path):
        os.makedirs(path, exist_ok=True)


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
            _remove_folder(path)
        else:
            os.unlink(path)


def _remove_folder(path: pathlib.Path) -> None:
    """Removes a folder. Threads of a save that has failed may still be making and removing files in it, for seconds."""
    for left in range(49, -1, -1):
        try:
            return shutil.rmtree(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or not path.exists() or not left:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def _partial(path: pathlib.Path, create: Callable[[pathlib.Path], int]) -> Iterator[tuple[pathlib.Path, int]]:
    """A partial file or folder for ``path``, and its descriptor. Nothing is left of it after the context.

    Two processes that write the same file, for example a decoded data set, do not get into each other's way. Numbers of
    processes would not keep them apart: they are equal in many containers.
    """
    for leftover in path.parent.glob("*" + PARTIAL):
        if _NUMBERED.fullmatch(leftover.name.removeprefix(path.name)):
            _remove_if_abandoned(leftover)
    with contextlib.ExitStack() as undo:
        undo.enter_context(_named(path))
        while True:
            partial = _unused_name(path)
            undo.callback(remove, partial)
            descriptor = create(partial)
            undo.callback(os.close, descriptor)
            _lock(descriptor, wait=True)
            if partial.exists():
                break  # Otherwise another process has taken it for abandoned before it was locked.
        yield partial, descriptor


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Gives an error of writing the name of the file that it is about. It has none, or the name of the partial file."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).endswith(PARTIAL)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _unused_name(path: pathlib.Path) -> pathlib.Path:
    """The name of a partial file that no other process uses. It does not touch the numbers that a program draws."""
    return path.with_name(f"{path.name}.{random.SystemRandom().randrange(10**9)}{PARTIAL}")


def _create(partial: pathlib.Path) -> int:
    return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _create_folder(partial: pathlib.Path) -> int:
    os.mkdir(partial)
    return os.open(partial, os.O_RDONLY | os.O_CLOEXEC)


def _lock(descriptor: int, wait: bool) -> bool:
    """Locks a partial file while its process writes it, as far as the system can. The lock vanishes with the process."""
    with contextlib.suppress(ImportError, OSError):  # Windows, and file systems without locks
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _remove_if_abandoned(partial: pathlib.Path) -> None:
    """Removes a partial file or folder whose process has died, on whatever machine."""
    with contextlib.suppress(OSError):  # Another process removes it, or only its owner may do it.
        descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if _lock(descriptor, wait=False):
                remove(partial)
        finally:
            os.close(descriptor)


def _sync(folder: pathlib.Path) -> None:
    """Returns when the names in a folder are on the disk, as far as the file system can do it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
