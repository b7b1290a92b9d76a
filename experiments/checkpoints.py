"""Averaged checkpoints of a constant-rate run against a decayed learning rate, on a small GPT and on noisy quadratics.

``python -m experiments.checkpoints`` trains a small GPT on Python's source text at a constant rate, averages its checkpoints with the
weights of three decays, and trains the three decayed runs. It takes some minutes per seed on two cores.
"""

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from experiments.lib import decayed, provenance
from experiments.lib.decayed import CONSTANT, DECAYED, QUADRATIC, REPLAYED
from jsubspace import program
from jsubspace.errors import UsageError
from jsubspace.evaluation import bounds, paired
from jsubspace.examples import source_text
from jsubspace.examples.gpt import GPT, Shape
from jsubspace.merging.checkpoints import DECAYS
from jsubspace.storage.documents import write_json
from jsubspace.storage.files import make_folder, write_text

OUTPUT = pathlib.Path("experiments") / "results" / "checkpoints"
NOISES = (0.0, 0.05, 0.2, 0.5)
PIECES = 512
"""Pieces of the test text, at equal distances."""


def measure(seeds: Sequence[int], num_steps: int, start: int, shape: Shape) -> dict[str, np.ndarray]:
    """The bits per byte of every network on every piece of the test text, ``[seeds, pieces]`` by name."""
    model, text = GPT(shape), source_text.read("train")
    pieces = source_text.sequences(source_text.read("test"), model.shape.length, PIECES)

    @jax.jit
    def bits(point: Any) -> jax.Array:
        logits = model.predict_fn(point, pieces[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, pieces[:, 1:]).mean(-1) / np.log(2)

    found = [
        {name: np.asarray(bits(point)) for name, point in decayed.networks(model, seed, num_steps, start, text).items()}
        for seed in seeds
    ]
    return {name: np.stack([of_seed[name] for of_seed in found]) for name in found[0]}


def compared(bits: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Differences of bits per byte, with intervals over seeds and, for these networks, over pieces of text."""
    rows = []
    for decay in DECAYS:
        pairs = [(f"{kind}, {decay}", f"{DECAYED}, {decay}") for kind in (REPLAYED, QUADRATIC)]
        pairs += [(f"{REPLAYED}, {decay}", CONSTANT), (f"{DECAYED}, {decay}", CONSTANT)]
        for ours, theirs in pairs:
            differences = bits[ours].mean(-1) - bits[theirs].mean(-1)
            over_text = paired.of_means([*bits[ours]], [*bits[theirs]])
            rows.append(
                {
                    "ours": ours, "theirs": theirs, "difference": float(differences.mean()),
                    "over_seeds": bounds.of_runs(differences.tolist()), "over_text": over_text[1] if over_text else None,
                }
            )  # fmt: skip
    return rows


def table(bits: dict[str, np.ndarray]) -> str:
    """The mean bits per byte over seeds with the standard deviation."""
    lines = ["| network | bits per byte |", "| --- | --- |"]
    for name, of_seeds in bits.items():
        means = of_seeds.mean(-1)
        spread = f" ± {means.std(ddof=1):.4f}" if len(means) > 1 else ""
        lines.append(f"| {name} | {means.mean():.4f}{spread} |")
    return "\n".join(lines)


def table_of_differences(rows: list[dict[str, Any]]) -> str:
    """Differences with both intervals."""
    lines = ["| difference | mean | over seeds | over text |", "| --- " * 4 + "|"]
    for row in rows:
        intervals = [
            f"{row[name][0]:+.4f} to {row[name][1]:+.4f}" if row[name] else "" for name in ("over_seeds", "over_text")
        ]
        lines.append(f"| {row['ours']} − {row['theirs']} | {row['difference']:+.4f} | {' | '.join(intervals)} |")
    return "\n".join(lines)


def table_of_quadratics(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The losses on quadratics with noise."""
    names = (CONSTANT, DECAYED, REPLAYED, QUADRATIC)
    lines = [f"| noise | decay | {' | '.join(names)} |", "| --- " * 6 + "|"]
    for noise, of_noise in found.items():
        for decay, losses in of_noise.items():
            lines.append(f"| {noise} | {decay} | {' | '.join(f'{losses[name]:.2e}' for name in names)} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.checkpoints", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--steps", type=int, default=1200, help="the number of steps of every run")
    parser.add_argument("--start", type=int, default=800, help="the step at which the decay begins")
    parser.add_argument("--width", type=int, default=96, help="the width of the network")
    parser.add_argument("--blocks", type=int, default=3, help="the number of its blocks")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="the folder of the results")
    given = parser.parse_args()
    if not 0 < given.start < given.steps or given.start % decayed.CHUNK or given.steps % decayed.CHUNK:
        raise UsageError(
            f"--start and --steps must be multiples of {decayed.CHUNK}, and the decay begins before the last step."
        )
    if len(set(given.seeds)) < len(given.seeds):
        raise UsageError("every seed is given once: each seed is a run of its own.")
    began = time.monotonic()
    bits = measure(given.seeds, given.steps, given.start, Shape(width=given.width, blocks=given.blocks))
    quadratics = {str(noise): decayed.on_a_noisy_quadratic(noise) for noise in NOISES}
    rows = compared(bits)
    command = (
        f"python -m experiments.checkpoints --steps={given.steps} --start={given.start} --width={given.width} "
        f"--blocks={given.blocks} --seeds {' '.join(map(str, given.seeds))}"
    )
    made_by = {
        "command": command, "commit": provenance.commit(), "versions": provenance.versions("optax"),
        "machine": provenance.machine(), "text": source_text.describe(), "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    make_folder(given.output)
    means = {name: of_seeds.mean(-1).tolist() for name, of_seeds in bits.items()}
    content = made_by | {"bits_per_byte": means, "differences": rows, "quadratics": quadratics}
    write_json(given.output / "checkpoints.json", content)
    parts = ["# Averaged checkpoints against a decayed rate", f"`{command}`", table(bits), table_of_differences(rows)]
    parts += ["Expected losses after 200 steps on quadratics with noise:", table_of_quadratics(quadratics)]
    text = "\n\n".join(parts) + "\n"
    write_text(given.output / "checkpoints.md", text)
    print(text)


if __name__ == "__main__":
    program.run(main)
