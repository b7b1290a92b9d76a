"""The networks in checkpoints: which arrays of a training state are the network, and whether checkpoints belong together."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jsubspace import arguments
from jsubspace.errors import UsageError
from jsubspace.exchange import leaf_files, matching, step_folders
from jsubspace.exchange.leaf_files import Stored
from jsubspace.storage.places import located

NETWORKS = ("params", "endpoints", "model")
"""The parts of a training state that are a network, in the order in which they are looked for."""

STATISTICS = "batch_stats"
"""The part with BatchNorm statistics, which belong to one network."""

_OPTIMIZER = ("opt_state", "optimizer", "optimizer_state", "opt")


def find(checkpoints: Any, call: str) -> tuple[list[int] | None, list[Stored]]:
    """The steps of checkpoints, if the folder of a run was given, and the checkpoints. No array is read.

    Args:
      checkpoints: files or folders of one network each, or the folder of a run (`step_folders.steps`).
      call: shows the order of the arguments in a message.

    Raises:
      UsageError: if there is no checkpoint, or one of them is given twice.
    """
    if isinstance(checkpoints, str | os.PathLike):
        steps = step_folders.steps(located(checkpoints, "checkpoints"))
        return [step.number for step in steps], [leaf_files.find(step.path) for step in steps]
    if not isinstance(checkpoints, Sequence) or not checkpoints:
        raise UsageError(
            f"checkpoints is {arguments.described(checkpoints)}, but it must be a list of files or folders, or the folder of a run."
            + arguments.order(call)
        )
    paths = [located(path, "a checkpoint") for path in checkpoints]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"{path} is given twice, and would count twice. Name every checkpoint once.")
    return None, [leaf_files.find(path) for path in paths]


def network_in(stored: Stored, part: str = "") -> dict[str, str]:
    """The names of a network's arrays in a checkpoint, by their names in the network.

    Args:
      stored: the checkpoint.
      part: a part of a training state, as "ema". By default it is `NETWORKS`, or everything that is stored.

    Raises:
      UsageError: if there is no such part, or the state of an optimizer stands beside arrays that have no such name.
    """
    tops = {name.partition("/")[0] for name in stored.shapes}
    inside = [
        name for name in ((part,) if part else NETWORKS) if any(other.startswith(f"{name}/") for other in stored.shapes)
    ]
    shown = ", ".join(sorted(tops)[:10])
    if part and not inside:
        raise UsageError(f"{stored.path} has no part {part!r}. Its parts are {shown}.")
    if part or (inside and len(tops) > 1):
        start = f"{inside[0]}/"
        return {name.removeprefix(start): name for name in stored.shapes if name.startswith(start)}
    if tops & set(_OPTIMIZER):
        raise UsageError(
            f"{stored.path} holds the state of an optimizer beside a network. Its parts are {shown}. Name the network's (part)."
        )
    return {name: name for name in stored.shapes if name.partition("/")[0] != STATISTICS}


def same_networks(stored: Sequence[Stored], part: str = "") -> list[dict[str, str]]:
    """`network_in` of every checkpoint, in one order of names.

    Raises:
      UsageError: if the names, shapes or dtypes differ from the first checkpoint's.
    """
    names = [network_in(one, part) for one in stored]
    first = _shapes(stored[0], names[0])
    owner = matching.Owner(f"the network in {stored[0].path}", "give checkpoints of one network")
    for one, of_one in zip(stored[1:], names[1:], strict=True):
        shapes = _shapes(one, of_one)
        matching.matched(shapes, first, str(one.path), of=owner)
        for name, leaf in first.items():
            if shapes[name].dtype != leaf.dtype:
                raise UsageError(
                    f"{name} is {shapes[name].dtype} in {one.path} and {leaf.dtype} in {stored[0].path}. Store the networks in one dtype."
                )
    return [{name: of_one[name] for name in first} for of_one in names]


def has_statistics(stored: Sequence[Stored]) -> bool:
    """Whether a checkpoint holds BatchNorm statistics in a part of their own."""
    return any(STATISTICS in name.split("/") for one in stored for name in one.shapes)


def _shapes(stored: Stored, names: Mapping[str, str]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: stored.shapes[theirs] for name, theirs in names.items()}
