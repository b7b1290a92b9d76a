"""What `files` does in a bucket. Other modules use `files`, and `checksums` asks for the sums here.

A bucket holds objects. An object appears under its name when its upload ends, and is replaced as a whole, so no write needs a
partial file. A folder exists while an object's name begins with its path, and it cannot be renamed. It has the object
`UNFINISHED` in it as long as it is filled or removed. A kill leaves this object behind, and whoever reads the folder asks
`is_unfinished`.
"""

import contextlib
import errno
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

UNFINISHED = "unfinished.partial"
"""The name of the object in a folder that is not complete."""


def is_unfinished(folder: pathlib.Path) -> bool:
    """Whether a process was killed before it had filled the folder, or removed it, to the end."""
    return (folder / UNFINISHED).exists()


def all_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """All objects in a folder and in the folders in it, in order. It takes one request."""
    return [folder / name for name in sorted(md5_sums(folder))]


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file in memory. It is uploaded when the context is left, and forgotten if an exception leaves it."""
    file = io.BytesIO()
    yield file
    path.write_bytes(file.getvalue())


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill. It is finished when the context is left, and removed if an exception leaves it.

    Raises:
      FileExistsError: if a finished folder, or an object, has this name.
    """
    if path.exists() and not is_unfinished(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with contextlib.suppress(FileNotFoundError):
        remove(path)
    (path / UNFINISHED).write_bytes(b"")
    try:
        yield path
    except BaseException:
        remove(path)
        raise
    (path / UNFINISHED).unlink()


class Grown:
    """An object to which bytes were appended. All of it is kept in memory, and uploaded as a whole."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path, self._content = path, io.BytesIO()
        self._uploaded = self._content.write(path.read_bytes()) if path.exists() else 0

    def write(self, content: bytes) -> None:
        """Adds bytes. A kill of this process loses them."""
        self._content.write(content)

    def flush(self) -> None:
        """Does nothing: an upload per row would make training wait for the network."""

    def upload(self) -> None:
        """Uploads the object if it has grown."""
        if self._content.tell() > self._uploaded:
            self._uploaded = self._path.write_bytes(self._content.getvalue())

    def close(self) -> None:
        """Uploads the object if it has grown."""
        self.upload()


def check_writable(probe: pathlib.Path) -> None:
    """Checks that an object can be made, replaced and deleted, for these are different rights. It leaves no trace.

    Raises:
      OSError: if they cannot.
    """
    for content in (b"1", b"2"):
        probe.write_bytes(content)
    probe.unlink()


def rename(path: pathlib.Path, to: pathlib.Path) -> None:
    """Copies an object, or all objects of a folder, inside the bucket, and then deletes those with the old name.

    A kill leaves both. The old folder is then whole, or `is_unfinished`.
    """
    for source in all_files(path) or [path]:
        _bucket(source).copy(to / source.relative_to(path))
    remove(path)


def remove(path: pathlib.Path) -> None:
    """Deletes an object, or all objects of a folder. From the first deletion on, the folder `is_unfinished`.

    Raises:
      FileNotFoundError: if nothing has this name.
    """
    found = all_files(path)
    mark = path / UNFINISHED
    if not found:
        path.unlink()
        return
    mark.write_bytes(b"")
    for file in found:
        if file != mark:
            file.unlink(missing_ok=True)
    mark.unlink()


def md5_sums(folder: pathlib.Path) -> dict[str, str | None]:
    """What the bucket knows of every object in a folder and in the folders in it: see `bucket_paths.BucketPath.objects`."""
    return _bucket(folder).objects()


def _bucket(path: pathlib.Path) -> Any:
    """The same path, with the methods that a path of the disk lacks."""
    return path
