"""How much time is saved by evaluating a whole line at once: ``python -m experiments.bench_evaluate``.

Both ways give the accuracy of P(alpha) for 21 alphas, and of the ensemble of P(alpha) and P(1 - alpha), on the same data:

- *at once*: one program over all points computes the statistics of each point once, and ensembles from the points' logits.
- *one at a time*: as in the authors' program, each alpha takes a pass over the training data for the statistics of
  P(alpha), another pass for the statistics of P(1 - alpha), and a pass over the test data for both points.

The two ways run in turn, and the ratio of their times is taken in each round. Images are random and have CIFAR-10's shape.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.data import memory, sets
from jsubspace.data.batching import Batching
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.survey import Ensemble, Survey, affine, survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, build, images, recipes
from jsubspace.runs.build import Run
from jsubspace.training import device_choice
from jsubspace.types import Endpoints


def make_run(num_train: int, num_test: int, width: int) -> Run:
    """A line of cResNet20s on noise."""
    rng = np.random.default_rng(0)

    def noise(n: int) -> memory.Examples:
        images = rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8)
        return memory.Examples(images, rng.integers(10, size=n, dtype=np.int32))

    config = recipes.cifar10_cresnet20("line")
    config.model.width = width
    data = memory.InMemory(sets.find("cifar10"), noise(num_train), noise(num_test), Batching(128, 512, seed=0))
    return build.assemble(config, images.problem_of(config, data), build.choose_devices(config))


def at_once(whole: Evaluator, run: Run, endpoints: Endpoints) -> np.ndarray:
    """Accuracies of every point, ``[p]``."""
    outcomes = adapters.on_test_data(run, whole, endpoints, adapters.batch_stats(run, whole, endpoints))
    return outcomes.points.correct.mean(-1)


def one_at_a_time(single: Evaluator, pair: Evaluator, plan: Survey, run: Run, endpoints: Endpoints) -> np.ndarray:
    """The same accuracies, with each point and its mirror image evaluated separately."""
    found = []
    for alpha in range(len(plan.weights)):
        mirrored = [alpha, len(plan.weights) - 1 - alpha]
        stats = [adapters.batch_stats(run, single.at(plan.weights[[point]]), endpoints) for point in mirrored]
        both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *stats)
        outcomes = adapters.on_test_data(run, pair.at(plan.weights[mirrored]), endpoints, both)
        found.append(outcomes.points.correct[0].mean())
    return np.array(found)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=1280, help="training images, for the statistics")
    parser.add_argument("--test", type=int, default=1024, help="test images")
    parser.add_argument("--width", type=int, default=16, help="of the cResNet20")
    parser.add_argument("--points", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    device_choice.use_cpu_cores()
    run = make_run(arguments.train, arguments.test, arguments.width)
    endpoints = run.devices.run_once(run.init_state).endpoints
    plan = survey(run.subspace, arguments.points)
    task, pair = (
        Classification(),
        affine(plan.weights[[0, -1]])._replace(ensembles=(Ensemble("pair", "listed", (0, 1)),)),
    )
    whole, single, both = (adapters.evaluator(run, task, plan) for plan in (plan, affine(plan.weights[:1]), pair))

    def timed(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        found = function()
        return time.perf_counter() - start, found

    ways = {
        "one at a time": lambda: one_at_a_time(single, both, plan, run, endpoints),
        "at once": lambda: at_once(whole, run, endpoints),
    }
    for function in ways.values():
        function()  # compiles
    rounds = [{name: timed(function) for name, function in ways.items()} for _ in range(arguments.rounds)]
    # The same numbers, or there is nothing to compare.
    np.testing.assert_allclose(rounds[0]["at once"][1], rounds[0]["one at a time"][1], atol=2 / arguments.test)
    devices = jax.devices()
    print(
        f"{arguments.points} points of a line of cResNet20s of width {arguments.width}, {arguments.train} training and"
    )
    print(f"{arguments.test} test images, {len(devices)} x {devices[0].device_kind}, jax {jax.__version__}")
    for name in ways:
        print(f"{name:<14} {statistics.median(row[name][0] for row in rounds):8.1f} s")
    ratios = [row["one at a time"][0] / row["at once"][0] for row in rounds]
    print(f"at once is {statistics.median(ratios):.2f} times as fast (rounds: {', '.join(f'{x:.2f}' for x in ratios)})")


if __name__ == "__main__":
    main()
