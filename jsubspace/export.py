"""One network of a trained subspace, for any program: ``python -m jsubspace.export --workdir=RUN --to=FILE``.

FILE is ``NAME.safetensors``, or a folder for Orbax. The point is the midpoint, or ``--alpha``: a number from 0 to 1 on a
line or curve, the weights of the corners on a simplex (``--alpha=0.2,0.3,0.5``). It gets BatchNorm statistics of its own.
"""

import argparse
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jsubspace
from jsubspace import evaluate, program
from jsubspace.errors import UsageError
from jsubspace.evaluation import evaluator, survey
from jsubspace.exchange import network_files
from jsubspace.runs import build, parts, trained_endpoints
from jsubspace.subspaces import Point, Simplex, Subspace
from jsubspace.training import parallel


def export(workdir: str | pathlib.Path, to: str | pathlib.Path, alpha: str = "") -> dict[str, Any]:
    """Writes the network at ``alpha`` of the run's newest checkpoint, and returns the facts that go along.

    Args:
      workdir: the run's folder.
      to: ``NAME.safetensors`` or a folder, neither there yet; see `networks.save`.
      alpha: as on the command line; "" for the midpoint.

    Returns:
      ``alpha`` and ``weights`` (of the endpoints), the ``config``, and what must be done to images first:
      subtract ``mean`` from pixels in [0, 1], divide by ``std``.

    Raises:
      UsageError: if there is no run, no checkpoint, no such point, or the network cannot be written there.
    """
    workdir, to = pathlib.Path(workdir), pathlib.Path(to)
    network_files.check_target(to)
    settings = evaluate.load_config(workdir)
    subspace = parts.make_evaluated(settings)
    position = read_alpha(alpha, subspace)
    run = build.build(settings)
    endpoints = trained_endpoints(run, workdir)
    weights = np.asarray(subspace.coefficients(jnp.asarray(position, jnp.float32)))
    stats = evaluator.Evaluator(run, survey.affine(weights[None])).batch_stats(endpoints)
    point = jax.jit(lambda endpoints: jsubspace.interpolate(endpoints, position, subspace))(endpoints)
    network = jax.device_get({"params": point, "batch_stats": jax.tree.map(lambda leaf: leaf[0], stats)})
    data_set = run.pipeline.data_set
    facts = {
        "alpha": position.tolist(),
        "weights": weights.tolist(),
        "mean": list(data_set.mean),
        "std": list(data_set.std),
        "config": settings.to_dict(),
        "jsubspace": jsubspace.__version__,
    }
    network_files.save(to, network, facts)
    return facts


def read_alpha(text: str, subspace: Subspace) -> np.ndarray:
    """A position in a subspace, ``[*alpha_shape]``, from the command line; "" is the center.

    Raises:
      UsageError: if it is not in the subspace.
    """
    if not text:
        return np.asarray(subspace.center)
    if isinstance(subspace, Point):
        raise UsageError(f"--alpha is {text!r} but the run is standard training: its only point needs no --alpha.")
    if isinstance(subspace, Simplex):
        m = subspace.num_endpoints
        expected = f"{m} weights, none negative, that sum to 1, with commas between"
    else:
        m, expected = 1, "a number from 0 to 1"
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    inside = len(numbers) == m and all(0 <= number <= 1 for number in numbers)
    if not inside or (isinstance(subspace, Simplex) and not math.isclose(sum(numbers), 1, abs_tol=1e-6)):
        raise UsageError(f"--alpha is {text!r}; in this run's {type(subspace).__name__.lower()} it must be {expected}.")
    return np.asarray(numbers, np.float32).reshape(subspace.alpha_shape)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m jsubspace.export", description="Exports one network of a trained subspace."
    )
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--to", required=True, help="NAME.safetensors, or a folder for Orbax")
    parser.add_argument(
        "--alpha", default="", help="the point: a number, or weights of a simplex; the midpoint if left out"
    )
    arguments = parser.parse_args()
    parallel.use_cpu_cores()
    facts = export(arguments.workdir, arguments.to, arguments.alpha)
    print(f"{arguments.to} is the network at alpha = {facts['alpha']}.")


if __name__ == "__main__":
    program.call(main)
