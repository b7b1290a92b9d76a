"""Where files are: on the disk, or in a bucket of Google Cloud Storage."""

import importlib.util
import os
import pathlib
import typing

from jsubspace import paths
from jsubspace.errors import UsageError


def located(given: str | os.PathLike[str], name: str) -> pathlib.Path:
    """The path that was given for ``name``: of the disk, or of a bucket if it is an address like ``gs://bucket/run``.

    The path of a bucket has the methods of `pathlib.Path` that read, and is no `pathlib.Path` (`bucket_paths.BucketPath`).
    Whatever changes files goes through `files`, which knows both.

    Raises:
      UsageError: as `paths.expanded`, or if the package for buckets is not installed.

    Example:
      >>> located("runs/mine", "--workdir").name
      'mine'
    """
    text = paths.expanded(given, name)
    if not paths.is_address(text):
        return pathlib.Path(text)
    if importlib.util.find_spec("gcsfs") is None:
        raise UsageError(
            f"{name} is {text!r}, and folders in buckets need the package gcsfs. Install it (pip install gcsfs), or choose a "
            "path of the disk."
        )
    from jsubspace.storage.bucket_paths import BucketPath

    return typing.cast(pathlib.Path, BucketPath(text))


def in_bucket(path: pathlib.Path) -> bool:
    """Whether a path of `located` is a bucket's."""
    return not isinstance(path, pathlib.Path)
