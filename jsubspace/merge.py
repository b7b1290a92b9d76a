"""Merges networks in files: ``python -m jsubspace.merge uniform A.safetensors B.safetensors --to=FILE``.

FILES are safetensors files, indices of shards, folders of Orbax, or the folder of a run with one checkpoint per step. FILE is
``NAME.safetensors``, or a folder for Orbax. From files alone:

    uniform FILES                      all networks with the same weight
    average FILES --schedule=1-sqrt    the checkpoints of a constant-rate run, as if its rate had decayed
    stock FILES --base=FILE            from the pretrained network towards the average, as far as the angles say
    slerp FILE FILE --alpha=0.5        a point on the arc between two networks

With the network and the validation data of a problem of your own (docs/averaged_checkpoints.md):

    greedy FILES, fitted FILES         weights that are chosen by the loss
    connected FILES                    whether the networks can be averaged at all
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace import evaluate, program
from jsubspace.errors import UsageError
from jsubspace.exchange import averages, network_files, saved, state_parts
from jsubspace.exchange.leaf_files import Stored
from jsubspace.merging import arithmetic, checkpoints, connections, soups
from jsubspace.preemption import Preemption
from jsubspace.runs import command_line, given_networks
from jsubspace.runs.problem import Problem
from jsubspace.runs.run import checked_problem
from jsubspace.storage import places

UNIFORM, AVERAGE, STOCK, SLERP, GREEDY, FITTED, CONNECTED = (
    "uniform", "average", "stock", "slerp", "greedy", "fitted", "connected",
)  # fmt: skip

WHOLE = "whole"

Paths = Sequence[str | pathlib.Path]


def averaged(
    files: Paths,
    to: str | pathlib.Path,
    schedule: str = UNIFORM,
    part: str = "",
    unrelated: bool = False,
    **options: Any,
) -> str:
    """Writes a weighted average of networks, leaf by leaf, and returns what was done, in words.

    Args:
      files: the networks, or one folder of a run.
      to: ``NAME.safetensors`` or a folder for Orbax. Neither may exist yet. A safetensors file keeps the names of arrays that
        the first file has.
      schedule, options: as in `jsubspace.checkpoint_weights`.
      part, unrelated: as in `jsubspace.average_checkpoints`.

    Raises:
      UsageError: if an argument is not as it must be, or the files do not belong together.
    """
    target = _target(to)
    steps, stored = _found(files)
    weights = checkpoints.checkpoint_weights(schedule, steps or len(stored), **options)
    merged = averages.average(stored, weights, part, unrelated)
    _save(target, merged, {"how": schedule, "files": _paths(stored), "weights": weights.tolist()})
    shown = ", ".join(f"{weight:.3g}" for weight in weights)
    return _said(to, f"the average of {len(stored)} networks with the weights {shown}", stored)


def stock(
    files: Paths,
    base: str | pathlib.Path,
    to: str | pathlib.Path,
    by: str = "leaf",
    part: str = "",
    unrelated: bool = False,
) -> str:
    """Writes the Model Stock of networks that were fine-tuned from one network (`jsubspace.soup`). See `averaged`.

    Args:
      files: the fine-tuned networks.
      base: the pretrained network.
      to: as in `averaged`.
      by: what has an angle of its own: "leaf", "layer" or "whole".
      part, unrelated: as in `averaged`.
    """
    target = _target(to)
    _, stored = _found(files)
    stored = [*state_parts.find([base], "")[1], *stored]
    if stored[0].path in [one.path for one in stored[1:]]:
        raise UsageError(f"{base} is the base and one of the networks. Name the networks that were fine-tuned from it.")
    found: dict[str, Any] = {}

    def merge(start: Any, *networks: Any) -> Any:
        soup = soups.soup(None, list(networks), how=STOCK, origin=start, by=_by(by))
        found.update(given_networks.facts(soup.weights))
        return soup.network

    merged = _merged(stored, merge, part, unrelated)
    _save(target, merged, {"how": STOCK, "files": _paths(stored), "by": by, "weights": found})
    return _said(to, f"the Model Stock of {len(stored) - 1} networks that were fine-tuned from {base}", stored)


def slerp(
    files: Paths, to: str | pathlib.Path, alpha: float = 0.5, by: str = "leaf", part: str = "", unrelated: bool = False
) -> str:
    """Writes a point on the arc between two networks (`merging.slerp`). See `stock`.

    Args:
      files: two networks.
      to: as in `averaged`.
      alpha: the position on the arc, from 0 to 1.
      by, part, unrelated: as in `stock`.
    """
    target = _target(to)
    _, stored = _found(files)
    if len(stored) != 2:
        raise UsageError(
            f"slerp needs two networks, and there are {len(stored)}. For more of them, use uniform or stock."
        )
    merged = _merged(stored, lambda one, other: arithmetic.slerp(one, other, alpha, by=_by(by)), part, unrelated)
    _save(target, merged, {"how": SLERP, "files": _paths(stored), "by": by, "alpha": alpha})
    return _said(
        to, f"the network at alpha = {alpha:g} on the arc between {_paths(stored)[0]} and {_paths(stored)[1]}", stored
    )


def chosen(files: Paths, to: str | pathlib.Path, problem: Problem, how: str, by: str = WHOLE) -> str:
    """Writes a greedy or a fitted soup, with the validation data of a problem, and returns its report (`jsubspace.soup`)."""
    target = _target(to)
    networks = given_networks.networks(problem, _found(files)[1])
    batches = given_networks.validation_batches(problem)
    soup = soups.soup(given_networks.log_prob_fn(problem), networks, batches, how=how, by=_by(by))
    facts = {"how": how, "files": list(networks), "by": by, "weights": given_networks.facts(soup.weights)}
    Preemption.current().hold()  # Once the network has its name, the same command would be refused.
    network = jax.device_get(soup.network)
    if target.suffix == network_files.SUFFIX:
        saved.write(target, network, {"merge": saved.text(facts)}, "the soup", "")
    else:
        network_files.save(target, network, facts)
    return soup.report.table()


def verdict(files: Paths, problem: Problem, to: str | pathlib.Path | None = None) -> str:
    """Whether networks can be averaged, by the validation data of a problem (`jsubspace.connected`). ``to`` is a picture."""
    networks = given_networks.networks(problem, _found(files)[1])
    batches = given_networks.validation_batches(problem)
    found = connections.connected(given_networks.log_prob_fn(problem), networks, batches)
    if to is not None:
        found.plot(to)
    return str(found)


def _target(to: str | pathlib.Path) -> pathlib.Path:
    target = places.located(to, "--to")
    network_files.check_target(target)
    return target


def _found(files: Paths) -> tuple[list[int] | None, list[Stored]]:
    """The steps, if the one path is a run's folder, and the networks."""
    if len(files) > 1:
        return state_parts.find(list(files), "")
    if places.located(files[0], "FILES").is_file():
        raise UsageError(f"{files[0]} is one network, and there is nothing to merge it with. Name another one.")
    return state_parts.find(files[0], "")


