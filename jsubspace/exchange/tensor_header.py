"""The header of a safetensors file, checked before memory is taken for an array.

The first eight bytes are the length of the header, which is JSON: the dtype, the shape and the place of every array.
"""

import math
import os
import pathlib
from typing import Any, NamedTuple

from jsubspace import machine
from jsubspace.storage import documents
from jsubspace.storage.schema import Listed, Mismatch, OneOf, Record, Whole

HEADER_BYTES = 2**26
"""The largest size of a header: some hundred thousand arrays."""

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8,
    "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""The size of a number of each dtype that a network may have. Numpy lacks the floats of eight and four bits."""

_METADATA = "__metadata__"

_ARRAY = Record(
    {
        "dtype": OneOf(tuple(ITEM_BYTES)),
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


def metadata(path: pathlib.Path) -> dict[str, str]:
    """The metadata of a file, after its header has been checked. Its arrays must fit into the memory of this machine.

    Raises:
      ValueError: if the file is something else.
      OSError: if the file cannot be read.
    """
    header = read(path)
    total = sum(array["data_offsets"][1] - array["data_offsets"][0] for array in header.arrays.values())
    available = machine.memory()
    if available is not None and total > available:
        raise Mismatch(f"it has {total / 2**30:.1f} GiB of arrays, and this machine has {available / 2**30:.1f} GiB")
    return header.texts


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
        if end - start != math.prod(array["shape"]) * ITEM_BYTES[array["dtype"]]:
            raise Mismatch(f"{name[:200]!r} has {end - start} bytes, which is not the size of its shape and dtype")
    total = sum(array["data_offsets"][1] - array["data_offsets"][0] for array in header.values())
    if total != size:
        raise Mismatch(f"it has {size} bytes of arrays, and its header says {total}")
    return Header(texts, header, 8 + length)
