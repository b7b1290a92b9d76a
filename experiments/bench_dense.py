"""How much longer a step of a subspace takes for a dense network: ``python -m experiments.bench_dense``.

The network has the layers 784-256-256-10 and the batch has 128 images. A weight is used once per image, so passes over the
endpoints cost a large part of a step. The steps run in turn, round by round, on one device. The program prints CPU time per step
and its ratio to standard training in the same round, with quartiles.

Beside each ratio stand three floors. They count the bytes that a step moves beyond standard training, and divide them by the bandwidth of a
subtraction in place, as XLA compiles it in the same run. The first floor reads and writes every endpoint and its momentum once. The second
floor has the passes that XLA makes on the CPU: each of its loops writes one array, so the momentum and the endpoints are two loops. In the
third floor, the inner products of a pair and the pair's sum take the time of a program of their own, because their arithmetic takes
longer than their bytes.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jsubspace
from experiments.bench_loop import Seconds, make_run, make_way
from jsubspace import penalties, program
from jsubspace.runs.build import Run
from jsubspace.types import Endpoints

CASES = {
    "standard": ("standard", 0.0),
    "line, beta 0": ("line", 0.0),
    "line": ("line", 1.0),
    "six, beta 0": ("simplex6", 0.0),
    "six": ("simplex6", 1.0),
}
ENDPOINTS = {"standard": 1, "line": 2, "simplex6": 6}


def passes(method: str, beta: float) -> tuple[int, int, int]:
    """How often a step moves one network beyond standard training: at least, in XLA's loops on the CPU, and for a pair alone.

    Example:
      >>> passes("line", 0.0), passes("simplex6", 1.0)
      ((7, 9, 0), (27, 48, 5))
    """
    m = ENDPOINTS[method]
    if m == 1:
        return 0, 0, 0
    point, pair, update = m + 1, 0, 6 * (m - 1)
    if beta and m == 2:
        pair = 2  # The inner products read two rows. The update has both rows already.
    elif beta:
        pair, update = 2 + 3, update + m  # The sum of the pair is written once and read for every endpoint.
    return point + 4 * (m - 1), point + pair + update, pair


def pair_alone(run: Run, calls: int) -> Callable[[], float]:
    """A function that returns the CPU seconds of the inner products and the sum of a pair, as a program of their own.

    They are counted beyond the seconds of a program that does nothing.
    """
    m = run.subspace.num_endpoints
    endpoints = run.init_state().endpoints
    mask = jsubspace.kernels(endpoints)
    keys = list(jax.random.split(jax.random.key(0), calls))

    def of_pair(key: jax.Array, endpoints: Endpoints) -> Any:
        found = penalties.penalty(endpoints, penalties.sample_pair(key, m), mask)
        return found.value, found.weights, found.pair_sum

    def seconds(program: Callable[..., Any]) -> float:
        start = Seconds()
        for key in keys:
            jax.block_until_ready(program(key, endpoints))
        return Seconds().since(start, calls)[0]

    program, nothing = jax.jit(of_pair), jax.jit(lambda key, endpoints: jnp.zeros(()))
    seconds(program), seconds(nothing)
    return lambda: seconds(program) - seconds(nothing)


def bandwidth(num_numbers: int) -> float:
    """Bytes per CPU second of ``x - 0.1 y`` in the place of x, for two arrays of ``num_numbers`` float32 numbers."""
    x, y = jnp.ones(num_numbers), jnp.ones(num_numbers)
    add: Any = jax.jit(lambda x, y: x - 0.1 * y, donate_argnums=0)
    found = []
    for _ in range(20):
        start = Seconds()
        x = jax.block_until_ready(add(x, y))
        found.append(Seconds().since(start, 1)[0])
    return 12 * num_numbers / statistics.median(found[5:])


def table(
    rounds: list[Mapping[str, float]], pairs: list[Mapping[str, float]], network_bytes: int, bytes_per_second: float
) -> str:
    """One line per case in Markdown, from the seconds of steps, and of pairs alone, round by round."""
    standard = statistics.median(each["standard"] for each in rounds)
    lines = [
        "| | ms | over standard | quartiles | floor, one pass | floor, XLA's loops | floor, and arithmetic of a pair |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in rounds[0]:
        ratios = [each[name] / each["standard"] for each in rounds]
        low, high = (float(np.quantile(ratios, q)) for q in (0.25, 0.75))
        least, loops, pair = (count * network_bytes / bytes_per_second for count in passes(*CASES[name]))
        alone = statistics.median(each[name] for each in pairs) if name in pairs[0] else 0
        floors = [1 + seconds / standard for seconds in (least, loops, loops - pair + alone)]
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
    ways_of_pairs = {name: pair_alone(run, arguments.steps) for name, run in runs.items() if CASES[name][1]}
    rounds: list[Mapping[str, float]] = []
    pairs: list[Mapping[str, float]] = []
    for _ in range(arguments.rounds):
        rounds.append({name: way()[0] for name, way in ways.items()})
        pairs.append({name: way() for name, way in ways_of_pairs.items()})
    numbers = sum(leaf.size for leaf in jax.tree.leaves(runs["standard"].state_shape.endpoints))
    speed = bandwidth(6 * numbers)
    device = jax.devices()[0].device_kind
    print(f"784-256-256-10, batch 128, 1 x {device}, jax {jax.__version__}, CPU time")
    print(f"medians of {arguments.rounds} rounds of {arguments.steps} steps, {speed / 1e9:.0f} GB/s")
    print(table(rounds, pairs, 4 * numbers, speed))


if __name__ == "__main__":
    program.run(main)
