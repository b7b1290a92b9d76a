"""The cost of a step on TPU chips, measured without a chip: ``python -m experiments.bench_tpu --networks cresnet20``.

The benchmark compiles the same steps that train for a TPU topology (pip install '.[tpu]' installs the compiler).
It asks the executables for flops, bytes accessed, bytes on the wire and memory per chip. Each number is printed beside its
ratio to replicated standard training, and for sharded endpoints also to sharded standard training. A step of ResNet50 takes
an idle core three minutes to compile. Finished rows are read from --output, so the command resumes where it was stopped.
"""

import argparse
import json
import pathlib
import subprocess
import time
from typing import Any

import jax

from experiments.lib import compilers
from experiments.lib.collectives import collectives
from experiments.lib.tpu_steps import METHODS, MODES, NETWORKS
from jsubspace.storage.documents import write_json

OUTPUT = pathlib.Path(__file__).parent / "results" / "bench_tpu" / "rows.json"
COLUMNS = ("flops", "bytes_accessed", "wire", "state_memory", "temporary_memory")


def measure(
    network: str, method: str, mode: str, devices: tuple[Any, ...], batch_size: int
) -> tuple[dict[str, Any], str]:
    """One row, and the text of the compiled step."""
    step = NETWORKS[network].step(method, mode, devices, batch_size)
    start = time.monotonic()
    compiled = step.lowered.compile()
    cost, memory_of, text = compiled.cost_analysis(), compiled.memory_analysis(), compiled.as_text()
    row = {
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "wire": sum(collective.wire for collective in collectives(text)),
        "state_memory": memory_of.argument_size_in_bytes - step.besides,
        "temporary_memory": memory_of.temp_size_in_bytes,
        "compile_seconds": round(time.monotonic() - start),
    }
    return row, text


def table(rows: dict[str, dict[str, Any]], network: str) -> str:
    """Rows of one network as Markdown, with ratios to standard training."""
    lines = [
        "| | flops | bytes accessed | of sharded standard | on the wire | endpoints and optimizer | temporary |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    standard, sharded = (rows.get(f"{network}/standard/{mode}", {}) for mode in MODES)

    def cell(row: dict[str, Any], column: str, base: dict[str, Any]) -> str:
        return f"{row[column] / base[column]:.4f}" if column in base else "?"

    for name, row in rows.items():
        if not name.startswith(network + "/"):
            continue
        cells = [cell(row, column, standard) for column in COLUMNS]
        cells.insert(2, cell(row, "bytes_accessed", sharded) if name.endswith("/sharded") else "")
        lines.append(f"| {name.removeprefix(network + '/')} | {' | '.join(cells)} |")
    if standard:
        unit = [f"{standard[column]:.5g}" for column in COLUMNS]
        lines.append(f"| *standard, replicated* | {unit[0]} | {unit[1]} | | {' | '.join(unit[2:])} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_tpu", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help="besides standard. The default is the network's own"
    )
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--batch_size", type=int, help="images or sequences per chip. The default is the network's own")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the JSON file of the rows")
    parser.add_argument("--programs", type=pathlib.Path, help="a folder for the compiled programs' text")
    parser.add_argument("--again", action="store_true", help="compile rows that --output has already")
    arguments = parser.parse_args()
    devices = compilers.devices("tpu", arguments.topology)
    made_by = versions()  # Read now, because the repository may change during the compilation.
    rows = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    for network in arguments.networks:
        facts = NETWORKS[network]
        batch_size = arguments.batch_size or facts.batch_size
        methods = [method for method in arguments.methods or facts.methods if method in facts.possible]
        for mode in (mode for mode in arguments.modes if mode in facts.modes):
            for method in dict.fromkeys(["standard", *methods]):
                name = f"{network}/{method}/{mode}"
                if name in rows and not arguments.again:
                    continue
                row, text = measure(network, method, mode, devices, batch_size)
                rows[name] = row | {"topology": arguments.topology, "batch_size": batch_size} | made_by
                arguments.output.parent.mkdir(parents=True, exist_ok=True)
                write_json(arguments.output, rows)
                print(name, {column: row[column] for column in COLUMNS}, flush=True)
                if arguments.programs:
                    arguments.programs.mkdir(parents=True, exist_ok=True)
                    (arguments.programs / f"{name.replace('/', '_')}.txt").write_text(text)
        print(
            f"\n{network}, {batch_size} {facts.unit} per chip, bfloat16, TPU {arguments.topology}, ratios to standard"
        )
        print(table(rows, network))


def versions() -> dict[str, str]:
    """The versions on which the numbers depend."""
    import libtpu

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {"jax": jax.__version__, "libtpu": libtpu.__version__, "commit": commit.strip()}


if __name__ == "__main__":
    main()
