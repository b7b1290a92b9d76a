"""Fine-tuning on shifted digits: subspaces of whole weights, of deltas and of low-rank factors, with five seeds.

``python -m experiments.finetune`` trains a small network on upright digits and fine-tunes it on 200 mirrored ones, in nine
ways and with two optimizers. It takes some minutes on one core. It writes a table, a picture and every number.
"""

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib import fine_tuning, plots, provenance
from experiments.lib.figure import Panel, Series
from experiments.lib.fine_tuning import ALPHAS, RATES, Measured
from jsubspace import program
from jsubspace.errors import UsageError
from jsubspace.evaluation import bounds, paired
from jsubspace.storage.documents import write_json
from jsubspace.storage.files import write_text

OUTPUT = pathlib.Path("experiments") / "results" / "finetune"
POINTS = ("midpoint", "ends")

COMPARISONS = (
    ("deltas, β = 1", "common start, β = 1", "mirrored", "ends"),
    ("deltas, β = 1", "common start, β = 1", "mirrored", "midpoint"),
    ("deltas, β = 1", "common start, β = 1", "original", "ends"),
    ("deltas, β = 1", "common start, β = 1", "original", "midpoint"),
    ("deltas, β = 1", "deltas, β = 0", "mirrored", "ends"),
    ("deltas, β = 1", "one network", "mirrored", "midpoint"),
    ("deltas, β = 1", "one network", "original", "midpoint"),
    ("LoRA, products, β = 1", "LoRA, factors, β = 1", "mirrored", "ends"),
    ("LoRA, products, β = 1", "LoRA, factors, β = 1", "mirrored", "midpoint"),
    ("LoRA, products, β = 1", "one LoRA", "mirrored", "midpoint"),
    ("LoRA, products, β = 1", "one LoRA", "original", "midpoint"),
)
"""Two ways, and the images and points on which their accuracies are compared."""

DRAWN = ("one network", "common start, β = 1", "deltas, β = 1", "LoRA, factors, β = 1", "LoRA, products, β = 1")


def measure(seeds: Sequence[int], steps: int, data_dir: str) -> dict[tuple[str, str], dict[float, Measured]]:
    """For every way and optimizer, what was measured with each learning rate. The first rate is the chosen one.

    Validation images choose the rate of the single network, and all ways of its kind are compared at this rate.
    """
    data = jax.tree.map(lambda *leaves: np.stack(leaves), *[fine_tuning.load(seed, data_dir) for seed in seeds])
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    base_keys, keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    base = jax.jit(jax.vmap(fine_tuning.pretrained))(base_keys, data)
    found: dict[tuple[str, str], dict[float, Measured]] = {}
    for way in fine_tuning.ways():
        for optimizer, rates in RATES.items():
            run = jax.jit(jax.vmap(fine_tuning.fine_tuned(way, optimizer, steps), in_axes=(0, None, 0, 0)))
            made = {rate: jax.tree.map(np.asarray, run(keys, jnp.float32(rate), base, data)) for rate in rates}
            single = found.get((way.like, optimizer), made)
            chosen = next(iter(single)) if single is not made else max(rates, key=lambda rate: _validation(made[rate]))
            found[way.label, optimizer] = {chosen: made.pop(chosen), **made}
    return found


def _validation(made: Measured) -> float:
    return float(np.mean([_accuracy(made.validation, points) for points in POINTS]))


