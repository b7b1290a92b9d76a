"""Where the bytes of a compiled step go: ``python -m experiments.account PROGRAM OTHER``.

The two files are texts that `bench_tpu` wrote with --programs. The table has one row per kind of operation, with the
megabytes that it reads and writes in one program and in the other. A fusion reads its operands (or the slices that it
takes of them) and writes its results. A copy or slice into the chip's fast memory counts twice, once read and once
written. The compiler's own count (`bench_tpu`, bytes accessed) is a few per cent higher, because it includes loops and
calls.

The last column is the part of the difference that goes to or from the chip's main memory. The compiler copies many
operands into fast memory before they are needed. It counts such an operand three times: read from main memory, written
to fast memory, and read from fast memory.
"""

import argparse
import collections
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from experiments.lib.collectives import SHAPE, size_of
from jsubspace import program
from jsubspace.errors import UsageError

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][\w-]*)\((.*)$")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id")
_PREFETCHED = ("copy-done", "slice-done")
_LAYOUT = re.compile(SHAPE.pattern + r"(?:\{([^{}]*)\})?")
_FAST = "S(1)"


class Use(NamedTuple):
    """The number of operations of a kind, the bytes that they move, and how many of these bytes are in main memory."""

    count: int
    bytes: int
    main: int


NONE = Use(0, 0, 0)


class Move(NamedTuple):
    """An instruction that reads or writes arrays.

    Attributes:
      name, operation, rest: its name, its kind, and the text behind the kind.
      read: the bytes of each operand, or of the slice that is taken, in main memory.
      written: the bytes of each result in main memory.
      use: the sum, with fast memory too.
    """

    name: str
    operation: str
    rest: str
    read: tuple[int, ...]
    written: tuple[int, ...]
    use: Use


def account(text: str) -> dict[str, Use]:
    """The bytes by kind of operation in the entry computation of a compiled program.

    Args:
      text: ``compiled.as_text()``.

    Returns:
      For every kind its `Use`. Fusions of the network (forward and backward) are "network". Other fusions have the name
      of their last operation: an update is ``fusion: add``.

    Example:
      >>> account("ENTRY %main (p: f32[4]) -> f32[4] {\\n  %p = f32[4] parameter(0)\\n  ROOT %r = f32[4] negate(%p)\\n}")
      {'negate': Use(count=1, bytes=32, main=32)}
    """
    uses: dict[str, Use] = collections.defaultdict(lambda: NONE)
    for each in moves(text):
        kind = _kind(each.operation, each.rest)
        uses[kind] = _sum(uses[kind], each.use)
    return dict(uses)


def moves(text: str) -> Iterator[Move]:
    """The instructions of the entry computation that read or write arrays."""
    if "ENTRY " not in text:
        raise UsageError("this is not the text of a compiled program. Write one with bench_tpu --programs=FOLDER.")
    arrays: dict[str, Use] = {}
    sources: dict[str, str] = {}
    sliced = _sliced_parameters(text)
    for line in text[text.index("ENTRY ") :].splitlines()[1:]:
        if not (match := _INSTRUCTION.match(line)):
            continue
        name, shape, operation, rest = match.groups()
        operands = re.findall(r"%([\w.\-]+)", _operands(rest))
        arrays[name] = _array(shape)
        if operation.endswith("-start"):
            sources[name] = operands[0]
        if operation in _FREE or operation.endswith("-start") or "AllocateBuffer" in rest:
            continue
        if operation in _PREFETCHED:
            size, source = arrays[name].bytes, arrays.get(sources.get(operands[0], ""), NONE)
            read = [Use(1, size, size if source.main else 0)]
            use = Use(1, 2 * size, arrays[name].main + read[0].main)
        else:
            called = re.search(r"calls=%([\w.\-]+)", rest)
            slices = sliced.get(called.group(1), {}) if called else {}
            read = [_part(arrays.get(operand, NONE), slices.get(i)) for i, operand in enumerate(operands)]
            use = _sum(arrays[name], *read)._replace(count=1)
        yield Move(name, operation, rest, tuple(each.main for each in read), _main_parts(shape), use)


