"""Whether a figure that was made anew has the recorded numbers: ``python -m experiments.reproduced NEW.json``.

Every number of every seed that both have is compared. On the machine and versions of the recorded runs they are equal; on
another processor, rounding differs in a first step, training magnifies it, and it is the means over seeds that agree.
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
    """Between two figures, the contents of their JSON files.

    Args:
      new: of any of the seeds that are recorded.
      recorded: of the same figure.

    Returns:
      The greatest absolute difference, where it is, and of how many numbers.

    Raises:
      UsageError: if they are not of one figure and scale, do not show the same, or share no seed.
    """
    if _asked(new) != _asked(recorded):
        raise UsageError(
            f"one figure was made by {_asked(new)!r}, the other by {_asked(recorded)!r}; give two of a kind."
        )
    shared = [seed for seed in _seeds(new) if seed in _seeds(recorded)]
    if not shared:
        raise UsageError(f"the seeds made anew are {_seeds(new)}, those recorded {_seeds(recorded)}; none is in both.")
    numbers, numbers_recorded = (_numbers(made, shared) for made in (new, recorded))
    if numbers.keys() != numbers_recorded.keys():
        place = min(numbers.keys() ^ numbers_recorded.keys())
        raise UsageError(f"{place} is in one of the figures and not in the other.")
    apart = {place: abs(number - numbers_recorded[place]) for place, number in numbers.items()}
    worst = max(apart, key=lambda place: math.inf if math.isnan(apart[place]) else apart[place])
    return apart[worst], worst, len(numbers)


def main() -> None:
    """The command; exit code 1 if a number differs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduced", description=__doc__.splitlines()[0])
    parser.add_argument("new", type=pathlib.Path, help="JSON file of a figure")
    parser.add_argument("--recorded", type=pathlib.Path, help="that of the repository, unless it is said")
    arguments = parser.parse_args()
    recorded = arguments.recorded or figure.OUTPUT / "small" / arguments.new.name
    figures = []
    for path in (arguments.new, recorded):
        if not path.is_file():
            raise UsageError(f"there is no file {path}; a figure's command writes it, in the folder given by --output.")
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
            raise UsageError(f"{made['figure']} shows planes; only figures of curves are compared number by number.")
        for series in panel["series"]:
            for seed in seeds:
                for i, value in enumerate(series["y"][_seeds(made).index(seed)]):
                    found[f"{panel['y_label']} of {series['label']}, seed {seed}, value {i} ({panel['title']})"] = value
    return found


if __name__ == "__main__":
    program.call(main)