def _of(points: str, along: np.ndarray) -> np.ndarray:
    """The midpoint of ``[seeds, points, ...]``, or the mean of its ends: ``[seeds, ...]``. A single network is both."""
    count = along.shape[1]
    return along[:, count // 2] if points == "midpoint" else (along[:, 0] + along[:, -1]) / 2.0


def _accuracy(right: np.ndarray, points: str) -> np.ndarray:
    """``[seeds]``."""
    return _of(points, right.astype(np.float64)).mean(-1)


def row(label: str, optimizer: str, rate: float, made: Measured) -> dict[str, Any]:
    """What is written of one way: per seed the accuracies, the distances and cos² of the task vectors."""
    row: dict[str, Any] = {"way": label, "optimizer": optimizer, "rate": rate, "validation": _validation(made)}
    for points in POINTS:
        row[points] = {
            "mirrored": _accuracy(made.mirrored, points).tolist(),
            "original": _accuracy(made.original, points).tolist(),
            "moved": _of(points, made.moved.astype(np.float64)).tolist(),
        }
    row["cosine_squared"] = made.cosine.tolist()
    return row


def along(made: Measured) -> dict[str, list[list[float]]]:
    """Accuracies of all points, one list per seed."""
    return {name: getattr(made, name).mean(-1).tolist() for name in ("mirrored", "original")}


def compared(found: dict[tuple[str, str], Measured], optimizer: str) -> list[dict[str, Any]]:
    """`COMPARISONS` with a t interval over seeds and, for these networks, an interval over test images."""
    made = []
    for ours, theirs, images, points in COMPARISONS:
        both = [getattr(found[label, optimizer], images) for label in (ours, theirs)]
        differences = _accuracy(both[0], points) - _accuracy(both[1], points)
        of_images = paired.of_means(*([*_of(points, of.astype(float))] for of in both), is_fraction=True)
        made.append(
            {
                "ours": ours, "theirs": theirs, "optimizer": optimizer, "images": images, "points": points,
                "difference": float(differences.mean()), "over_seeds": bounds.of_runs(differences.tolist()),
                "over_images": of_images[1] if of_images else None,
            }
        )  # fmt: skip
    return made


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, with the standard deviation of accuracies."""
    head = "| way | optimizer | rate | mirrored, midpoint | mirrored, ends | original, midpoint | original, ends | moved, midpoint | moved, ends | cos² |"
    lines = [head, "| --- " * 10 + "|"]
    for row in rows:
        accuracies = [_mean(row[points][images]) for images in ("mirrored", "original") for points in POINTS]
        moved = [f"{np.mean(row[points]['moved']):.1f}" for points in POINTS]
        cosine = np.mean(row["cosine_squared"])
        last = f"{cosine:.4f}" if np.isfinite(cosine) else ""
        lines.append(
            "| " + " | ".join([row["way"], row["optimizer"], f"{row['rate']:g}", *accuracies, *moved, last]) + " |"
        )
    return "\n".join(lines)


def table_of_comparisons(comparisons: list[dict[str, Any]]) -> str:
    """Differences of accuracies with both intervals."""
    lines = ["| difference | images | points | optimizer | mean | over seeds | over test images |", "| --- " * 7 + "|"]
    for one in comparisons:
        cells = [
            f"{one['ours']} − {one['theirs']}",
            one["images"],
            one["points"],
            one["optimizer"],
            f"{one['difference']:+.4f}",
        ]
        lines.append(f"| {' | '.join([*cells, *(_interval(one[name]) for name in ('over_seeds', 'over_images'))])} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _interval(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def panels(rows: list[dict[str, Any]]) -> list[Panel]:
    """Accuracy along the line, on mirrored and on original digits."""
    made = []
    for optimizer in RATES:
        for images in ("mirrored", "original"):
            series = []
            for row in rows:
                if row["optimizer"] == optimizer and row["way"] in DRAWN:
                    along = row["along"][images]
                    series.append(Series(row["way"], along, ALPHAS.tolist() if len(along[0]) > 1 else None))
            made.append(Panel(f"{optimizer}: {images} digits", "α", "test accuracy (%)", series, percent=True))
    return made


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.finetune", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=300, help="the number of steps of fine-tuning")
    parser.add_argument("--data", default="", help="the folder of prepared data; by default the library's own")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the folder of the results")
    arguments = parser.parse_args()
    if arguments.steps < 1 or len(set(arguments.seeds)) < len(arguments.seeds):
        raise UsageError("--steps must be at least 1, and every seed is given once: each seed is a network of its own.")
    start = time.monotonic()
    found = measure(arguments.seeds, arguments.steps, arguments.data)
    rows = [row(*name, rate, made) for name, of in found.items() for rate, made in of.items()]
    chosen = [
        row(*name, *next(iter(of.items()))) | {"along": along(next(iter(of.values())))} for name, of in found.items()
    ]
    best = {name: next(iter(of.values())) for name, of in found.items()}
    comparisons = [one for optimizer in RATES for one in compared(best, optimizer)]
    command = f"python -m experiments.finetune --steps={arguments.steps} --seeds {' '.join(map(str, arguments.seeds))}"
    made_by = {
        "command": command, "commit": provenance.commit(), "versions": provenance.versions("optax"),
        "machine": provenance.machine(), "seconds": round(time.monotonic() - start),
    }  # fmt: skip
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "finetune"
    write_json(
        path.with_suffix(".json"), made_by | {"chosen": chosen, "comparisons": comparisons, "at_all_rates": rows}
    )
    text = (
        f"# Fine-tuning on mirrored digits\n\n`{command}`\n\n{table(chosen)}\n\n{table_of_comparisons(comparisons)}\n"
    )
    write_text(path.with_suffix(".md"), text)
    plots.curves(panels(chosen), path, 2)
    print(text)


if __name__ == "__main__":
    program.run(main)
