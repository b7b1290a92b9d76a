"""The passes of a dense network's step over its first kernel: ``python -m experiments.passes --platforms cpu cuda tpu``.

The network has the layers 784-256-256-10. Its first kernel is three quarters of the network, and every smaller array is left out. The
command compiles the step that trains for a CPU, for a GPU or for TPU chips (`lib.compilers`: neither chip need exist here). It lists every
instruction that reads or writes arrays of the kernel's size or of several rows in main memory. The unit is n, the float32 bytes of the
kernel. What a TPU moves within its fast memory is left out.

The last line has the sum beside the floor, which moves each array once: the endpoints for the point, the point for the network and
its gradient, and the endpoints, the momentum and the gradient for the update. Rows are kept in --output.
"""

import argparse
import json
import pathlib
import re
from typing import Any, NamedTuple

from experiments.account import moves
from experiments.lib import compilers, provenance, tpu_steps
from jsubspace import program
from jsubspace.storage.documents import write_json

OUTPUT = pathlib.Path(__file__).parent / "results" / "passes" / "rows.json"
PLATFORMS = ("cpu", compilers.CUDA, "tpu")

KERNEL = 784 * 256 * 4
BATCH_SIZE = 128
PADDING = 0.03
ENDPOINTS = {"standard": 1, "line": 2, "simplex6": 6}


class Pass(NamedTuple):
    """An instruction that touches arrays of the kernel's size.

    Attributes:
      name: its name in the program, and the last part of the name of the operation in jax.
      read, written: how often it moves n bytes.
    """

    name: str
    read: int
    written: int


def passes(text: str, size: int = KERNEL) -> list[Pass]:
    """The passes in a program's text over arrays of ``size`` bytes, which are the unit, or of several times as many.

    A compiler may pad an array by a few per cent. A condition is left out. Only norms that are unusual take its branch that reads arrays.

    Example:
      >>> passes("ENTRY %main (p: f32[2,4]) -> f32[4] {\\n  %p = f32[2,4] parameter(0)\\n  ROOT %r = f32[4] negate(%p)\\n}", 16)
      [Pass(name='r', read=2, written=1)]
    """
    found = []
    for each in moves(text):
        if each.operation == "conditional":
            continue
        read, written = (sum(_rows(s, size) for s in sizes) for sizes in (each.read, each.written))
        if read or written:
            name = re.search(r'op_name="[^"]*?([^"/]*)"', each.rest)
            found.append(Pass(each.name + (f", {name[1]}" if name else ""), read, written))
    return found


def _rows(number: int, size: int) -> int:
    rows = round(number / size)
    return rows if abs(number - rows * size) < PADDING * size else 0


def floor(num_endpoints: int) -> int:
    """How often n bytes must be moved: 4 for the network, its gradient and the update's reading of it, and 4 per endpoint.

    A point of several endpoints also reads them and is written.

    Example:
      >>> [floor(m) for m in (1, 2, 6)]
      [7, 14, 34]
    """
    m = num_endpoints
    return 3 + 4 * m + (m + 1 if m > 1 else 0)


def table(found: list[Pass], method: str) -> str:
    """The passes in Markdown, with their sum and the floor."""
    read, written = (sum(each) for each in list(zip(*found, strict=True))[1:])
    rows = [f"| `{name}` | {a} | {b} |" for name, a, b in found]
    last = f"| sum {read + written}, floor {floor(ENDPOINTS[method])} | {read} | {written} |"
    return "\n".join(["| instruction | n read | n written |", "| --- | --- | --- |", *rows, last])


def summary(rows: dict[str, Any]) -> str:
    """The sums of every platform in Markdown."""
    lines = [f"| | {' | '.join(ENDPOINTS)} |", "| --- | --- | --- | --- |"]
    for platform in PLATFORMS:
        if not all(f"{platform}/{method}" in rows for method in ENDPOINTS):
            continue
        found = [rows[f"{platform}/{method}"]["passes"] for method in ENDPOINTS]
        lines.append(f"| {platform} | {' | '.join(f'{sum(a + b for _, a, b in each)}' for each in found)} |")
    return "\n".join([*lines, f"| *floor* | {' | '.join(str(floor(m)) for m in ENDPOINTS.values())} |"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.passes", description=__doc__.splitlines()[0])
    parser.add_argument("--platforms", nargs="+", default=["cpu"], choices=PLATFORMS)
    parser.add_argument("--methods", nargs="+", default=list(ENDPOINTS), choices=list(ENDPOINTS))
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the JSON file of the rows")
    parser.add_argument("--programs", type=pathlib.Path, help="a folder for the compiled programs' text")
    arguments = parser.parse_args()
    made_by = provenance.versions("jaxlib") | {"commit": provenance.commit()}
    rows = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    for platform in arguments.platforms:
        devices = compilers.devices(platform)
        for method in arguments.methods:
            step = tpu_steps.dense("float32")(method, "replicated", devices, BATCH_SIZE)
            text = step.lowered.compile().as_text()
            if arguments.programs:
                arguments.programs.mkdir(parents=True, exist_ok=True)
                (arguments.programs / f"dense_{method}_{platform}.txt").write_text(text)
            found, chip = passes(text), f"{len(devices)} x {devices[0].device_kind}"
            rows[f"{platform}/{method}"] = {"passes": found, "devices": chip} | made_by
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(arguments.output, rows)
            print(f"\n{method}, {chip}\n{table(found, method)}", flush=True)


if __name__ == "__main__":
    program.run(main)
