"""A run's folder: whose it is, and the config that is kept in it."""

import json
import pathlib
import tempfile
from typing import Any

import ml_collections

from jsubspace.errors import UsageError
from jsubspace.runs.config import default, fields
from jsubspace.runs.limits import validate
from jsubspace.storage.lock import LOCK
from jsubspace.storage.writer import write_json

CONFIG = "config.json"

WHERE_IT_RUNS = ("data.dir", "data.num_workers", "num_devices", "shard_endpoints")
"""Fields that may change when a run goes on on another machine: its results do not depend on them."""


def check_same_run(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a folder that holds a run with another config; fields that say `WHERE_IT_RUNS` may differ.

    Raises:
      UsageError: with the fields that differ.
    """
    if not (workdir / CONFIG).exists():
        if workdir.is_dir() and any(path.name != LOCK for path in workdir.iterdir()):
            raise UsageError(f"{workdir} is not empty and holds no run (no {CONFIG}); choose another --workdir.")
        return
    there, here = fields(load(workdir)), fields(config)
    different = [
        f"  config.{field}: {there[field]!r} there, {here[field]!r} here"
        for field in here
        if field not in WHERE_IT_RUNS and there[field] != here[field]
    ]
    if different:
        raise UsageError(
            f"{workdir} holds another run:\n" + "\n".join(different) + "\nChoose another --workdir, or delete that one."
        )


def check_folder(workdir: pathlib.Path) -> None:
    """Whether `make_folder` will succeed, found out without leaving a trace. Raises UsageError if it will not."""
    there = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"cannot write the run's folder {workdir}: {error}; choose another --workdir.") from error


def make_folder(workdir: pathlib.Path) -> None:
    """Makes a run's folder if need be. Raises UsageError if that cannot be."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the run's folder {workdir}: {error}; choose another --workdir.") from error


def save(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes the config into its run's folder, which is made if need be.

    Raises:
      UsageError: if the folder cannot be written.
    """
    make_folder(workdir)
    try:
        write_json(workdir / CONFIG, config.to_dict())
    except OSError as error:
        raise UsageError(f"cannot write the run's folder {workdir}: {error}; choose another --workdir.") from error


def load(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run in ``workdir``.

    Raises:
      UsageError: if there is none, it was written by a version with other fields, or one of them is out of range.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise UsageError(f"{workdir} holds no run (it has no {CONFIG}); train one: python -m jsubspace.main.")
    config = default()
    try:
        config.update(_tuples(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is not the config of a run of this version: {error}") from error
    validate(config)
    return config


def _tuples(content: Any) -> Any:
    """What JSON has read, with its lists as the tuples that they were."""
    if isinstance(content, dict):
        return {name: _tuples(inner) for name, inner in content.items()}
    return tuple(map(_tuples, content)) if isinstance(content, list) else content
