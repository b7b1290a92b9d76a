"""How much longer the training loop takes than a bare scan of its own step: ``python -m experiments.bench_loop``.

Three ways take the same steps of a line, in turn, round by round. *scan* is a `jax.lax.scan` of the step over examples that
live on the devices, as a user would write it. *calls* is the compiled step, called by a bare Python loop. *loop* is the whole
training loop with its log, TensorBoard events and progress bar. It is timed between two rows of its log, so neither its
compilation nor its checkpoint is counted. The program prints medians over rounds, and ratios to the scan and to the calls of
the same round. Images are random, because their content does not change the time.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.bench_step import METHODS
from jsubspace.data import memory, sets
from jsubspace.data.batching import Batching
from jsubspace.evaluation.devices import RUN_AHEAD
from jsubspace.preemption import Preemption
from jsubspace.runs import build, feeding, images, recipes
from jsubspace.runs import run as run_lib
from jsubspace.runs.build import Run
from jsubspace.storage.journal import TRAIN
from jsubspace.training import device_choice
from jsubspace.training.train_step import Given

NETWORKS = {"dense": "fashion_mnist", "cresnet20": "cifar10"}
WINDOWS = 4
"""The windows of the log of a timed loop. The second and the third are timed."""

LEAST = RUN_AHEAD + 1
"""The fewest steps of a window. A row is written when the report of its step is read, `RUN_AHEAD` steps later, and a shorter
last window would not move all rows by the same number of steps."""


class Seconds:
    """CPU and wall time of the process."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def since(self, start: "Seconds", steps: int) -> tuple[float, float]:
        """The CPU and wall seconds per step since an earlier moment."""
        return (self.cpu - start.cpu) / steps, (self.wall - start.wall) / steps


class Marks:
    """A sink that notes the time of every row of training."""

    def __init__(self) -> None:
        self.found: list[Seconds] = []

    def log_scalar(self, name: str, value: float, step: int) -> None:
        """Takes a number of a row."""
        if name == f"{TRAIN}/loss":
            self.found.append(Seconds())

    def close(self) -> None:
        """Nothing is open."""


def make_run(
    network: str, method: str, num_devices: int, steps: int, steps_per_dispatch: int, beta: float = 1.0
) -> Run:
    """A run on random images whose log has windows of ``steps`` steps: the network 784-256-256-10, or cResNet20."""
    config = recipes.cifar10_cresnet20(**METHODS[method])
    config.data.name, config.num_devices, config.penalty.beta = NETWORKS[network], num_devices, beta
    if network == "dense":
        config.model.name, config.model.depth, config.model.width = "mlp", 2, 256
    config.log_every_steps, config.steps_per_dispatch = steps, steps_per_dispatch
    config.optimizer.num_epochs, config.optimizer.warmup_epochs = 1, 0
    rng, facts = np.random.default_rng(0), sets.find(NETWORKS[network])
    n = WINDOWS * steps * config.data.batch_size
    pixels = rng.integers(256, size=(n, *facts.image_shape), dtype=np.uint8)
    examples = memory.Examples(pixels, rng.integers(10, size=n, dtype=np.int32))
    source = memory.InMemory(facts, examples, examples, Batching(config.data.batch_size, 512, seed=0))
    return build.assemble(config, images.problem_of(config, source), build.choose_devices(config))


def make_way(run: Run, count: int, calls: int) -> Callable[[], tuple[float, float]]:
    """A function that calls a program of ``count`` steps so many times, and returns CPU and wall seconds per step."""
    found = run.problem.data.resident
    assert found is not None
    program = run.compiled_step(Given(examples=run.devices.put(found.arrays)), count)
    rows, key = run.devices.put_rows(next(found.blocks(0, run.shard)).rows), run.devices.put(run.key)
    state = run.devices.run_once(run.init_state)

    def way() -> tuple[float, float]:
        nonlocal state
        start = Seconds()
        for i in range(calls):
            state, report = program(state, rows, key)
            if i % 8 == 7:
                jax.block_until_ready(report)
        jax.block_until_ready(report)
        return Seconds().since(start, count * calls)

    way()
    return way


def time_loop(run: Run, steps: int) -> tuple[float, float]:
    """The CPU and wall seconds per step of the whole loop."""
    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        run_lib.train_endpoints(run, pathlib.Path(folder), Preemption(), [marks])
    return marks.found[WINDOWS - 2].since(marks.found[0], (WINDOWS - 2) * steps)


def line_of(name: str, rounds: Sequence[dict[str, tuple[float, float]]], place: int) -> str:
    """The median of a way's time, and of its ratios to the two bare ways, with quartiles."""
    text = f"{name:<6} {1000 * statistics.median(each[name][place] for each in rounds):9.3f} ms"
    for base in (base for base in ("scan", "calls") if base in rounds[0]):
        ratios = sorted(each[name][place] / each[base][place] for each in rounds)
        low, high = (float(np.quantile(ratios, q)) for q in (0.25, 0.75))
        text += f"   over {base} {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"
    return text


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_loop", description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="dense", choices=list(NETWORKS))
    parser.add_argument("--method", default="line", choices=list(METHODS))
    parser.add_argument("--bare", nargs="+", default=["scan", "calls"], choices=["scan", "calls"], help="the bare ways")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="steps of a window: one way takes so many in a round")
    parser.add_argument("--steps_per_dispatch", type=int, default=0, help="as the setting")
    arguments = parser.parse_args()
    if arguments.steps < LEAST:
        parser.error(f"--steps is {arguments.steps}. It must be at least {LEAST}.")
    device_choice.use_cpu_cores()
    steps = arguments.steps
    run = make_run(arguments.network, arguments.method, arguments.devices, steps, arguments.steps_per_dispatch)
    programs = {"scan": (steps, 1), "calls": (1, steps)}
    ways: dict[str, Callable[[], Any]] = {name: make_way(run, *programs[name]) for name in arguments.bare}
    ways["loop"] = lambda: time_loop(run, steps)
    rounds = [{name: way() for name, way in ways.items()} for _ in range(arguments.rounds)]
    kind, together = run.devices.devices[0].device_kind, feeding.steps_per_dispatch(run)
    print(f"{arguments.network}, {arguments.method}, batch 128, {run.devices.count} x {kind}, jax {jax.__version__}")
    print(f"{arguments.rounds} rounds of {steps} steps, steps_per_dispatch {together}, medians (quartiles)")
    for place, clock in enumerate(("CPU", "wall")):
        print(clock)
        for name in ways:
            print(line_of(name, rounds, place))


if __name__ == "__main__":
    main()
