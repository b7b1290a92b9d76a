"""Which images are no digits: networks that were trained on digits see other images, and say how uncertain they are."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jsubspace
from jsubspace.evaluation.uncertainty.report import UncertaintyReport, UncertaintyRow
from jsubspace.examples import fitting, intervals, mlp, small_images
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints


@functools.partial(jax.jit, static_argnames=("subspace", "num_steps"))
def train(key: jax.Array, subspace: Subspace, num_steps: int = 600) -> Endpoints:
    """Endpoints ``[m, *s]`` that were trained on the digits: AdamW, with a rate that falls to zero along a cosine."""
    init_key, key = jax.random.split(key)
    endpoints = jsubspace.init_endpoints(init_key, small_images.init_fn, subspace)
    optimizer = jsubspace.per_endpoint(optax.adamw(optax.cosine_decay_schedule(1e-3, num_steps), weight_decay=0.1))
    run = fitting.steps(small_images.loss_fn, subspace, optimizer, fitting.rows(64), num_steps)
    return run(key, fitting.start(endpoints, optimizer), jax.tree.map(jnp.asarray, small_images.digits().train))[
        0
    ].endpoints


def measure(endpoints: Endpoints, outside: np.ndarray) -> UncertaintyReport:
    """The uncertainty of two endpoints, their midpoint and their ensemble on digits, and on images ``[n, 64]`` that are none."""
    digits = small_images.digits()
    return jsubspace.uncertainty(
        mlp.apply,
        endpoints,
        jsubspace.Line(),
        validation_batches=[digits.validation],
        test_batches=[digits.test],
        outside_batches=[(outside,)],
    )


def compare(seed: int, outside: Mapping[str, np.ndarray], num_steps: int = 600) -> dict[str, dict[str, UncertaintyRow]]:
    """Trains a line and two independent networks, and measures both with every set of other images.

    Returns:
      A row by the name of the other images and the predictor.
    """
    line_key, *network_keys = jax.random.split(jax.random.key(seed), 3)
    line = train(line_key, jsubspace.Line(), num_steps)
    networks = [jsubspace.midpoint(train(key, jsubspace.Point(), num_steps)) for key in network_keys]
    found = {}
    for name, images in outside.items():
        along, apart = measure(line, images), measure(jsubspace.stack(networks), images)
        found[name] = {
            "standard training": apart.points[1],
            "midpoint of the line": along.center,
            "end of the line": along.points[1],
            "ensemble of its ends": along.ensembles[0],
            "2 independent networks": apart.ensembles[0],
        }
    return found


def table(rows: Sequence[Mapping[str, UncertaintyRow]]) -> str:
    """Means over seeds, with half of the 95 % t interval, as Markdown. Images are found by the entropy of the predictions.

    Args:
      rows: for every seed, a row by predictor.
    """
    lines = ["| predictor | accuracy | NLL | AUROC | FPR95 |", "| --- | --- | --- | --- | --- |"]
    for name in rows[0]:
        of_seeds = [row[name] for row in rows]
        columns = (
            [row.scores["accuracy"] for row in of_seeds],
            [row.scores["nll"] for row in of_seeds],
            [row.detection["entropy"].auroc for row in of_seeds],
            [row.detection["entropy"].fpr95 for row in of_seeds],
        )
        lines.append(f"| {' | '.join([name, *map(intervals.of_seeds, columns)])} |")
    return "\n".join(lines)
