"""Whether a figure that was made again has the recorded numbers: ``python -m experiments.reproduced NEW.json``.

Every number is compared for every seed that both figures have. The numbers are equal on the machine and with the versions
of the recorded runs. On another processor rounding differs in a first step and training magnifies the difference, so only
the means over seeds agree.
"""

import argparse
import json
import math
import pathlib
import sys
from typing import Any

from experiments.lib import figure
from jsubspace import program
from jsubspace.errors import UsageError

ROUNDING = 1e-6


def greatest_difference(new: dict[str, Any], recorded: dict[str, Any]) -> tuple[float, str, int]:
    """The greatest difference between two figures, which are the contents of their JSON files.

    Args:
      new: a figure with some of the recorded seeds.
      recorded: the same figure as recorded.

    Returns:
      The greatest absolute difference, its place, and how many numbers were compared.

    Raises:
      UsageError: if the two are not the same figure at the same scale, do not show the same, or share no seed.
    """
    if _asked(new) != _asked(recorded):
        raise UsageError(
            f"one figure was made by {_asked(new)!r}, the other by {_asked(recorded)!r}. Give two files of the same figure."
        )
    shared = [seed for seed in _seeds(new) if seed in _seeds(recorded)]
    if not shared:
        raise UsageError(
            f"the new seeds are {_seeds(new)} and the recorded seeds are {_seeds(recorded)}. No seed is in both."
        )
    numbers, numbers_recorded = (_numbers(made, shared) for made in (new, recorded))
    if numbers.keys() != numbers_recorded.keys():
        place = min(numbers.keys() ^ numbers_recorded.keys())
        raise UsageError(f"{place} is in one of the figures and not in the other.")
    apart = {place: abs(number - numbers_recorded[place]) for place, number in numbers.items()}
    worst = max(apart, key=lambda place: math.inf if math.isnan(apart[place]) else apart[place])
    return apart[worst], worst, len(numbers)


def main() -> None:
    """The command. Its exit code is 1 if a number differs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduced", description=__doc__.splitlines()[0])
    parser.add_argument("new", type=pathlib.Path, help="JSON file of a figure")
    parser.add_argument(
        "--recorded", type=pathlib.Path, help="the recorded figure (default: the file in experiments/results)"
    )
    arguments = parser.parse_args()
    recorded = arguments.recorded or figure.OUTPUT / "small" / arguments.new.name
    figures = []
    for path in (arguments.new, recorded):
        if not path.is_file():
            raise UsageError(
                f"there is no file {path}. The command of a figure writes it, in the folder given by --output."
            )
        figures.append(json.loads(path.read_text(encoding="utf-8")))
    difference, place, count = greatest_difference(figures[0], figures[1])
    print(f"{count} numbers, seeds {_seeds(figures[0])}: the greatest difference is {difference:.3g}, in {place}")
    sys.exit(not difference <= ROUNDING)  # what is no number is not equal either


def _asked(made: dict[str, Any]) -> str:
    return str(made["command"].partition(" --seeds ")[0])


def _seeds(made: dict[str, Any]) -> list[int]:
    return [int(seed) for seed in made["command"].partition(" --seeds ")[2].split()]


def _numbers(made: dict[str, Any], seeds: list[int]) -> dict[str, float]:
    """Every number of these seeds, by its place."""
    found = {}
    for panel in made["panels"]:
        if "series" not in panel:
            raise UsageError(f"{made['figure']} shows planes. Only figures of curves are compared number by number.")
        for series in panel["series"]:
            for seed in seeds:
                for i, value in enumerate(series["y"][_seeds(made).index(seed)]):
                    found[f"{panel['y_label']} of {series['label']}, seed {seed}, value {i} ({panel['title']})"] = value
    return found


if __name__ == "__main__":
    program.run(main)
