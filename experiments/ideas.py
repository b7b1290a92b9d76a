"""Ideas that may make a line better, each with its reason: ``python -m experiments.ideas``.

The problem is the small one of the figures, 2,000 images of Fashion-MNIST, for 30 epochs. 5,000 other training images are
validation images, and they judge alone: this program never reads the test set. Three seeds. The reasons in `lib.ideas` were
written and committed before the first result. cos² and distance of the ends stand beside every accuracy, because a line that
has collapsed is one network.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.lib import provenance
from experiments.lib.budgets import SMALL
from experiments.lib.ideas import IDEAS, OF_AVERAGE, PLAIN, REASON_OF_AVERAGE, Idea, Trial
from experiments.lib.study_record import SCORES
from jsubspace import preemption, program
from jsubspace.evaluation import bounds
from jsubspace.runs import build, config, recipes
from jsubspace.storage.documents import write_json
from jsubspace.storage.files import make_folder, write_text

OUTPUT = pathlib.Path("experiments") / "results" / "ideas"
SEEDS = (0, 1, 2)
BUDGET = SMALL[1]
TITLES = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE", "ece_debiased": "debiased ECE"}


def trial() -> Trial:
    """The problem on which the ideas are tried."""
    settings = recipes.fashion_mnist_cresnet8("line")
    for field, given in BUDGET.scenario.settings:
        config.change(settings, field, str(given))
    settings.optimizer.num_epochs = BUDGET.scenario.num_epochs
    settings.data.num_validation = BUDGET.num_validation
    return Trial(build.build(settings))


def train(
    found: dict[str, Any], ideas: Sequence[Idea], seeds: Sequence[int], make: Callable[[], Any], path: pathlib.Path
) -> None:
    """Trains what is missing in ``found``, seed by seed, and writes the file after every run."""
    for seed in seeds:
        for idea in ideas:
            if str(seed) not in found["rows"].get(idea.name, {}):
                preemption.check()
                for name, row in make()(idea, seed).items():
                    found["rows"].setdefault(name, {})[str(seed)] = row | {"commit": provenance.commit()}
                write_json(path, found)
                print(f"seed {seed}, {idea.name}: {found['rows'][idea.name][str(seed)]['validation']}", flush=True)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Scores on validation images, with differences to the plain line that are paired by seed and have 95 % t intervals."""
    head = [
        "",
        "seeds",
        *TITLES.values(),
        "accuracy − line's",
        "NLL − line's",
        "ensemble of the ends",
        "cos²",
        "distance",
    ]
    lines = [head, ["---"] * len(head)]
    for name, of_seeds in rows.items():
        plain = rows.get(PLAIN, {})
        line = [name, str(len(of_seeds))]
        line += [f"{np.mean([row['validation'][score] for row in of_seeds.values()]):.4f}" for score in SCORES]
        for score in ("accuracy", "nll"):
            pairs = [of_seeds[s]["validation"][score] - plain[s]["validation"][score] for s in of_seeds if s in plain]
            line.append("" if name == PLAIN else _difference(pairs))
        line.append(f"{np.mean([row['ensemble']['accuracy'] for row in of_seeds.values()]):.4f}")
        line += [f"{np.mean([row[of] for row in of_seeds.values()]):.3g}" for of in ("cosine_squared", "distance")]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _difference(pairs: Sequence[float]) -> str:
    interval = bounds.of_runs(pairs)
    mean = f"{np.mean(pairs):+.4f}" if pairs else ""
    return mean if interval is None else f"{mean} ({interval[0]:+.4f} to {interval[1]:+.4f})"


def reasons() -> dict[str, str]:
    """The reason of every row."""
    found = {}
    for idea in IDEAS:
        found[idea.name] = idea.reason
        if idea.ema:
            found[OF_AVERAGE.format(idea.name)] = REASON_OF_AVERAGE
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.ideas", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the folder of the results, which resume")
    parser.add_argument("--plot", action="store_true", help="train nothing: write the table of the finished runs")
    arguments = parser.parse_args()
    path = arguments.output / "ideas.json"
    found: dict[str, Any] = {"rows": {}}
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
    found |= {"command": "python -m experiments.ideas", "reasons": reasons(), "versions": provenance.versions()}
    found |= {"machine": provenance.machine()}
    make_folder(arguments.output)
    if not arguments.plot:
        train(found, IDEAS, arguments.seeds, functools.cache(trial), path)
    write_json(path, found)
    listed = "\n".join(f"- *{name}*: {reason}" for name, reason in found["reasons"].items())
    text = f"# {BUDGET.title}: ideas, judged on validation images\n\n`{found['command']}`\n\n{listed}\n\n{table(found['rows'])}\n"
    write_text(path.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    program.run(main)
