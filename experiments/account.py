"""Where the bytes of a compiled step go: ``python -m experiments.account PROGRAM OTHER``.

The two are texts that `bench_tpu` wrote with --programs. For every kind of operation, the megabytes that are read and
written in one and in the other: of a fusion its operands and results, of a copy or slice into the chip's fast memory what it
moves, twice. What the compiler itself counts (`bench_tpu`, bytes accessed) is a few per cent more: loops and calls.
"""

import argparse
import collections
import pathlib
import re
from typing import NamedTuple

from experiments.collectives import SHAPE, size_of
from jsubspace import program
from jsubspace.errors import UsageError

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][\w-]*)\((.*)$")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id")
_PREFETCHED = ("copy-done", "slice-done")


class Use(NamedTuple):
    """What operations of a kind move: their number, and bytes."""

    count: int
    bytes: int


def account(text: str) -> dict[str, Use]:
    """Bytes by kind of operation, of the entry computation of a compiled program.

    Args:
      text: ``compiled.as_text()``.

    Returns:
      For every kind its `Use`. Fusions of the network (forward and backward) are "network"; others have the name of
      their last operation, as "update" would be ``fusion: add``.

    Example:
      >>> account("ENTRY %main (p: f32[4]) -> f32[4] {\\n  %p = f32[4] parameter(0)\\n  ROOT %r = f32[4] negate(%p)\\n}")
      {'negate': Use(count=1, bytes=32)}
    """
    if "ENTRY " not in text:
        raise UsageError("this is not the text of a compiled program; bench_tpu writes them with --programs.")
    sizes: dict[str, int] = {}
    uses: dict[str, Use] = collections.defaultdict(lambda: Use(0, 0))
    for line in text[text.index("ENTRY ") :].splitlines()[1:]:
        if not (match := _INSTRUCTION.match(line)):
            continue
        name, shape, operation, rest = match.groups()
        sizes[name] = sum(size_of(dtype, dims) for dtype, dims in SHAPE.findall(shape))
        if operation in _FREE or operation.endswith("-start") or "AllocateBuffer" in rest:
            continue
        read = sum(sizes.get(operand, 0) for operand in re.findall(r"%([\w.\-]+)", _operands(rest)))
        moved = 2 * sizes[name] if operation in _PREFETCHED else sizes[name] + read
        kind = _kind(operation, rest)
        uses[kind] = Use(uses[kind].count + 1, uses[kind].bytes + moved)
    return dict(uses)


def table(first: dict[str, Use], second: dict[str, Use], least: int = 1_000_000) -> str:
    """Two accounts side by side in Markdown; kinds that differ by fewer bytes than ``least`` are added up."""
    none = Use(0, 0)
    kinds = sorted({*first, *second}, key=lambda kind: first.get(kind, none).bytes - second.get(kind, none).bytes)
    lines = ["| | MB | operations | other MB | operations | difference |", "| --- | --- | --- | --- | --- | --- |"]
    rest, total = [none, none], [none, none]
    for kind in kinds:
        pair = [first.get(kind, none), second.get(kind, none)]
        total = [Use(*map(sum, zip(a, b, strict=True))) for a, b in zip(total, pair, strict=True)]
        if abs(pair[1].bytes - pair[0].bytes) < least:
            rest = [Use(*map(sum, zip(a, b, strict=True))) for a, b in zip(rest, pair, strict=True)]
        else:
            lines.append(_row(kind, *pair))
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
            raise UsageError(f"there is no file {path}; bench_tpu writes programs with --programs=FOLDER.")
        texts.append(path.read_text(encoding="utf-8"))
    print(table(*map(account, texts)))


def _operands(rest: str) -> str:
    """What stands before the parenthesis that closes the operation's."""
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
    return f"| {kind} | {' | '.join(megabytes)} | {(second.bytes - first.bytes) / 1e6:+.1f} |"


if __name__ == "__main__":
    program.call(main)
