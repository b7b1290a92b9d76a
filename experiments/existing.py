"""What to do with networks that exist: verdicts, remedies, soups and fitted weights on Fashion-MNIST, with five seeds.

``python -m experiments.existing`` trains a base, three fine-tunings of it with different rates and orders, and two independent
networks, and permutes the units of a copy. It asks which of them can be averaged, what would help, and what soups are worth.
It writes a table, a picture and every
number of each kind of network.
"""

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import jsubspace
from experiments.lib import existing, provenance
from experiments.lib.existing import KINDS, TUNINGS, Data
from jsubspace import program
from jsubspace.errors import UsageError
from jsubspace.evaluation import bounds
from jsubspace.merging.clinic import Clinic
from jsubspace.storage.documents import write_json
from jsubspace.storage.files import write_text

OUTPUT = pathlib.Path("experiments") / "results" / "existing"
BATCH = 500
FIT_STEPS = 20
"""How many gradients a fit of weights takes at most."""
TUNED = tuple(name for name, _ in TUNINGS)
SOUPS = ("uniform", "greedy", "fitted", "stock")


def groups() -> dict[str, list[frozenset[str]]]:
    """The pairs that the table takes together."""
    alone = ("alone A", "alone B")
    return {
        "two fine-tunings": [frozenset((a, b)) for i, a in enumerate(TUNED) for b in TUNED[i + 1 :]],
        "a fine-tuning and its permuted copy": [frozenset(("tuned", "copy"))],
        "a fine-tuning and an independent network": [frozenset((a, b)) for a in TUNED for b in alone],
        "two independent networks": [frozenset(alone)],
    }


def batches(arrays: Any, size: int = BATCH) -> list[Any]:
    """Arrays as batches."""
    return [tuple(array[i : i + size] for array in arrays) for i in range(0, len(arrays[0]), size)]


def measure(kind: str, data: Data, seed: int, train: Any, network: Any, ways: Sequence[str]) -> dict[str, Any]:
    """One seed: the clinic, and the soups of the fine-tunings and of all networks that were trained."""
    made = existing.networks(kind, network, train, data, seed)
    images = (data.train[0][: existing.STATISTICS],)
    options = {} if network.stats is None else {"stats_fn": network.stats, "train_batches": batches(images, 128)}
    found = jsubspace.clinic(existing.log_prob(network), made.networks, batches(data.test), num_points=7, **options)
    log_prob_fn = existing.alone(network, data.train)
    tuned = {name: made.networks[name] for name in TUNED}
    soups = {"fine-tunings": _soups(log_prob_fn, tuned, made.base, data, ways)}
    trained = {name: point for name, point in made.networks.items() if name != "copy"}
    soups["fine-tunings and independent"] = _soups(log_prob_fn, trained, made.base, data, ways)
    return {"seed": seed, "clinic": found, "soups": soups}


def _soups(log_prob_fn: Any, networks: dict[str, Any], base: Any, data: Data, ways: Sequence[str]) -> dict[str, Any]:
    """Weights, the gains on unseen validation images, and the losses on test images."""
    made: dict[str, Any] = {}
    points = {}
    for how in ways:
        origin = {"origin": base} if how == "stock" else {}
        weights, points[how], report = jsubspace.soup(
            log_prob_fn, networks, batches(data.validation), how, num_steps=FIT_STEPS, **origin
        )
        made[how] = {"weights": dict(weights), "over_best": report.over_best}
        if how == "fitted":
            made[how]["over_center"] = report.over_center
    best = min(report.losses, key=lambda name: report.losses[name] if name in networks else np.inf)
    losses = {
        name: np.concatenate([-np.asarray(log_prob_fn(point, *batch)) for batch in batches(data.test)])
        for name, point in {**points, "best single": networks[best]}.items()
    }
    for how in ways:
        gain = losses["best single"].astype(np.float64) - losses[how]
        made[how] |= {"test_gain": float(gain.mean()), "test_interval": bounds.of_differences(gain, bounded=False)}
    return made | {"best": best, "test_loss": {name: float(each.mean()) for name, each in losses.items()}}


def to_json(measured: dict[str, Any]) -> dict[str, Any]:
    """One seed's numbers as they are recorded."""
    found: Clinic = measured["clinic"]
    soups = {
        of: {
            how: row | {name: row[name]._asdict() for name in ("over_best", "over_center") if name in row}
            if how in SOUPS
            else row
            for how, row in each.items()
        }
        for of, each in measured["soups"].items()
    }
    treatments = {name: each.to_json() for name, each in found.treatments.items()}
    return {
        "seed": measured["seed"],
        "treatments": treatments,
        "cosines": found.cosines.tolist(),
        "best": found.best,
        "soups": soups,
    }


