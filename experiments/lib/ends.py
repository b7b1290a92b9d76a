"""Everything about a finished run that must be the same, whatever happened to it on the way."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from jsubspace.runs import build, command_line, config_files
from jsubspace.runs.run import checked_problem
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import read_rows


def end_of(workdir: pathlib.Path, file: pathlib.Path | None = None) -> dict[str, Any]:
    """Everything about a finished run that must be the same, as digests and numbers.

    Args:
      workdir: the run's folder.
      file: the config file with ``get_problem``, if the run trained a problem of its own.
    """
    settings = config_files.load(workdir)
    run = build.build(settings, checked_problem(settings, command_line.problem_of(file and str(file))))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, notes = checkpoints.restore(run.state_shape, run.devices.replicated)
    leaves = {
        jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    rows = [{name: row[name] for name in row if not name.endswith("_per_second")} for row in read_rows(workdir)]
    results = json.loads((workdir / "results.json").read_text())
    measured = {name: results.get(name) for name in ("points", "ensembles", "endpoints", "reliability")}
    return {
        "step": int(state.step),
        "state": leaves,
        "journal": notes["journal"],
        "metrics.jsonl": rows,
        "results.json": measured,
        "TensorBoard": points(workdir),
    }


def points(workdir: pathlib.Path) -> list[list[Any]]:
    """Step, tag and value of every TensorBoard point except the speed."""
    from tensorboardX.proto import event_pb2

    found = []
    for file in sorted(workdir.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while content:  # length (8 bytes), its checksum (4), event, its checksum (4)
            length = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            found += [[event.step, v.tag, v.simple_value] for v in event.summary.value if "per_second" not in v.tag]
            content = content[16 + length :]
    return found
