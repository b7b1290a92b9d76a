"""What a line is good for: ``make demo``, or ``python -m experiments.demo``.

It trains standard training and a line on handwritten digits with 40 % random training labels, prints both side by side, and
draws one picture. An interrupted demo resumes. With ``--record`` it compares six ways of training with ten seeds.
"""

import argparse
import pathlib

from experiments.lib import crew, noisy_digits
from experiments.lib.jobs import Job, results
from experiments.lib.noisy_digits import LINE, NOISY, QUICK, SMOOTHED, STANDARD, WAYS
from experiments.lib.scenarios import Scenario
from jsubspace import program
from jsubspace.data import prepare
from jsubspace.data.workers import num_cores
from jsubspace.errors import UsageError

RUNS = pathlib.Path("runs") / "demo"
RECORDED = pathlib.Path("experiments") / "results" / "demo"
RECORDED_SEEDS = tuple(range(10))
SECONDS = 45
"""What a run takes on one core, about."""


def train(scenario: Scenario, ways: tuple[str, ...], seeds: list[int], root: pathlib.Path, at_once: int) -> None:
    """Finishes the runs of all ways. Standard training and the line come first, seed by seed."""
    first = [job for seed in seeds for way in (STANDARD, LINE) for job in noisy_digits.declare(scenario, way, [seed])]
    others = [way for way in ways if way not in (STANDARD, LINE, SMOOTHED)]
    declared = first + [job for way in others for job in noisy_digits.declare(scenario, way, seeds)]
    choosing = list(noisy_digits.strengths(scenario).values()) if SMOOTHED in ways else []
    forecast(declared + choosing, len(seeds) if choosing else 0, root, at_once)
    prepare.prepare("digits")
    crew.finish(declared + choosing, root, at_once)
    if choosing:
        strength = noisy_digits.best_strength(scenario, root)
        crew.finish(noisy_digits.declare(scenario, SMOOTHED, seeds, strength), root, at_once)


def forecast(declared: list[Job], later: int, root: pathlib.Path, at_once: int) -> None:
    """Says how long the missing runs of ``declared``, and ``later`` more, will take."""
    missing = sum(results(job, root) is None for job in declared) + later
    if missing:
        minutes = -(-missing // at_once) * SECONDS / 60
        print(f"{missing} runs, {at_once} at once: about {minutes:.0f} minutes on idle cores. Logs are in {root}.")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="six ways of training and ten seeds, into --output")
    parser.add_argument("--quick", action="store_true", help="five epochs of a tiny network: a test of seconds")
    parser.add_argument("--seeds", nargs="+", type=int, help="by default 0, and with --record 0 to 9")
    parser.add_argument("--jobs", type=int, default=min(2, num_cores()), help="runs at once, each on one core")
    parser.add_argument("--runs", type=pathlib.Path, default=RUNS, help="the folder of the runs")
    arguments = parser.parse_args()
    seeds = arguments.seeds or list(RECORDED_SEEDS if arguments.record else RECORDED_SEEDS[:1])
    if arguments.jobs < 1 or len(set(seeds)) < len(seeds):
        raise UsageError("--jobs must be at least 1, and every seed is given once: each seed is a network of its own.")
    scenario, ways = QUICK if arguments.quick else NOISY, tuple(WAYS) if arguments.record else (STANDARD, LINE)
    train(scenario, ways, seeds, arguments.runs.absolute(), arguments.jobs)


if __name__ == "__main__":
    program.run(main)
