"""The cost of a subspace's step on a GPU: ``python -m experiments.bench_gpu --minutes=10``.

Four networks (cResNet20, ResNet50, a dense network, a small GPT) take steps on a batch of noise that lies on the device. *bare* is a
step of Flax and optax without this library. *standard*, *line* and *simplex6* are steps of the library, with the penalty. *torch* is
a step of the same network in PyTorch, in eager mode, if PyTorch is installed.

Each way runs in turn with *standard* and *bare*, round by round, and ratios are taken within a round. The share of the peak
counts the operations of one network's loss and gradient. Every finished row is written to --output at once, beside a list of what was
not done and why. The same command continues where the time was over. No network is needed. Without a GPU the sizes are small, and
the times say nothing.
"""

import argparse
import importlib.util
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory of the same device.

import jax
import numpy as np

from experiments.lib import gpu_steps, provenance
from experiments.lib.chips import peak_flops
from experiments.lib.gpu_steps import FULL, SMALL, SUBSPACES, Timed, Workload
from jsubspace import program
from jsubspace.errors import UsageError, one_line
from jsubspace.storage import documents

OUTPUT = pathlib.Path(__file__).parent / "results" / "bench_gpu" / "rows.json"
BARE, STANDARD, TORCH = "bare", "standard", "torch"
WAYS = (BARE, *SUBSPACES, TORCH)
REFERENCES = (STANDARD, BARE)
MOST_BYTES = 2**20
SECONDS = 0.5
"""The time of a way in a round, without --steps."""


class Record:
    """The file of rows: what was done, where, and what was not done.

    Args:
      path: the file.
      where: everything that rows of one file have in common.
    """

    def __init__(self, path: pathlib.Path, where: dict[str, Any]) -> None:
        self._path, self._where = path, where
        self.rows: dict[str, dict[str, Any]] = {}
        names = [f"{network}/{way}" for network in FULL for way in WAYS]
        self.not_done = dict.fromkeys(names, "not asked for yet")
        if not path.exists():
            return
        fix = "Delete it, or name another file with --output."
        found = documents.read(path, MOST_BYTES, fix)
        if not isinstance(found, dict) or not {"where", "rows"} <= set(found):
            raise UsageError(f"{path} has no rows of this benchmark. {fix}")
        if found["where"] != documents.from_json(documents.to_json(where).encode()):
            raise UsageError(
                f"{path} has rows that were made elsewhere or with other options: {found['where']}, and not {where}. {fix}"
            )
        self.rows = found["rows"]
        self.not_done = {
            name: found.get("not_done", {}).get(name, self.not_done[name]) for name in names if name not in self.rows
        }

    def done(self, name: str, row: dict[str, Any]) -> None:
        """Adds a row, and writes the file."""
        self.rows[name] = row
        self.not_done.pop(name, None)
        self._write()

    def left_out(self, name: str, reason: str) -> None:
        """Notes why a row is missing, and writes the file."""
        self.not_done[name] = reason
        print(f"{name}: not done, {reason}", flush=True)
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        documents.write_json(self._path, {"where": self._where, "rows": self.rows, "not_done": self.not_done})


def compare(timers: dict[str, Any], rounds: int, steps: int) -> list[dict[str, float]]:
    """The seconds per step of every way in every round. With 0 steps, a way takes about `SECONDS` in a round."""
    counts = {name: steps or max(2, min(2000, round(SECONDS / timer.seconds(2)))) for name, timer in timers.items()}
    return [{name: timer.seconds(counts[name]) for name, timer in timers.items()} for _ in range(rounds)]


def row_of(name: str, found: list[dict[str, float]], per_step: int, flops: float | None) -> dict[str, Any]:
    """A row of the file: medians over rounds, and for ratios ``[median, lower quartile, upper quartile]``."""
    seconds = statistics.median(each[name] for each in found)
    row: dict[str, Any] = {"milliseconds": 1000 * seconds, "per_second": per_step / seconds}
    for reference in REFERENCES:
        ratios = [each[name] / each[reference] for each in found]
        row[f"over_{reference}"] = [float(np.quantile(ratios, q)) for q in (0.5, 0.25, 0.75)]
    return row | {"flops_per_second": None if flops is None else flops / seconds, "rounds": len(found)}


