"""How much longer the evaluation of a line takes than a user's own: ``python -m experiments.bench_points --network=dense``.

Four ways score the points of a line on the same test images, in turn, round by round. All of them know the points' BatchNorm
statistics, and give the four scores of every image at every point:

- *vmap* is one program per batch, and in it `jax.vmap` over alphas of the network at alpha, its logits and the scores.
- *loop* is one program per point and batch, which Python calls for every point and batch.
- *evaluator* is the library's, with the same points and no ensembles.
- *ensembles* is the library's, and scores the ensembles of a report too. They have no forward pass of their own.

The program asserts that the numbers agree, and prints medians and ratios to the bare ways of the same round.

Before that, it evaluates BatchNorm statistics, points and ensembles once without a compilation cache, and once again. The first call
also traces and compiles its programs. The floor is the time to trace and compile one pass of the network in each mode that is
used, and nothing else. Images are random.
"""

import argparse
import collections
import dataclasses
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench_loop import NETWORKS, Seconds, make_run
from jsubspace import program
from jsubspace.evaluation import metrics
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.networks import Passes
from jsubspace.evaluation.survey import affine, survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters
from jsubspace.runs.build import Run
from jsubspace.training import device_choice
from jsubspace.types import Endpoints

Way = Callable[[], metrics.Scores]
"""Returns the scores of the points, means over the images, leaves ``[p]``."""

EVENTS = {
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
"""The parts of a compilation that jax reports, and what they are called here."""


def bare_passes(run: Run) -> Passes:
    """The passes of the network where no device axis is, over which BatchNorm could average."""
    problem = dataclasses.replace(run.problem, network=run.problem.network.on_one_device)
    return adapters.passes(dataclasses.replace(run, problem=problem))


def bare_ways(run: Run, alphas: jax.Array, endpoints: Endpoints, stats: Any) -> dict[str, Way]:
    """The ways of a user who has jax and a network."""
    passes = bare_passes(run)

    def at_point(endpoints: Endpoints, alpha: jax.Array, stats: Any, images: Any, labels: Any) -> metrics.Scores:
        point = jax.tree.map(lambda leaf: (1 - alpha) * leaf[0] + alpha * leaf[1], endpoints)
        logits, _ = Classification().at_point(passes.predict(point, stats, *passes.prepare(images)), (labels,), False)
        return metrics.score(jax.nn.log_softmax(logits), labels)

    of_one, of_all = jax.jit(at_point), jax.jit(jax.vmap(at_point, (None, 0, 0, None, None)))
    points = [(alpha, jax.tree.map(lambda leaf, i=i: leaf[i], stats)) for i, alpha in enumerate(alphas)]

    def whole(way: Callable[[Any, Any], metrics.Scores]) -> Way:
        def scored() -> metrics.Scores:
            batches = list(adapters.scored(run, run.problem.data.test_batches(run.shard)))
            parts = [way(*batch.inputs, *batch.targets) for batch in batches]
            masks = [batch.mask for batch in batches]
            return means(jax.device_get(parts), masks)

        return scored

    def loop(images: Any, labels: Any) -> Any:
        found = [of_one(endpoints, alpha, of_point, images, labels) for alpha, of_point in points]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    return {"vmap": whole(lambda *arrays: of_all(endpoints, alphas, stats, *arrays)), "loop": whole(loop)}


def means(parts: Iterable[metrics.Scores], masks: Iterable[np.ndarray]) -> metrics.Scores:
    """The means over all images, ``[p]``, of scores ``[p, n]`` of batches."""
    kept = [jax.tree.map(lambda leaf, mask=mask: leaf[:, mask], part) for part, mask in zip(parts, masks, strict=True)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1).mean(1), *kept)


def of_library(run: Run, evaluator: Evaluator, endpoints: Endpoints, stats: Any) -> Way:
    """The library's way."""

    def scored() -> metrics.Scores:
        points = adapters.on_test_data(run, evaluator, endpoints, stats).points
        return jax.tree.map(lambda leaf: leaf.mean(1), points)

    return scored


