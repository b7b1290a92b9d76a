"""How much longer a step of a subspace takes for a dense network: ``python -m experiments.bench_dense``.

The network has the layers 784-256-256-10 and the batch has 128 images. A weight is used once per image, so passes over the
endpoints cost a large part of a step. The steps run in turn, round by round, on one device. The program prints CPU time per step
and its ratio to standard training in the same round, with quartiles.

Beside each ratio stand two floors. Both count the bytes that a step moves beyond standard training, and divide them by the bandwidth of an
subtraction in place, as XLA compiles it in the same run. The first floor reads and writes every endpoint and its momentum once. The
second floor has the passes that XLA makes on the CPU: each of its loops writes one array, so the momentum and the endpoints are two loops.
"""

import argparse
import statistics
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench_loop import Seconds, make_run, make_way
from jsubspace import program

CASES = {
    "standard": ("standard", 0.0),
    "line, beta 0": ("line", 0.0),
    "line": ("line", 1.0),
    "six, beta 0": ("simplex6", 0.0),
    "six": ("simplex6", 1.0),
}
ENDPOINTS = {"standard": 1, "line": 2, "simplex6": 6}


def passes(method: str, beta: float) -> tuple[int, int]:
    """How often a step moves one network beyond standard training: at least, and in XLA's loops on the CPU.

    Example:
      >>> passes("line", 0.0), passes("simplex6", 1.0)
      ((7, 9), (27, 48))
    """
    m = ENDPOINTS[method]
    if m == 1:
        return 0, 0
    point = m + 1
    least, loops = point + 4 * (m - 1), point + 6 * (m - 1)
    if beta and m == 2:
        loops += 2  # The inner products read two rows. The update has both rows already.
    elif beta:
        loops += 2 + 3 + m  # The sum of the pair is written once and read for every endpoint.
    return least, loops


def bandwidth(num_numbers: int) -> float:
    """Bytes per CPU second of ``x - 0.1 y`` in the place of x, for two arrays of so many float32 numbers."""
    x, y = jnp.ones(num_numbers), jnp.ones(num_numbers)
    add: Any = jax.jit(lambda x, y: x - 0.1 * y, donate_argnums=0)
    found = []
    for _ in range(20):
        start = Seconds()
        x = jax.block_until_ready(add(x, y))
        found.append(Seconds().since(start, 1)[0])
    return 12 * num_numbers / statistics.median(found[5:])


def table(rounds: list[Mapping[str, float]], network_bytes: int, bytes_per_second: float) -> str:
    """One line per case in Markdown."""
    standard = statistics.median(each["standard"] for each in rounds)
    lines = [
        "| | ms | over standard | quartiles | floor, one pass | floor, XLA's loops |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in rounds[0]:
        ratios = [each[name] / each["standard"] for each in rounds]
        low, high = (float(np.quantile(ratios, q)) for q in (0.25, 0.75))
        floors = [1 + count * network_bytes / bytes_per_second / standard for count in passes(*CASES[name])]
        cells = [f"{1000 * statistics.median(each[name] for each in rounds):.3f}", f"{statistics.median(ratios):.3f}"]
        lines.append(f"| {' | '.join([name, *cells, f'{low:.3f} to {high:.3f}', *(f'{x:.3f}' for x in floors)])} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_dense", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", default=list(CASES), choices=list(CASES), help="the cases besides standard"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40, help="steps per case and round")
    arguments = parser.parse_args()
    names = [name for name in CASES if name == "standard" or name in arguments.cases]
    runs = {name: make_run("dense", CASES[name][0], 1, 10, 0, beta=CASES[name][1]) for name in names}
    ways = {name: make_way(run, 1, arguments.steps) for name, run in runs.items()}
    rounds: list[Mapping[str, float]] = [
        {name: way()[0] for name, way in ways.items()} for _ in range(arguments.rounds)
    ]
    numbers = sum(leaf.size for leaf in jax.tree.leaves(runs["standard"].state_shape.endpoints))
    speed = bandwidth(6 * numbers)
    device = jax.devices()[0].device_kind
    print(f"784-256-256-10, batch 128, 1 x {device}, jax {jax.__version__}, CPU time")
    print(f"medians of {arguments.rounds} rounds of {arguments.steps} steps, {speed / 1e9:.0f} GB/s")
    print(table(rounds, 4 * numbers, speed))


if __name__ == "__main__":
    program.run(main)
