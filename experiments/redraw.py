"""Draws recorded figures again from their JSON files: ``python -m experiments.redraw [NAME ...]``.

It needs no runs, and it changes no number: it writes pictures alone. The demo's picture needs its runs
(``python -m experiments.demo --plot``), because the record of the demo has no curves.
"""

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any

from experiments import figure2, finetune
from experiments.__main__ import MODULES
from experiments.lib import figure, plots
from jsubspace import compare, program
from jsubspace.errors import UsageError
from jsubspace.evaluation import bounds
from jsubspace.evaluation import plots as evaluation_plots
from jsubspace.merging import barriers, connection_plots

KINDS = ("MLP", "cResNet8")
RESULTS = pathlib.Path(__file__).parent / "results"


def recorded(path: pathlib.Path) -> Any:
    """The numbers of a figure, from the JSON file that git has."""
    return json.loads(path.with_suffix(".json").read_text())


def small(module: Any) -> Callable[[pathlib.Path, pathlib.Path], None]:
    """Draws a figure of the paper at small scale."""

    def draw(results: pathlib.Path, output: pathlib.Path) -> None:
        made = module.FIGURE
        path = pathlib.Path("figures") / "small" / made.name
        panels = [panel_of(panel) for panel in recorded(results / path)["panels"]]
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        made.draw(panels, output / path, made.columns)

    return draw


def panel_of(recorded: dict[str, Any]) -> figure.Panel | figure2.Plane:
    """The panel of a dictionary that `dataclasses.asdict` has made."""
    if "error" in recorded:
        return figure2.Plane(**recorded)
    return figure.Panel(**recorded | {"series": [figure.Series(**series) for series in recorded["series"]]})


def fine_tuning(results: pathlib.Path, output: pathlib.Path) -> None:
    """Draws the accuracies along the lines of fine-tuning."""
    (output / "finetune").mkdir(parents=True, exist_ok=True)
    chosen = recorded(results / "finetune" / "finetune")["chosen"]
    plots.curves(finetune.panels(chosen), output / "finetune" / "finetune", 2)


def methods(results: pathlib.Path, output: pathlib.Path) -> None:
    """Draws the methods side by side, in the metrics of a classification."""
    (output / "methods").mkdir(parents=True, exist_ok=True)
    entries = [
        compare.Entry(
            **entry,
            over_runs={metric: bounds.of_runs(values) for metric, values in entry["values"].items()},
            to_first=dict.fromkeys(entry["values"]),  # The record has no scores per example.
        )
        for entry in recorded(results / "methods" / "comparison")
    ]
    compare.draw(entries, compare.USUAL, output / "methods" / "comparison.png")


def existing(results: pathlib.Path, output: pathlib.Path) -> None:
    """Draws the barriers between networks of the first seed, as they are."""
    (output / "existing").mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        found = recorded(results / "existing" / kind)["networks"][kind][0]["treatments"]["as they are"]
        pairs = [barriers.Barrier(**pair) for pair in found["pairs"]]
        worst = max(pairs, key=lambda pair: pair.height)
        figure = connection_plots.matrix_and_path(found["names"], pairs, worst, found["tolerance"])
        evaluation_plots.save(figure, output / "existing" / f"{kind}.png")


FIGURES = {module.FIGURE.name: small(module) for module in MODULES} | {
    "finetune": fine_tuning,
    "methods": methods,
    "existing": existing,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.redraw", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(FIGURES)}")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, help="the folder of the results")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(FIGURES)):
        raise UsageError(f"no recorded figure has the name {unknown[0]!r}. Choose from {', '.join(FIGURES)}.")
    for name in arguments.names or FIGURES:
        FIGURES[name](RESULTS, arguments.output)
        print(name)


if __name__ == "__main__":
    program.run(main)