def first_calls(run: Run, plan: Any, endpoints: Endpoints) -> str:
    """Where the time of a first evaluation goes, and its floor, as Markdown."""
    found: dict[str, float] = collections.Counter()

    def heard(event: str, seconds: float, **_: Any) -> None:
        if event in EVENTS:
            found[EVENTS[event]] += seconds
            found["programs"] += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(heard)
    passes = bare_passes(run)
    point = jax.tree.map(lambda leaf: leaf[0], endpoints)
    of_training = [jnp.asarray(leaf) for leaf in next(adapters.train_batches(run))]
    of_test = next(adapters.scored(run, run.problem.data.test_batches(run.shard))).inputs

    def floor() -> None:
        stats_fn = passes.stats
        stats = None
        if stats_fn is not None:
            in_train_mode = jax.jit(lambda point, *batch: stats_fn(point, *passes.augment(*batch)))
            stats = jax.eval_shape(in_train_mode, point, *of_training)
            in_train_mode.lower(point, *of_training).compile()
        in_test_mode = jax.jit(lambda point, stats, *inputs: passes.predict(point, stats, *passes.prepare(*inputs)))
        in_test_mode.lower(point, stats, *of_test).compile()

    evaluator = adapters.evaluator(run, Classification(), plan)

    def whole() -> None:
        adapters.on_test_data(run, evaluator, endpoints, adapters.batch_stats(run, evaluator, endpoints))

    lines = ["| | programs | lower s | compile s | all, wall s | all, CPU s |", "| --- | --- | --- | --- | --- | --- |"]
    for name, call in {"first call": whole, "second call": whole, "floor": floor}.items():
        found.clear()
        start = Seconds()
        call()
        cpu, wall = Seconds().since(start, 1)
        cells = [f"{found['lower']:.2f}", f"{found['compile']:.2f}", f"{wall:.2f}", f"{cpu:.2f}"]
        lines.append(f"| {name} | {found['programs']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table(rounds: list[dict[str, tuple[float, float]]]) -> str:
    """Medians of CPU and wall time, and of their ratios to the bare ways in the same round, with quartiles, as Markdown."""
    lines = ["| clock | way | ms | over vmap | over loop |", "| --- | --- | --- | --- | --- |"]
    for place, clock in enumerate(("CPU", "wall")):
        for name in rounds[0]:
            cells = [f"{1000 * statistics.median(each[name][place] for each in rounds):.1f}"]
            for base in ("vmap", "loop"):
                ratios = [each[name][place] / each[base][place] for each in rounds]
                low, middle, high = (float(np.quantile(ratios, q)) for q in (0.25, 0.5, 0.75))
                cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
            lines.append(f"| {clock} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_points", description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="dense", choices=list(NETWORKS))
    parser.add_argument("--points", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=2, help="test batches of 512 images")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    device_choice.use_cpu_cores()
    run = make_run(arguments.network, "line", 1, arguments.batches, 0)
    endpoints = run.devices.run_once(run.init_state).endpoints
    plan = survey(run.subspace, arguments.points)
    print(f"{arguments.network}, a line, 1 x {run.devices.devices[0].device_kind}, jax {jax.__version__}")
    print(first_calls(run, plan, endpoints))
    points, task = affine(plan.weights), Classification()
    stats = adapters.batch_stats(run, adapters.evaluator(run, task, points), endpoints)
    ways = bare_ways(run, jnp.asarray(points.weights[:, 1]), endpoints, stats)
    for name, each in {"evaluator": points, "ensembles": plan}.items():
        ways[name] = of_library(run, adapters.evaluator(run, task, each), endpoints, stats)
    scores = {name: way() for name, way in ways.items()}  # It also compiles.
    for name in scores:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), scores[name], scores["loop"])

    def timed(way: Way) -> tuple[float, float]:
        start = Seconds()
        way()
        return Seconds().since(start, 1)

    rounds = [{name: timed(way) for name, way in ways.items()} for _ in range(arguments.rounds)]
    print(
        f"\n{arguments.points} points, {arguments.batches} batches of 512 images, medians of {arguments.rounds} rounds (quartiles)"
    )
    print(table(rounds))


if __name__ == "__main__":
    program.run(main)
