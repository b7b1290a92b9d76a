"""The source text of Python's standard library as bytes: real text that every Python has on its disk.

The text differs between versions of Python, so a number that was measured with it needs the version beside it (`describe`).
"""

import hashlib
import pathlib
import platform
import sysconfig
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

FILES: Mapping[str, tuple[str, ...]] = {
    "train": (
        "argparse", "ast", "base64", "bdb", "calendar", "cmd", "codecs", "compileall", "configparser", "contextlib", "dataclasses",
        "difflib", "dis", "doctest", "enum", "fractions", "ftplib", "functools", "gzip", "heapq", "imaplib", "inspect", "ipaddress",
        "locale", "mailbox", "mimetypes", "optparse", "os", "pdb", "pickle", "pickletools", "pkgutil", "plistlib", "posixpath",
        "pprint", "profile", "pydoc", "random", "shutil", "site", "smtplib", "socket", "socketserver", "ssl", "statistics",
        "tarfile", "tempfile", "textwrap", "threading", "trace", "traceback", "typing", "uuid", "warnings", "wave", "weakref",
    ),
    "validation": ("csv", "fileinput", "gettext", "platform", "selectors", "timeit"),
    "test": ("_strptime", "modulefinder", "poplib", "pstats", "subprocess", "tokenize"),
}  # fmt: skip
"""The modules of each split. Every module is one file, in every Python from 3.11 to 3.14."""


def read(split: str, folder: pathlib.Path | None = None) -> np.ndarray:
    """The files of a split, one after the other, as bytes uint8 ``[n]``.

    Args:
      split: "train", "validation" or "test".
      folder: where the standard library is. By default, where this Python has it.

    Raises:
      ValueError: for an unknown split, or if this Python has no source text.

    Example:
      >>> read("test")[:22].tobytes()
      b'\"\"\"Strptime-related cl'
    """
    if split not in FILES:
        raise ValueError(f"there is no split {split!r}. The splits are {', '.join(FILES)}.")
    folder = pathlib.Path(sysconfig.get_path("stdlib")) if folder is None else folder
    parts = []
    for name in FILES[split]:
        try:
            parts.append((folder / f"{name}.py").read_bytes())
        except OSError as error:
            raise ValueError(
                f"{folder / f'{name}.py'} cannot be read ({error.strerror}). Use a Python of version 3.11 or later that has the "
                "source files of its standard library on the disk."
            ) from error
    return np.frombuffer(b"".join(parts).replace(b"\r\n", b"\n"), np.uint8)


def describe() -> str:
    """The version of Python, the bytes of each split and the start of their SHA-256: what a recorded number needs beside it."""
    texts = {split: read(split) for split in FILES}
    sums = ", ".join(
        f"{split} {len(text):,} bytes ({hashlib.sha256(text.tobytes()).hexdigest()[:8]})"
        for split, text in texts.items()
    )
    return f"Python {platform.python_version()}: {sums}"


def windows(batch_size: int, length: int) -> Callable[[jax.Array, jax.Array], tuple[jax.Array]]:
    """A ``draw`` of `fitting.steps`: ``(key, text) -> (tokens,)``, int32 ``[batch_size, length + 1]`` from random places."""

    def draw(key: jax.Array, text: jax.Array) -> tuple[jax.Array]:
        starts = jax.random.randint(key, (batch_size, 1), 0, len(text) - length)
        return (text[starts + jnp.arange(length + 1)].astype(jnp.int32),)

    return draw


def sequences(text: np.ndarray, length: int, count: int) -> np.ndarray:
    """``count`` pieces of the text at equal distances, int32 ``[count, length + 1]``: the inputs and, shifted by one, the labels.

    Raises:
      ValueError: if the text is too short for pieces that do not overlap.
    """
    if count * (length + 1) > len(text):
        raise ValueError(f"{count} pieces of {length + 1} bytes do not fit into a text of {len(text)} bytes.")
    starts = np.arange(count) * (len(text) // count)
    return text[starts[:, None] + np.arange(length + 1)].astype(np.int32)