def table_of_barriers(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Barriers before and after each remedy: means over seeds and pairs with a t interval over seeds, and verdicts."""
    lines = [
        "| networks | pairs | remedy | barrier | over seeds | connected, not connected, not decided |",
        "| --- " * 6 + "|",
    ]
    for kind, seeds in rows.items():
        for label, pairs in groups().items():
            for remedy in seeds[0]["treatments"]:
                chosen = [
                    [pair for pair in row["treatments"][remedy]["pairs"] if frozenset(pair["names"]) in pairs]
                    for row in seeds
                ]
                heights = [float(np.mean([pair["height"] for pair in of_seed])) for of_seed in chosen]
                verdicts = [pair["verdict"] for of_seed in chosen for pair in of_seed]
                counts = ", ".join(str(verdicts.count(word)) for word in ("connected", "not connected", "not decided"))
                lines.append(
                    f"| {kind} | {label} | {remedy} | {np.mean(heights):.4f} | {_interval(bounds.of_runs(heights))} | {counts} |"
                )
    return "\n".join(lines)


def table_of_soups(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Losses on test images, and the gain of each soup over the single network that was best on the validation images."""
    head = "| networks | soup of | how | test loss | test gain over the best single | over seeds | verdicts on validation images |"
    lines = [head, "| --- " * 7 + "|"]
    for kind, seeds in rows.items():
        for of in seeds[0]["soups"]:
            for how in (way for way in SOUPS if way in seeds[0]["soups"][of]):
                found = [row["soups"][of] for row in seeds]
                gains = [each[how]["test_gain"] for each in found]
                verdicts = [each[how]["over_best"]["verdict"] for each in found]
                counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
                loss = np.mean([each["test_loss"][how] for each in found])
                lines.append(
                    f"| {kind} | {of} | {how} | {loss:.4f} | {np.mean(gains):+.4f} | {_interval(bounds.of_runs(gains))} | {counts} |"
                )
    return "\n".join(lines)


def table_of_alphas(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The fitted weights of the fine-tunings, with the gain over equal weights on images that the fit has not seen."""
    lines = ["| networks | seed | weights | gain over equal weights | 95 % interval | verdict |", "| --- " * 6 + "|"]
    for kind, seeds in rows.items():
        for row in (row for row in seeds if "fitted" in row["soups"]["fine-tunings"]):
            fitted = row["soups"]["fine-tunings"]["fitted"]
            weights = ", ".join(f"{name} {weight:.2f}" for name, weight in fitted["weights"].items())
            gain = fitted["over_center"]
            lines.append(
                f"| {kind} | {row['seed']} | {weights} | {gain['value']:+.4f} | {_interval(gain['interval'])} | {gain['verdict']} |"
            )
    return "\n".join(lines)


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.existing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=300, help="the number of steps of every training")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="the networks")
    parser.add_argument(
        "--sizes",
        nargs=4,
        type=int,
        default=[2000, 2000, 1000, 1000],
        help="images for the base, for fine-tuning, validation and test",
    )
    parser.add_argument("--soups", nargs="+", default=list(SOUPS), choices=SOUPS, help="the kinds of soups")
    parser.add_argument("--data", default="", help="the folder of prepared data; by default the library's own")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the folder of the results")
    arguments = parser.parse_args()
    if arguments.steps < 1 or len(set(arguments.seeds)) < len(arguments.seeds):
        raise UsageError("--steps must be at least 1, and every seed is given once: each seed is a network of its own.")
    data = existing.load(arguments.data, arguments.sizes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for kind in arguments.kinds:
        record(kind, data, arguments)


def record(kind: str, data: Data, arguments: argparse.Namespace) -> None:
    """All seeds of one kind of network, and its files."""
    start = time.monotonic()
    network = existing.make(kind)
    train = existing.trainer(network, arguments.steps)
    seeds = []
    for seed in arguments.seeds:
        found = measure(kind, data, seed, train, network, arguments.soups)
        seeds.append(to_json(found))
        print(f"{kind}, seed {seed}\n{found['clinic']}\n", flush=True)
        if seed == arguments.seeds[0]:
            found["clinic"].before.plot(arguments.output / f"{kind}.png")
    command = (
        f"python -m experiments.existing --steps={arguments.steps} --seeds {' '.join(map(str, arguments.seeds))} "
        f"--kinds {kind} --sizes {' '.join(map(str, arguments.sizes))} --soups {' '.join(arguments.soups)}"
    )
    made_by = {
        "command": command, "commit": provenance.commit(), "versions": provenance.versions("optax", "scipy"),
        "machine": provenance.machine(), "seconds": round(time.monotonic() - start),
    }  # fmt: skip
    rows = {kind: seeds}
    write_json(arguments.output / f"{kind}.json", made_by | {"networks": rows})
    tables = "\n\n".join((table_of_barriers(rows), table_of_soups(rows), table_of_alphas(rows)))
    text = f"# Networks that exist already: {kind}\n\n`{command}`\n\n{tables}\n"
    write_text(arguments.output / f"{kind}.md", text)
    print(text)


if __name__ == "__main__":
    program.run(main)