def make_torch(network: str, size: Any, of: Workload, dtype: str) -> Any:
    """The step of PyTorch.

    Raises:
      UsageError: if PyTorch is not installed, or its network has another number of parameters.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("PyTorch is not installed")
    from experiments.lib.torch_steps import TorchTimed

    timer = TorchTimed(network, size, of, dtype)
    point, _ = jax.eval_shape(of.init, jax.random.key(0))
    expected = sum(leaf.size for leaf in jax.tree.leaves(point))
    if timer.num_parameters != expected:
        raise UsageError(f"the network in PyTorch has {timer.num_parameters} parameters, and in jax {expected}")
    return timer


def run_network(
    network: str, options: argparse.Namespace, record: Record, peak: float | None, is_late: Callable[[], bool]
) -> None:
    """Times the ways of a network that the file lacks, while there is time."""
    ways = [way for way in WAYS if way in (*REFERENCES, *options.ways)]
    missing = [way for way in ways if f"{network}/{way}" not in record.rows]
    size = (FULL if options.sizes == "full" else SMALL)[network]
    of = gpu_steps.workload(network, size, options.dtype)

    def made(way: str) -> Any:
        if way == TORCH:
            return make_torch(network, size, of, options.dtype)
        state, step = gpu_steps.bare(of) if way == BARE else gpu_steps.subspace(of, SUBSPACES[way])
        return Timed(of, state, step, options.steps_per_program)

    def finished(way: str, timers: dict[str, Any], found: list[dict[str, float]]) -> None:
        row = row_of(way, found, of.per_step, flops) | {"unit": of.unit, "memory_bytes": timers[way].memory}
        rate = row["flops_per_second"]
        share = None if peak is None or rate is None else rate / peak
        record.done(f"{network}/{way}", row | {"share_of_peak": share})
        print(
            f"{network}/{way}: {row['per_second']:.0f} {of.unit}/s, {row['over_standard'][0]:.3f} of standard",
            flush=True,
        )

    references: dict[str, Any] = {}
    flops = None
    for way in missing:
        if is_late():
            record.left_out(f"{network}/{way}", "the time was over, and the same command continues here")
            continue
        try:
            if not references:
                flops = gpu_steps.model_flops(of)
                references = {name: made(name) for name in REFERENCES}
            timers = references if way in references else {**references, way: made(way)}
            finished(way, timers, compare(timers, options.rounds, options.steps))
        except UsageError as error:
            record.left_out(f"{network}/{way}", str(error))
        except (RuntimeError, MemoryError) as error:  # The device has too little memory, for example.
            references = {}  # A step that failed has taken its state with it.
            record.left_out(f"{network}/{way}", one_line(error)[:300])


def table(rows: dict[str, dict[str, Any]], network: str) -> str:
    """The rows of a network as Markdown."""
    lines = [
        f"| {network} | per second | over standard (quartiles) | over bare (quartiles) | memory | share of peak |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def ratio(row: dict[str, Any], reference: str) -> str:
        middle, low, high = row[f"over_{reference}"]
        return f"{middle:.3f} ({low:.3f} to {high:.3f})"

    for way in WAYS:
        row = rows.get(f"{network}/{way}")
        if row is None:
            continue
        memory, share = row["memory_bytes"], row["share_of_peak"]
        cells = [
            *(way, f"{row['per_second']:,.0f} {row['unit']}", ratio(row, STANDARD), ratio(row, BARE)),
            *("?" if memory is None else f"{memory / 2**20:,.0f} MiB", "?" if share is None else f"{share:.1%}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """The options of the command, with those that depend on the device."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="no row is started after this time")
    parser.add_argument("--networks", nargs="+", default=list(FULL), choices=list(FULL))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="besides standard and bare")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--steps", type=int, default=0, help="steps of a way in a round (0: about half a second of them)"
    )
    parser.add_argument(
        "--steps_per_program", type=int, default=0, help="steps in one program (0: 8, and 1 on the CPU)"
    )
    parser.add_argument(
        "--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="the networks compute in it"
    )
    parser.add_argument("--sizes", choices=["full", "small"], help="full on a GPU or TPU, small on the CPU")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the JSON file of the rows")
    options = parser.parse_args()
    if options.rounds < 1 or options.steps < 0 or options.steps_per_program < 0:
        parser.error("--rounds must be at least 1, and --steps and --steps_per_program at least 0")
    on_cpu = jax.devices()[0].platform == "cpu"
    options.sizes = options.sizes or ("small" if on_cpu else "full")
    options.steps_per_program = options.steps_per_program or (1 if on_cpu else 8)
    return options


def main() -> None:
    """The command."""
    start, options = time.monotonic(), parsed()
    device = jax.devices()[0]
    where = {
        **{"device": device.device_kind, "machine": provenance.machine(), "commit": provenance.commit()},
        "versions": provenance.versions("jaxlib", "optax"),
        **{name: getattr(options, name) for name in ("dtype", "sizes", "steps_per_program")},
    }
    record, peak = Record(options.output, where), peak_flops(device.device_kind, options.dtype)
    for network in options.networks:
        run_network(network, options, record, peak, lambda: time.monotonic() - start > 60 * options.minutes)
    print(f"\n{device.device_kind}, {options.dtype}, {options.sizes} sizes, jax {jax.__version__}")
    for network in options.networks:
        print(f"\n{table(record.rows, network)}")
    print(f"\n{len(record.rows)} rows, {len(record.not_done)} not done: {options.output}")


if __name__ == "__main__":
    program.call(main)