def _merged(stored: Sequence[Stored], merge: Callable[..., Any], part: str, unrelated: bool) -> Stored:
    """A merge of whole networks, which memory holds. Arrays of integers are those arrays of the first network."""
    mean = averages.average(stored, np.full(len(stored), 1 / len(stored)), part, unrelated)
    averages.check_memory(len(stored) + 2, mean)
    floats = [
        name
        for name, leaf in mean.shapes.items()
        if np.issubdtype(leaf.dtype, np.floating) or leaf.dtype == jax.numpy.bfloat16
    ]
    networks = [{name: array for name, array in averages.network(one, part) if name in floats} for one in stored]
    arrays = dict(mean.read(list(mean.shapes))) | jax.device_get(merge(*networks))
    return dataclasses.replace(mean, read=lambda names: ((name, arrays[name]) for name in names))


def _by(given: str) -> str | None:
    return None if given == WHOLE else given


def _paths(stored: Sequence[Stored]) -> list[str]:
    return [str(one.path) for one in stored]


def _said(to: str | pathlib.Path, what: str, stored: Sequence[Stored]) -> str:
    said = f"{to} is {what}."
    if state_parts.has_statistics(stored):
        said += " BatchNorm statistics are left out: estimate them again for this network (jsubspace.reestimate_batch_stats)."
    return said


def _save(target: pathlib.Path, merged: Stored, facts: dict[str, Any]) -> None:
    Preemption.current().hold()  # Once the network has its name, the same command would be refused.
    if target.suffix == network_files.SUFFIX:
        saved.write_stored(target, merged, facts)
    else:
        network_files.save(target, network_files.unflatten(dict(merged.read(list(merged.shapes)))), facts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jsubspace.merge", description="Merges networks in files.")
    ways = parser.add_subparsers(dest="how", required=True, metavar="HOW")
    for how, text in (
        (UNIFORM, "all networks with the same weight"),
        (AVERAGE, "the checkpoints of a constant-rate run, as if its rate had decayed"),
        (STOCK, "from the pretrained network towards the average, as far as the angles say"),
        (SLERP, "a point on the arc between two networks"),
        (GREEDY, "networks that do not raise the loss on validation data"),
        (FITTED, "weights that are fitted to validation data"),
        (CONNECTED, "whether the networks can be averaged"),
    ):
        way = ways.add_parser(how, help=text, description=text)
        way.add_argument("files", nargs="+", metavar="FILES", help="networks, or the folder of a run")
        if how == CONNECTED:
            way.add_argument("--to", metavar="FILE", help="a picture: NAME.png")
        else:
            way.add_argument("--to", required=True, metavar="FILE", help="NAME.safetensors, or a folder for Orbax")
        if how in (GREEDY, FITTED, CONNECTED):
            evaluate.add_file(way)
        else:
            way.add_argument("--part", default="", help="the part of a training state; by default the network")
            way.add_argument("--unrelated", action="store_true", help="merge networks although they look independent")
        if how in (STOCK, SLERP, GREEDY, FITTED):
            default = WHOLE if how in (GREEDY, FITTED) else "leaf"
            way.add_argument(
                "--by", default=default, help=f"what is merged by itself: leaf, layer or whole (default: {default})"
            )
    ways.choices[AVERAGE].add_argument("--schedule", required=True, choices=checkpoints.SCHEDULES, help="the weights")
    ways.choices[AVERAGE].add_argument("--decay", type=float, help="for ema: the factor between two checkpoints")
    ways.choices[AVERAGE].add_argument("--last", type=int, help="for last: how many checkpoints count")
    ways.choices[STOCK].add_argument("--base", required=True, metavar="FILE", help="the pretrained network")
    ways.choices[SLERP].add_argument("--alpha", type=float, default=0.5, help="the position, from 0 to 1")
    return parser


def main() -> None:
    """The program."""
    given = vars(_parser().parse_args())
    how = given.pop("how")
    if how in (GREEDY, FITTED, CONNECTED):
        settings, make = command_line.problem_in(given.pop("file"))
        given["problem"] = checked_problem(settings, make)
    if how in (GREEDY, FITTED):
        given["how"] = how
    by_name: dict[str, Any] = {STOCK: stock, SLERP: slerp, GREEDY: chosen, FITTED: chosen, CONNECTED: verdict}
    print(by_name.get(how, averaged)(**given))


if __name__ == "__main__":
    program.run(main)
