"""The file config.json in a run's folder: it records which run the folder holds."""

import pathlib
from typing import Any

import ml_collections

from jsubspace.errors import UsageError
from jsubspace.runs import settings
from jsubspace.runs.config import PROBLEM, default, fields, is_free
from jsubspace.runs.limits import validate
from jsubspace.storage import documents, files
from jsubspace.storage.folders import cannot_write, make_folder
from jsubspace.storage.lock import LOCK
from jsubspace.storage.schema import Record

CONFIG = "config.json"

CONFIG_BYTES = 2**20
"""The largest size of `CONFIG`."""

_FIX = "Restore the file or choose another --workdir."


def check_same_run(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a folder that holds another run: one of the `settings.identifying` fields has another value there.

    Raises:
      UsageError: if the folder holds another run, with the fields that differ, or if it holds something else.
    """
    if not (workdir / CONFIG).exists():
        if workdir.is_dir() and any(path.name != LOCK and not files.is_leftover(path) for path in workdir.iterdir()):
            raise UsageError(f"{workdir} is not empty and holds no run (no {CONFIG}). Choose another --workdir.")
        return
    there, here = fields(load(workdir)), fields(config)
    named = [field for field in settings.identifying() if field in there or field in here]
    free = sorted(field for field in {*there, *here} if is_free(field))
    different = [
        f"  config.{field}: {_shown(there, field)} there, {_shown(here, field)} here"
        for field in (*named, *free)
        if _shown(there, field) != _shown(here, field)
    ]
    if different:
        raise UsageError(
            f"{workdir} holds another run:\n" + "\n".join(different) + "\nChoose another --workdir, or delete that one."
        )


def save(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes config.json into the run's folder, which is made if it does not exist.

    Raises:
      UsageError: if the folder cannot be written.
    """
    make_folder(workdir)
    try:
        documents.write_json(workdir / CONFIG, config.to_dict())
    except OSError as error:
        raise cannot_write(workdir, error) from error


def load(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run in ``workdir``.

    A field that was added after the run was written gets its default (`settings.added_later`).

    Raises:
      UsageError: if the folder holds no run, the file is damaged or has other fields than a config of this version, or
        a field is out of its range.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise UsageError(f"{workdir} holds no run (it has no {CONFIG}). Train one: python -m jsubspace.main.")
    found = _with_tuples(documents.read(path, CONFIG_BYTES, _FIX, Record({})))
    problem = found.get(PROBLEM)
    if problem is not None and not isinstance(problem, dict):
        raise UsageError(f"{path} is not the config of a run: {PROBLEM} is {problem!r}. {_FIX}")
    config = default(problem)
    try:
        config.update(found)
        given = fields(ml_collections.ConfigDict(found))
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
        raise UsageError(f"{path} is not the config of a run of this version: {error}") from error
    for field, value in given.items():
        # ml_collections makes 1.0 of true, and the settings would not show it.
        if isinstance(value, bool) and not is_free(field) and settings.NAMED[field].type is not bool:
            raise UsageError(f"{path} is not the config of a run: {settings.refusal(field, value)}")
    expected = settings.NAMED if problem is None else settings.of_a_problem()
    missing = [field for field in expected if field not in given and field not in settings.added_later()]
    if missing:
        lacks = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UsageError(f"{path} is not the config of a run of this version: it lacks {lacks}. {_FIX}")
    validate(config)
    return config


def _shown(given: dict[str, Any], field: str) -> str:
    return repr(given[field]) if field in given else "not set"


def _with_tuples(content: Any) -> Any:
    """The content of a JSON file, with tuples in the place of lists."""
    if isinstance(content, dict):
        return {name: _with_tuples(inner) for name, inner in content.items()}
    return tuple(map(_with_tuples, content)) if isinstance(content, list) else content
