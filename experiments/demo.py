"""What a line is good for: ``make demo``, or ``python -m experiments.demo``.

It trains standard training and a line on handwritten digits with 40 % random training labels, prints both side by side, and
draws one picture. An interrupted demo resumes. With ``--record`` it compares six ways of training with ten seeds.
"""

import argparse
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from experiments.lib import crew, jobs, noisy_digits, picture, provenance, side_by_side
from experiments.lib.jobs import Job
from experiments.lib.noisy_digits import CENTERED, LINE, NOISY, QUICK, SMOOTHED, STANDARD, STOPPED, WAYS
from experiments.lib.scenarios import Scenario
from jsubspace import program
from jsubspace.data import prepare
from jsubspace.data.workers import num_cores
from jsubspace.errors import UsageError
from jsubspace.storage.documents import write_json
from jsubspace.storage.files import make_folder, write_text

RUNS = pathlib.Path("runs") / "demo"
RECORDED = pathlib.Path("experiments") / "results" / "demo"
RECORDED_SEEDS = tuple(range(10))
SECONDS = 45
"""What a run takes on one core, about."""

INTRODUCTION = """\
Of the 1,437 training labels, 574 are random: 520 of them are wrong. The 360 test labels are right.
Standard training trains one network. A line trains all networks between two ends, in as many steps."""

NEXT = """\
Next: train with settings of your own   python -m jsubspace.main --config=configs/digits_cresnet8_line.py
      put a line into your own loop     docs/your_own_network.md
      see ten seeds and other methods   experiments/results/demo/demo.md"""


def train(scenario: Scenario, ways: Sequence[str], seeds: Sequence[int], root: pathlib.Path, at_once: int) -> None:
    """Finishes the runs of all ways. Standard training and the line come first, seed by seed."""
    first = [job for seed in seeds for way in (STANDARD, LINE) for job in noisy_digits.declare(scenario, way, [seed])]
    of = {way: noisy_digits.declare(scenario, way, seeds) for way in ways if way not in (STANDARD, LINE, SMOOTHED)}
    last = of.pop(CENTERED, [])
    choosing = list(noisy_digits.strengths(scenario).values()) if SMOOTHED in ways else []
    declared = [*first, *(job for jobs_of_way in of.values() for job in jobs_of_way), *choosing]
    _forecast([*declared, *last], len(seeds) if choosing else 0, root, at_once)
    prepare.prepare("digits")
    crew.finish(declared, root, at_once)
    if choosing:
        strength = noisy_digits.best_strength(scenario, root)
        last = noisy_digits.declare(scenario, SMOOTHED, seeds, strength) + last
    crew.finish(last, root, at_once)


def _forecast(declared: Sequence[Job], later: int, root: pathlib.Path, at_once: int) -> None:
    """Says how long the missing runs of ``declared``, and ``later`` more, will take."""
    missing = sum(jobs.results(job, root) is None for job in declared) + later
    if missing:
        minutes = round(-(-missing // at_once) * SECONDS / 60) or 1
        about = f"{minutes} minute{'s' if minutes > 1 else ''}"
        print(f"{missing} runs, {at_once} at once: about {about} on idle cores. Logs are in {root}.", flush=True)


def finished(
    scenario: Scenario, ways: Sequence[str], seeds: Sequence[int], root: pathlib.Path
) -> dict[str, tuple[list[Job], list[dict[str, Any]]]]:
    """The jobs and results of every way that is finished for all seeds."""
    found = {}
    for way in ways:
        strength = noisy_digits.best_strength(scenario, root) if way == SMOOTHED else None
        if way == SMOOTHED and strength is None:
            continue
        declared = noisy_digits.declare(scenario, way, seeds, strength)
        results = [result for job in declared if (result := jobs.results(job, root)) is not None]
        if len(results) == len(declared):
            found[way] = (declared, results)
    return found


def compared(found: dict[str, tuple[list[Job], list[dict[str, Any]]]], root: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of `side_by_side`, for all predictors of all ways."""
    predictors = []
    for way, (declared, results) in found.items():
        folders = [root / job.name for job in declared]
        stopped = [noisy_digits.stopped(*each) for each in zip(folders, results, strict=True)] if way == STOPPED else ()
        predictors += side_by_side.predictors(way, results, folders, stopped)
    return side_by_side.rows(predictors)


def record(
    rows: list[dict[str, Any]], declared: Sequence[Job], seeds: Sequence[int], root: pathlib.Path, path: pathlib.Path
) -> str:
    """Writes the rows as ``path``.json and ``path``.md with the command, commit and machine of every run. Returns the text."""
    command = f"python -m experiments.demo --record --seeds {' '.join(map(str, seeds))}"
    made_by = {
        "command": command, "commit": provenance.commit(), "versions": provenance.versions(),
        "machine": provenance.machine(), "runs": crew.trained(declared, root),
        "trainings": {job.name: shlex.join(["python", *job.command(RUNS)]) for job in declared},
    }  # fmt: skip
    write_json(path.with_suffix(".json"), made_by | {"seeds": list(seeds), "rows": rows})
    text = (
        f"# Digits with 40 % random training labels, {len(seeds)} seeds\n\n`{command}`\n\n{side_by_side.table(rows)}\n\n"
        f"{side_by_side.table_of_differences(rows)}\n\n{side_by_side.table_against_the_midpoint(rows)}\n\n"
        f"{side_by_side.says(rows)}\n"
    )
    write_text(path.with_suffix(".md"), text)
    return text


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="six ways of training and ten seeds, into --output")
    parser.add_argument("--quick", action="store_true", help="five epochs of a small network: a test of seconds")
    parser.add_argument("--plot", action="store_true", help="train nothing: only show finished runs")
    parser.add_argument("--seeds", nargs="+", type=int, help="by default 0, and with --record 0 to 9")
    parser.add_argument("--jobs", type=int, default=min(2, num_cores()), help="runs at once, each on one core")
    parser.add_argument("--runs", type=pathlib.Path, default=RUNS, help="the folder of the runs")
    parser.add_argument("--output", type=pathlib.Path, help=f"by default --runs, and with --record {RECORDED}")
    arguments = parser.parse_args()
    seeds = arguments.seeds or list(RECORDED_SEEDS if arguments.record else RECORDED_SEEDS[:1])
    if arguments.jobs < 1 or len(set(seeds)) < len(seeds):
        raise UsageError("--jobs must be at least 1, and every seed is given once: each seed is a network of its own.")
    scenario, ways = QUICK if arguments.quick else NOISY, tuple(WAYS) if arguments.record else (STANDARD, LINE)
    root = arguments.runs.absolute()
    print(INTRODUCTION, flush=True)
    if not arguments.plot:
        train(scenario, ways, seeds, root, arguments.jobs)
    found = finished(scenario, ways, seeds, root)
    if not {STANDARD, LINE} <= set(found):
        raise UsageError(f"standard training and the line are not finished in {root}. Give the command without --plot.")
    rows = compared(found, root)
    output = arguments.output or (RECORDED if arguments.record else arguments.runs)
    make_folder(output)
    path = output / "demo"
    picture.draw(found[STANDARD][1], found[LINE][1], path.with_suffix(".png"))
    if arguments.record:
        print(record(rows, [job for declared, _ in found.values() for job in declared], seeds, root, path))
    else:
        print(f"\n{side_by_side.table(rows)}\n\n{side_by_side.says(rows)}\n\n{NEXT}")
    print(f"\nThe picture is {path.with_suffix('.png')}")


if __name__ == "__main__":
    program.run(main)
