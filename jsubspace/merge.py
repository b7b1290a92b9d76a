"""Merges networks in files: ``python -m jsubspace.merge uniform A.safetensors B.safetensors --to=FILE``.

FILES are safetensors files, indices of shards, folders of Orbax, or the folder of a run with one checkpoint per step. FILE is
``NAME.safetensors``, or a folder for Orbax. The ways from files alone:

    uniform FILES            all networks with the same weight
    average FILES            the checkpoints of a constant-rate run, --schedule=linear, cosine, 1-sqrt, ema or last
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jsubspace import program
from jsubspace.errors import UsageError
from jsubspace.exchange import averages, network_files, saved, state_parts
from jsubspace.exchange.leaf_files import Stored
from jsubspace.merging import checkpoints
from jsubspace.preemption import Preemption
from jsubspace.storage import places

UNIFORM, AVERAGE = "uniform", "average"


def merge(
    how: str,
    files: Sequence[str | pathlib.Path],
    to: str | pathlib.Path,
    *,
    schedule: str | None = None,
    decay: float | None = None,
    last: int | None = None,
    part: str = "",
    unrelated: bool = False,
) -> dict[str, Any]:
    """Writes the merged network, and returns the facts that are written beside it.

    Args:
      how: "uniform" or "average".
      files: the networks, or one folder of a run.
      to: ``NAME.safetensors`` or a folder for Orbax. Neither may exist yet. A safetensors file keeps the names of arrays that
        the first file has.
      schedule, decay, last: for "average", as in `jsubspace.checkpoint_weights`.
      part, unrelated: as in `jsubspace.average_checkpoints`.

    Returns:
      ``how``, the ``files``, their ``weights``, and ``left_out`` with the parts that no average has.

    Raises:
      UsageError: if an argument is not as it must be, or the files do not belong together.
    """
    target = places.located(to, "--to")
    network_files.check_target(target)
    steps, stored = _found(files)
    weights = _weights(how, steps, len(stored), schedule, decay, last)
    merged = averages.average(stored, weights, part, unrelated)
    names = [str(one.path) for one in stored]
    left_out = [state_parts.STATISTICS] if state_parts.has_statistics(stored) else []
    facts = {"how": how, "files": names, "weights": weights.tolist(), "left_out": left_out}
    Preemption.current().hold()  # Once the network has its name, the same command would be refused.
    _save(target, merged, facts)
    return facts


def _found(files: Sequence[str | pathlib.Path]) -> tuple[list[int] | None, list[Stored]]:
    """The steps, if the one path is a run's folder, and the networks."""
    if len(files) > 1:
        return state_parts.find(list(files), "")
    if places.located(files[0], "FILES").is_file():
        raise UsageError(f"{files[0]} is one network, and there is nothing to merge it with. Name another one.")
    return state_parts.find(files[0], "")


def _weights(
    how: str, steps: list[int] | None, n: int, schedule: str | None, decay: float | None, last: int | None
) -> np.ndarray:
    if how == UNIFORM:
        if (schedule, decay, last) != (None, None, None):
            raise UsageError(
                '--schedule, --decay and --last belong to "average". All weights of "uniform" are the same.'
            )
        return np.full(n, 1 / n)
    if schedule is None:
        raise UsageError(f'"average" needs --schedule: one of {", ".join(checkpoints.SCHEDULES)}.')
    return checkpoints.checkpoint_weights(schedule, steps or n, decay=decay, last=last)


def _save(target: pathlib.Path, merged: Stored, facts: dict[str, Any]) -> None:
    if target.suffix == network_files.SUFFIX:
        saved.write_stored(target, merged, facts)
    else:
        network_files.save(target, network_files.unflatten(dict(merged.read(list(merged.shapes)))), facts)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m jsubspace.merge", description="Merges networks in files.")
    parser.add_argument("how", choices=(UNIFORM, AVERAGE), help="the weights of the networks")
    parser.add_argument("files", nargs="+", metavar="FILES", help="networks, or the folder of a run")
    parser.add_argument("--to", required=True, metavar="FILE", help="NAME.safetensors, or a folder for Orbax")
    parser.add_argument("--schedule", help="for average: linear, cosine, 1-sqrt, uniform, ema or last")
    parser.add_argument("--decay", type=float, help="for --schedule=ema: the factor between two checkpoints")
    parser.add_argument("--last", type=int, help="for --schedule=last: how many checkpoints count")
    parser.add_argument(
        "--part", default="", help="the part of a training state that is merged; by default the network"
    )
    parser.add_argument("--unrelated", action="store_true", help="merge networks although they look independent")
    given = parser.parse_args()
    facts = merge(
        given.how, given.files, given.to, schedule=given.schedule, decay=given.decay, last=given.last, part=given.part,
        unrelated=given.unrelated,
    )  # fmt: skip
    shown = ", ".join(f"{weight:.3g}" for weight in facts["weights"])
    print(f"{given.to} is the average of {len(facts['weights'])} networks with the weights {shown}.")
    if facts["left_out"]:
        print(
            "BatchNorm statistics are left out: estimate them again for this network (jsubspace.reestimate_batch_stats)."
        )


if __name__ == "__main__":
    program.run(main)
