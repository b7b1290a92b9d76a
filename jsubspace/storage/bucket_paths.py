"""Paths in a bucket of Google Cloud Storage.

A bucket holds objects and no folders. A folder exists while an object's name begins with its path. An object appears when
its upload ends, and it is replaced as a whole. All processes then see it. Nothing can be appended to an object, and no
folder can be renamed.
"""

import base64
import contextlib
import functools
import logging
import os
import posixpath
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

# TensorFlow, which only prepares data, would otherwise read and write buckets in the place of gcsfs.
os.environ.setdefault("EPATH_USE_TF", "false")

import fsspec
from etils import epath

from jsubspace.errors import BucketError, one_line

# Objects that TensorStore writes are not seen by gcsfs, which would keep its own lists of a bucket's objects for ever.
fsspec.spec.conf.setdefault("gcs", {})["use_listings_cache"] = False

logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # It logs a traceback of every error that it also raises.

Method = TypeVar("Method", bound=Callable[..., Any])

_Path: Any = type(epath.Path("gs://bucket"))


def _told(method: Method) -> Method:
    """The method, with a `BucketError` in the place of the many exceptions of gcsfs."""

    @functools.wraps(method)
    def told(self: "BucketPath", *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except (FileNotFoundError, BucketError):
            raise
        except Exception as error:
            raise BucketError(_message(self, error)) from error

    return told  # type: ignore[return-value]


class BucketPath(_Path):
    """A path like ``gs://bucket/run``, with the methods of `pathlib.Path` that this library and Orbax use.

    Where epath would answer that a file does not exist because the bucket refuses or the network is down, these methods
    raise `BucketError`. A run must never take such an answer for an empty folder, and start again from nothing.
    """

    @_told
    def exists(self) -> bool:
        """Whether an object or folder has this name."""
        return self._info() is not None

    @_told
    def is_dir(self) -> bool:
        """Whether the name of an object begins with this path and a slash."""
        info = self._info()
        return info is not None and info["type"] == "directory"

    @_told
    def is_file(self) -> bool:
        """Whether an object has this name."""
        info = self._info()
        return info is not None and info["type"] != "directory"

    def is_symlink(self) -> bool:
        """False: a bucket has no links."""
        return False

    def absolute(self) -> "BucketPath":
        """The path itself."""
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        """The path itself."""
        return self

    @_told
    def iterdir(self) -> Iterator["BucketPath"]:
        """What is in the folder."""
        return iter(list(super().iterdir()))

    @_told
    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """What matches a pattern without ``**``."""
        return iter(list(super().glob(pattern)))

    @_told
    def objects(self) -> dict[str, str | None]:
        """The MD5 sum, which the bucket keeps, of every object in this folder and the folders in it, by its path from here.

        It takes one request and reads no object. An object that was put together from several others has no sum.
        """
        with contextlib.suppress(FileNotFoundError):
            found = _files().find(str(self), detail=True)
            root = str(self).removeprefix("gs://")
            return {
                posixpath.relpath(name, root): base64.b64decode(info["md5Hash"]).hex() if "md5Hash" in info else None
                for name, info in found.items()
                if name.startswith(f"{root}/")  # An object of the same name as the folder is no part of it.
            }
        return {}

    @_told
    def read_bytes(self) -> bytes:
        """The content of the object."""
        return _files().cat_file(str(self))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The content of the object as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    @_told
    def open(self, mode: str = "r", **options: Any) -> Any:
        """The object as a file."""
        return super().open(mode, **options)

    @_told
    def write_bytes(self, content: bytes) -> int:
        """Uploads an object, which replaces the object of this name when the upload ends."""
        _files().pipe_file(str(self), content)
        return len(content)

    @_told
    def copy(self, to: "BucketPath", overwrite: bool = True) -> "BucketPath":
        """Lets the bucket copy an object."""
        _files().cp_file(str(self), str(to))
        return to

    @_told
    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes an object."""
        with contextlib.suppress(*([FileNotFoundError] if missing_ok else [])):
            _files().rm_file(str(self))

    def _info(self) -> dict[str, Any] | None:
        try:
            return _files().info(str(self))
        except FileNotFoundError:
            return None


def _files() -> Any:
    """The file system of all buckets: the object that epath uses."""
    return fsspec.filesystem("gcs", finalize_on_close=True)


def _message(path: BucketPath, error: Exception) -> str:
    text = one_line(error).rstrip(".")
    if any(word in text for word in ("401", "403", "Forbidden", "Unauthorized", "redential", "Anonymous")):
        return (
            f"{path}: the bucket refuses ({text}). Log in (gcloud auth application-default login), or ask the bucket's owner for "
            "the right to read, write and delete objects."
        )
    return f"{path}: the bucket does not answer ({text}). Run the same command again when it does."
