"""The data that a compiled program sends between devices, read from its text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8, "s8": 1, "u8": 1}
_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\((.*)$", re.MULTILINE)
SHAPE = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
"""The dtype and dimensions of an array in a program's text."""
_CHAIN = re.compile(r'chain_id="(\d+)"')
# The devices that communicate are listed, given as "groups, devices in each", or (jax 0.12) by a mesh and some of its axes.
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]|mesh\[([^\]]*)\] *\{([^}]*)\})")
_AXIS = re.compile(r"'(\w+)'=(\d+)")


class Collective(NamedTuple):
    """One instruction that communicates.

    Attributes:
      kind: one of `KINDS`.
      numbers: the size of the whole arrays, which are reduced, have been gathered, or will be scattered.
      bytes: the same size in bytes.
    """

    kind: str
    numbers: int
    bytes: int

    @property
    def wire(self) -> int:
        """Bytes on the wire: an all-reduce is a scatter and a gather and counts twice, other kinds count once."""
        return 2 * self.bytes if self.kind == "all-reduce" else self.bytes


def collectives(program: str) -> list[Collective]:
    """Every collective in the text of a compiled program, ``compiled.as_text()``. A collective in a loop counts once.

    Example:
      >>> collectives("  %r = f32[4,2]{1,0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add")
      [Collective(kind='all-reduce', numbers=8, bytes=32)]
    """
    found, chains = [], set()
    for result, kind, start, rest in _INSTRUCTION.findall(program):
        # A TPU overlaps a collective with computation by cutting it into steps, and writes each step as the whole.
        if chain := _CHAIN.search(rest):
            if (kind, chain.group(1)) in chains:
                continue
            chains.add((kind, chain.group(1)))
        shapes = SHAPE.findall(result)
        if start and kind in ("all-gather", "collective-permute", "all-to-all"):
            shapes = shapes[len(shapes) // 2 :]  # A start returns its operands and the results.
        if start and kind == "reduce-scatter":
            shapes = shapes[: len(shapes) // 2]
        parts = _group_size(rest) if kind == "reduce-scatter" and not start else 1
        numbers = parts * sum(_count(dims) for _, dims in shapes)
        found.append(Collective(kind, numbers, parts * sum(size_of(dtype, dims) for dtype, dims in shapes)))
    return found


def size_of(dtype: str, dims: str) -> int:
    """Bytes of an array that `SHAPE` has matched."""
    return _count(dims) * _BYTES.get(dtype, 4)


def _count(dims: str) -> int:
    return math.prod(int(n) for n in dims.split(",") if n)


def _group_size(attributes: str) -> int:
    listed, counted, mesh, axes = _GROUPS.search(attributes).groups()  # type: ignore[union-attr]
    if mesh:
        return math.prod(int(size) for name, size in _AXIS.findall(mesh) if f"'{name}'" in axes)
    return int(counted) if counted else len(listed.split(","))