def table(first: dict[str, Use], second: dict[str, Use], least: int = 1_000_000) -> str:
    """Two accounts side by side in Markdown. Kinds that differ by fewer bytes than ``least`` are added up."""
    kinds = sorted({*first, *second}, key=lambda kind: first.get(kind, NONE).bytes - second.get(kind, NONE).bytes)
    lines = [
        "| | MB | operations | other MB | operations | difference | in main memory |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rest = [NONE, NONE]
    for kind in kinds:
        pair = [first.get(kind, NONE), second.get(kind, NONE)]
        if abs(pair[1].bytes - pair[0].bytes) < least:
            rest = [_sum(*uses) for uses in zip(rest, pair, strict=True)]
        else:
            lines.append(_row(kind, *pair))
    total = [_sum(*uses.values()) for uses in (first, second)]
    return "\n".join([*lines, _row("all that differ less", *rest), _row("total", *total)])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.account", description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("other", type=pathlib.Path)
    arguments = parser.parse_args()
    texts = []
    for path in (arguments.program, arguments.other):
        if not path.is_file():
            raise UsageError(f"there is no file {path}. Write programs with bench_tpu --programs=FOLDER.")
        texts.append(path.read_text(encoding="utf-8"))
    first, second = map(account, texts)
    print(table(first, second))
    one, other = _sum(*first.values()), _sum(*second.values())
    print(f"\nratio of the bytes: {other.bytes / one.bytes:.4f}, in main memory alone: {other.main / one.main:.4f}")


def _array(shape: str) -> Use:
    """The bytes of an instruction's result, and how many of them lie in main memory."""
    return Use(0, sum(size_of(dtype, dims) for dtype, dims, _ in _LAYOUT.findall(shape)), sum(_main_parts(shape)))


def _main_parts(shape: str) -> tuple[int, ...]:
    """The bytes of each array of a result that lies in main memory."""
    return tuple(size_of(dtype, dims) for dtype, dims, layout in _LAYOUT.findall(shape) if _FAST not in layout)


def _sliced_parameters(text: str) -> dict[str, dict[int, int]]:
    """For every computation, the places of the parameters that it only slices, with the bytes of their slices."""
    found: dict[str, dict[int, int]] = {}
    for name, body in re.findall(r"^%(\S+) \(.*?\{$(.*?)^\}$", text, re.MULTILINE | re.DOTALL):
        places = {name: int(place) for name, place in re.findall(r"%(\S+) = \S+ parameter\((\d+)\)", body)}
        taken: dict[str, list[int]] = {parameter: [] for parameter in places}
        for line in body.splitlines():
            if match := _INSTRUCTION.match(line):
                _, shape, operation, rest = match.groups()
                first, *others = re.findall(r"%([\w.\-]+)", _operands(rest)) or [""]
                for parameter in {first, *others} & taken.keys():
                    is_slice = operation in ("slice", "dynamic-slice") and parameter not in others
                    taken[parameter].append(_array(shape).bytes if is_slice else -1)
        found[name] = {places[p]: sum(sizes) for p, sizes in taken.items() if sizes and min(sizes) >= 0}
    return found


def _part(array: Use, size: int | None) -> Use:
    """``size`` bytes of an array, or the whole array if ``size`` is None or not smaller."""
    if size is None or size >= array.bytes:
        return array
    return Use(0, size, size if array.main else 0)


def _sum(*uses: Use) -> Use:
    return Use(*map(sum, zip(NONE, *uses, strict=True)))


def _operands(rest: str) -> str:
    """The text before the parenthesis that closes the operation."""
    depth = 1
    for i, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return rest[:i]
    return rest


def _kind(operation: str, rest: str) -> str:
    name = re.search(r'op_name="([^"]*)"', rest)
    if operation == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', rest)
        return target.group(1) if target else operation
    if operation != "fusion" or not name:
        return operation
    return "network" if "ResNet" in name[1] else f"fusion: {name[1].rpartition('/')[2]}"


def _row(kind: str, first: Use, second: Use) -> str:
    megabytes = [f"{use.bytes / 1e6:.1f} | {use.count}" for use in (first, second)]
    differences = [f"{(b - a) / 1e6:+.1f}" for a, b in ((first.bytes, second.bytes), (first.main, second.main))]
    return f"| {kind} | {' | '.join([*megabytes, *differences])} |"


if __name__ == "__main__":
    program.run(main)
