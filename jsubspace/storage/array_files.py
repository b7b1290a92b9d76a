"""Files of arrays, as `numpy.savez` writes them, from somebody who may be a stranger.

The header of every array is checked before memory is taken for it. Pickles are never read. `numpy.savez` does not compress,
so a compressed array is refused: a few bytes could stand for terabytes.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from jsubspace.storage.schema import Mismatch


@dataclasses.dataclass(frozen=True)
class Array:
    """What an array must be.

    Attributes:
      dtype: its dtype, or "U" for text of any length.
      shape: its shape, with None for an axis of any length.
    """

    dtype: str
    shape: tuple[int | None, ...]

    def check(self, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> None:
        """Raises `Mismatch` for another dtype or shape."""
        is_dtype = dtype.kind == "U" if self.dtype == "U" else dtype == np.dtype(self.dtype)
        is_shape = len(shape) == len(self.shape) and all(
            want in (None, size) for want, size in zip(self.shape, shape, strict=True)
        )
        if not is_dtype or not is_shape or dtype.hasobject:
            wanted = ", ".join("any" if size is None else str(size) for size in self.shape)
            raise Mismatch(f"{name} is {dtype}{list(shape)}, and must be {self.dtype}[{wanted}]")


def read(path: pathlib.Path, arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """The declared arrays of a file, by name.

    Raises:
      ValueError: if the file is damaged, lacks an array, or has an array of another dtype or shape.
      OSError: if the file cannot be read.
    """
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as file:
            return {name: _read_one(file, name, wanted) for name, wanted in arrays.items()}
    except (
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
        MemoryError,
    ) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _read_one(file: zipfile.ZipFile, name: str, wanted: Array) -> np.ndarray:
    """One array. The sizes of the directory of a zip file are true for what is stored without compression."""
    info = file.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise Mismatch(f"{name} is compressed, and must be stored as it is")
    with file.open(info) as member:
        dtype, shape, in_fortran_order, header = _header(member)
        wanted.check(dtype, shape, name)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if in_fortran_order or header + size != info.file_size:
            raise Mismatch(f"{name} has {info.file_size} bytes, which is not what its header says")
        content = member.read()  # The checksum of the zip file is compared at its end.
    return np.frombuffer(content, dtype).reshape(shape).copy()


def _header(member: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """The dtype, the shape, whether the order is Fortran's, and the number of bytes of a header."""
    version = np.lib.format.read_magic(member)
    if version != (1, 0):
        raise Mismatch(f"an array has a header of version {version}, and must have version (1, 0)")
    shape, in_fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
    if any(size < 0 for size in shape):
        raise Mismatch(f"an array has the shape {list(shape)}")
    return dtype, shape, in_fortran_order, member.tell()
