"""How much longer a step of a subspace takes than a step of standard training: ``python -m experiments.bench_step``.

The steps of all methods are compiled first and then run in turn, round by round. A machine that becomes slower then slows
all methods. The program prints the median over rounds of each method's time, and of its ratio to standard training in the
same round. Images are random, because their content does not change the time.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jsubspace.data import memory, sets
from jsubspace.data.batching import Batching
from jsubspace.evaluation.devices import RUN_AHEAD
from jsubspace.runs import build, images, recipes
from jsubspace.training import device_choice

METHODS: dict[str, dict[str, Any]] = {
    "standard": {"subspace": "point"},
    "line": {"subspace": "line"},
    "line_layerwise": {"subspace": "line", "layerwise": True},
    "curve": {"subspace": "curve"},
    "simplex3": {"subspace": "simplex", "num_endpoints": 3},
    "simplex6": {"subspace": "simplex", "num_endpoints": 6},
}


def random_cifar(batch_size: int) -> memory.InMemory:
    """Noise of CIFAR-10's shape."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(4 * batch_size, 32, 32, 3), dtype=np.uint8)
    examples = memory.Examples(images, rng.integers(10, size=len(images), dtype=np.int32))
    return memory.InMemory(sets.find("cifar10"), examples, examples, Batching(batch_size, batch_size, seed=0))


def make_timer(method: dict[str, Any], batch_size: int, steps: int, sharded: bool = False) -> Callable[[], float]:
    """A function that runs some steps with batches as in training, and returns the seconds per step."""
    config = recipes.cifar10_cresnet20(**method)
    config.data.batch_size = config.evaluation.batch_size = batch_size
    config.shard_endpoints = sharded
    run = build.assemble(config, images.problem_of(config, random_cifar(batch_size)), build.choose_devices(config))
    compiled = run.compiled_step()
    state, key = run.devices.run_once(run.init_state, shardings=run.shardings), run.devices.put(run.key)
    batches = run.devices.put_batches(run.problem.data.train_batches(0, run.shard))

    def timer() -> float:
        nonlocal state
        start, reports = time.perf_counter(), []
        for batch in itertools.islice(batches, steps):
            state, info = compiled(state, batch, key)
            reports.append(info)
            if len(reports) > RUN_AHEAD:
                jax.block_until_ready(reports.pop(0))
        jax.block_until_ready(reports)
        return (time.perf_counter() - start) / steps

    timer()
    return timer


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_step", description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="the methods besides standard"
    )
    parser.add_argument(
        "--sharded", action="store_true", help="divide the endpoints among the devices, for standard training too"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=8, help="steps per method and round")
    arguments = parser.parse_args()
    device_choice.use_cpu_cores()
    names = [name for name in METHODS if name == "standard" or name in arguments.methods]
    timers = {
        name: make_timer(METHODS[name], arguments.batch_size, arguments.steps, arguments.sharded) for name in names
    }
    rounds = [{name: timer() for name, timer in timers.items()} for _ in range(arguments.rounds)]
    devices = jax.devices()
    print(f"cResNet20, batch {arguments.batch_size}, {len(devices)} x {devices[0].device_kind}, jax {jax.__version__}")
    print(f"medians of {arguments.rounds} rounds of {arguments.steps} steps")
    for name in names:
        milliseconds = 1000 * statistics.median(seconds[name] for seconds in rounds)
        ratios = sorted(seconds[name] / seconds["standard"] for seconds in rounds)
        quartiles = f"{ratios[len(ratios) // 4]:.3f} to {ratios[3 * len(ratios) // 4]:.3f}"
        print(f"{name:<16} {milliseconds:8.1f} ms  ratio {statistics.median(ratios):.3f} (quartiles {quartiles})")


if __name__ == "__main__":
    main()
