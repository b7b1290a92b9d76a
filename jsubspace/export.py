"""One network of a trained subspace, for any program: ``python -m jsubspace.export --workdir=RUN --to=FILE``.

FILE is ``NAME.safetensors``, or a folder for Orbax. The point is the midpoint, or ``--alpha``: a number from 0 to 1 on a
line or curve, the weights of the corners on a simplex (``--alpha=0.2,0.3,0.5``). The network gets BatchNorm statistics of
its own.
"""

import argparse
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jsubspace
from jsubspace import arguments, evaluate, preemption, program, subspaces
from jsubspace.errors import UsageError
from jsubspace.evaluation import survey
from jsubspace.exchange import network_files
from jsubspace.preemption import Preemption
from jsubspace.runs import adapters, build, command_line, parts, trained_endpoints
from jsubspace.runs.problem import Problem
from jsubspace.runs.run import MakeProblem, checked_problem, facts
from jsubspace.storage import places
from jsubspace.subspaces import Subspace
from jsubspace.training import device_choice
from jsubspace.training.train_state import not_finite


def export(
    workdir: str | pathlib.Path, to: str | pathlib.Path, alpha: Any = "", problem: Problem | MakeProblem | None = None
) -> dict[str, Any]:
    """Writes the network at ``alpha`` of the run's newest checkpoint, and returns the facts that are written beside it.

    Args:
      workdir: the run's folder.
      to: ``NAME.safetensors`` or a folder. Neither may exist yet. See `network_files.save`.
      alpha: the position in the subspace, a number or an array ``[*alpha_shape]``, or a text as on the command line. "" or None
        stands for the midpoint.
      problem: for a run of a problem of your own, the problem or a function ``settings -> problem``.

    Returns:
      ``alpha``, the ``weights`` of the endpoints, the run's settings, and for images their normalisation: subtract ``mean``
      from pixels in [0, 1], then divide by ``std``.

    Raises:
      UsageError: if there is no run, no checkpoint or no such point, a number of the network is not finite, or the network
        cannot be written there.
    """
    to = places.located(to, "the network's file")
    network_files.check_target(to)
    network, found = network_at(workdir, alpha, problem)
    network_files.save(to, network, found)
    return found


def network_at(
    workdir: str | pathlib.Path, alpha: Any = "", problem: Problem | MakeProblem | None = None
) -> tuple[network_files.Network, dict[str, Any]]:
    """The network that `export` writes, on the host, and its facts. The arguments are those of `export`."""
    workdir = places.located(workdir, "the run's folder")
    settings = evaluate.load_settings(workdir)
    subspace = parts.make_evaluated(settings)
    position = read_alpha(alpha, subspace)
    run = build.build(settings, checked_problem(settings, problem))
    endpoints = trained_endpoints(run, workdir)
    weights = np.asarray(subspace.coefficients(jnp.asarray(position, jnp.float32)))
    evaluator = adapters.evaluator(run, run.problem.task, survey.affine(weights[None]))
    stats = adapters.batch_stats(run, evaluator, endpoints) or {}
    point = jax.jit(lambda endpoints: jsubspace.interpolate(endpoints, position, subspace))(endpoints)
    network = jax.device_get({"params": point, "batch_stats": jax.tree.map(lambda leaf: leaf[0], stats)})
    if leaf := not_finite(network):
        raise UsageError(
            f"the network at alpha = {position.tolist()} is not finite: the leaf {leaf} holds NaN or infinity. The endpoints of "
            f"{workdir} are too large for a mean or for BatchNorm statistics."
        )
    preemption.check()
    return network, {"alpha": position.tolist(), "weights": weights.tolist()} | facts(run)


def read_alpha(given: Any, subspace: Subspace) -> np.ndarray:
    """A position in a subspace, ``[*alpha_shape]``, from a text of the command line or from numbers. "" and None are the center.

    A position lies in the subspace if no endpoint has a negative coefficient there. If the subspace has negative
    coefficients at its own center or on its grid, positions with twice as negative coefficients are taken too.

    Raises:
      UsageError: if the position is not in the subspace.
    """
    if given is None or (isinstance(given, str) and not given):
        return np.asarray(subspace.center)
    text = repr(given) if isinstance(given, str) else arguments.described(given)
    if subspace.num_endpoints == 1:
        raise UsageError(f"--alpha is {text} but the run is standard training: its only point needs no --alpha.")
    fits = isinstance(given, str) or (arguments.are_real_numbers(given) and np.shape(given) == subspace.alpha_shape)
    try:
        numbers = [float(number) for number in (given.split(",") if isinstance(given, str) else np.ravel(given))]
    except (TypeError, ValueError):
        numbers = []
    fits = fits and len(numbers) == math.prod(subspace.alpha_shape)
    if not fits or not _is_inside(np.reshape(numbers, subspace.alpha_shape), subspace):
        raise UsageError(
            f"--alpha is {text}. In this run's {type(subspace).__name__.lower()} it must be {_expected(subspace)}."
        )
    return np.asarray(numbers, np.float32).reshape(subspace.alpha_shape)


def _is_inside(alpha: np.ndarray, subspace: Subspace) -> bool:
    coefficients = np.asarray(subspace.coefficients(jnp.asarray(alpha, jnp.float32)))
    shown = [np.asarray(subspace.center), *np.asarray(subspace.grid(21))]
    of_shown = np.asarray(subspace.coefficients(jnp.asarray(shown, jnp.float32)))
    least = min(0.0, float(of_shown.min()) * 2)
    return bool(np.isfinite(coefficients).all() and abs(coefficients.sum() - 1) <= 1e-6 and coefficients.min() >= least)


def _expected(subspace: Subspace) -> str:
    if subspaces.is_path(subspace):
        first, last = (float(np.asarray(end)) for end in subspace.ends)
        return f"a number from {first:g} to {last:g}"
    size = math.prod(subspace.alpha_shape)
    if subspaces.is_hull(subspace) and size == subspace.num_endpoints:
        return f"{size} weights, none negative, that sum to 1, with commas between"
    return "a number" if size == 1 else f"{size} numbers inside the subspace, with commas between"


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
    evaluate.add_file(parser)
    arguments = parser.parse_args()
    device_choice.use_cpu_cores()
    to = places.located(arguments.to, "--to")
    network_files.check_target(to)
    problem = command_line.problem_of(arguments.file)
    network, found = network_at(places.located(arguments.workdir, "--workdir"), arguments.alpha, problem)
    Preemption.current().hold()  # Once the network has its name, the same command would be refused.
    network_files.save(to, network, found)
    print(f"{to} is the network at alpha = {found['alpha']}.")


if __name__ == "__main__":
    program.run(main)
