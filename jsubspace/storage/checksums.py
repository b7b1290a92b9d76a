"""Checks that the files of a checkpoint have not changed, by their SHA-256 in a file beside them.

Orbax itself notices some damage, but not a flipped bit in the notes or in an array that it did not compress.
``sha256sum -c SHA256SUMS`` checks a checkpoint by hand.
"""

import hashlib
import pathlib

from jsubspace.storage import files

SUMS = "SHA256SUMS"


def write(folder: pathlib.Path) -> None:
    """Writes `SUMS` into the folder, with a line for every file in its subfolders. Files beside them belong to Orbax."""
    lines = [f"{_sum(folder / name)}  {name}\n" for name in _names(folder)]
    files.write_text(folder / SUMS, "".join(lines))


def damage(folder: pathlib.Path) -> str | None:
    """The damage to a folder since `write`, as a phrase for a message, or None if nothing has changed."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        if not expected:
            return f"{SUMS} is empty"
        for name in expected | dict.fromkeys(_names(folder)):
            if name not in expected:
                return f"{name} does not belong to it"
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _sum(folder / name) != expected[name]:
                return f"{name} is not what was written"
    except (OSError, UnicodeDecodeError) as error:
        return f"it cannot be read: {error}"
    return None


def _names(folder: pathlib.Path) -> list[str]:
    files = (path for path in folder.glob("*/**/*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _sum(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
