"""Checks that the files of a checkpoint have not changed, by their sums in a file beside them.

Orbax itself notices some damage, but not a flipped bit in the notes or in an array that it did not compress.
``sha256sum -c SHA256SUMS`` checks a checkpoint by hand.

A bucket keeps the MD5 sums of its objects. There they are taken from the bucket, and nothing is downloaded to be checked. The
file is then ``MD5SUMS``. A checkpoint that was copied from a bucket to the disk, or the other way, is checked by the file that
it has.
"""

import hashlib
import pathlib

from jsubspace.storage import documents, files
from jsubspace.storage.bucket_files import md5_sums
from jsubspace.storage.places import in_bucket

SUMS = "SHA256SUMS"
SUMS_IN_BUCKET = "MD5SUMS"

SUMS_BYTES = 2**26
"""The largest size of `SUMS`: some hundred thousand files."""


def write(folder: pathlib.Path) -> None:
    """Writes `SUMS` into the folder, with a line for every file in its subfolders. Files beside them belong to Orbax."""
    if in_bucket(folder):
        known = md5_sums(folder)
        lines = [f"{known[name] or _sum(folder / name, 'md5')}  {name}\n" for name in _names(folder)]
        files.write_text(folder / SUMS_IN_BUCKET, "".join(lines))
    else:
        lines = [f"{_sum(folder / name, 'sha256')}  {name}\n" for name in _names(folder)]
        files.write_text(folder / SUMS, "".join(lines))


def damage(folder: pathlib.Path) -> str | None:
    """The damage to a folder since `write`, as a phrase for a message, or None if nothing has changed.

    Raises:
      BucketError: if the bucket does not answer. This says nothing about the checkpoint.
    """
    try:
        sums, kind = (SUMS_IN_BUCKET, "md5") if (folder / SUMS_IN_BUCKET).is_file() else (SUMS, "sha256")
        lines = documents.read_bytes(folder / sums, SUMS_BYTES).decode("utf-8").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        known = md5_sums(folder) if in_bucket(folder) and kind == "md5" else {}
        if not expected:
            return f"{sums} is empty"
        there = set(_names(folder))
        for name in sorted(there | expected.keys()):
            if name not in expected:
                return f"{name} does not belong to it"
            if name not in there:
                return f"{name} is missing"
            if (known.get(name) or _sum(folder / name, kind)) != expected[name]:
                return f"{name} is not what was written"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"
    return None


def _names(folder: pathlib.Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in files.all_files(folder))
    return sorted(name for name in names if "/" in name)


def _sum(path: pathlib.Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
