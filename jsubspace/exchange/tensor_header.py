"""Safetensors files: the header, checked before memory is taken for an array, and a writer that copies no network.

The first eight bytes are the length of the header, which is JSON: the dtype, the shape and the place of every array.
"""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from jsubspace import machine
from jsubspace.storage import documents, files
from jsubspace.storage.schema import Listed, Mismatch, OneOf, Record, Whole

HEADER_BYTES = 2**26
"""The largest size of a header: some hundred thousand arrays."""

DTYPES: Mapping[str, np.dtype[Any]] = {
    name: jnp.dtype(dtype)
    for name, dtype in {
        "F64": "float64", "I64": "int64", "U64": "uint64", "C64": "complex64",
        "F32": "float32", "I32": "int32", "U32": "uint32",
        "F16": "float16", "BF16": "bfloat16", "I16": "int16", "U16": "uint16",
        "I8": "int8", "U8": "uint8", "BOOL": "bool",
        "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
        "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    }.items()
}  # fmt: skip
"""The dtypes that an array may have. Dtypes of four bits are missing, because two numbers share a byte."""

_METADATA = "__metadata__"

_ARRAY = Record(
    {
        "dtype": OneOf(tuple(DTYPES)),
        "shape": Listed(Whole(0), most=32),  # Numpy has no array of more axes.
        "data_offsets": Listed(Whole(0), 2, 2),
    }
)


class Header(NamedTuple):
    """What the header of a file says.

    Attributes:
      texts: the metadata.
      arrays: for every array its ``dtype``, ``shape`` and ``data_offsets``, which count from ``start``.
      start: the place of the first byte behind the header.
    """

    texts: dict[str, str]
    arrays: dict[str, dict[str, Any]]
    start: int


def check_memory(header: Header) -> None:
    """Raises a ValueError if the arrays of a file do not fit into the memory of this machine."""
    total = sum(array["data_offsets"][1] - array["data_offsets"][0] for array in header.arrays.values())
    available = machine.memory()
    if available is not None and total > available:
        raise Mismatch(f"it has {total / 2**30:.1f} GiB of arrays, and this machine has {available / 2**30:.1f} GiB")


def read(path: pathlib.Path) -> Header:
    """The header of a file, checked. Nothing else is read.

    Raises:
      ValueError: if the file is something else.
      OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES:
            raise Mismatch(f"its header has {length} bytes, and may have {HEADER_BYTES} at most")
        header = documents.from_json(file.read(length))
        size = file.seek(0, os.SEEK_END) - 8 - length
    Record({}, {_METADATA: Record({})}, others=_ARRAY).check(header, "its header")
    texts: dict[str, str] = header.pop(_METADATA, {})
    if not all(isinstance(text, str) for text in texts.values()):
        raise Mismatch("its metadata is not text")
    for name, array in header.items():
        start, end = array["data_offsets"]
        if end - start != math.prod(array["shape"]) * DTYPES[array["dtype"]].itemsize:
            raise Mismatch(f"{name[:200]!r} has {end - start} bytes, which is not the size of its shape and dtype")
    total = sum(array["data_offsets"][1] - array["data_offsets"][0] for array in header.values())
    if total != size:
        raise Mismatch(f"it has {size} bytes of arrays, and its header says {total}")
    return Header(texts, header, 8 + length)


def array(file: BinaryIO, header: Header, name: str) -> np.ndarray:
    """One array of an open file.

    Raises:
      ValueError: if the file ends before the array does.
      OSError: if the file cannot be read.
    """
    about = header.arrays[name]
    found = np.empty(about["shape"], DTYPES[about["dtype"]])
    content = contents(found)
    file.seek(header.start + about["data_offsets"][0])
    done = 0
    while done < len(content):  # One read has a limit of 2 GiB.
        more = file.readinto(content[done:])  # type: ignore[attr-defined]
        if not more:
            raise Mismatch(f"{name[:200]!r} lies behind its end")
        done += more
    return found


def write(path: pathlib.Path, arrays: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Writes a file completely or not at all. Arrays of devices are copied to the host one after the other.

    Args:
      path: the file. A file that exists is replaced.
      arrays: arrays by name, of the `DTYPES`.
      texts: the metadata.

    Raises:
      OSError: if the file cannot be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    # Every array then begins at a multiple of the size of its numbers, as readers that map the file into memory need it.
    in_order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(texts)} if texts else {}
    end = 0
    for name in in_order:
        dtype, shape = np.dtype(arrays[name].dtype), list(arrays[name].shape)
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": shape, "data_offsets": [start, end]}
    text = documents.to_json(header).encode()
    text += b" " * (-len(text) % 8)
    with files.new_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in in_order:
            file.write(contents(arrays[name]))


def contents(array: Any) -> memoryview:
    """The bytes of an array in the order of C, which is copied only if it has another order or lies on a device."""
    flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memoryview(flat)
