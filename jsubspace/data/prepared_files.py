"""What TFDS's files of a prepared data set must hold, before TFDS reads them.

The folder of a data set has ``dataset_info.json``, ``features.json`` and the files of records. TFDS believes what the two
documents say: with a shard length that is too small, a run would train on a part of the images in silence.
"""

import pathlib
import re
from typing import NamedTuple

from jsubspace.errors import UsageError
from jsubspace.storage import documents
from jsubspace.storage.schema import Listed, Record, Text

INFO, FEATURES = "dataset_info.json", "features.json"

INFO_BYTES = 2**26
"""The largest size of `INFO` and `FEATURES`."""

FORMAT = "array_record"

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")

_COUNT = Text("[1-9][0-9]{0,11}")
"""A number of records of a file, as the text that TFDS writes."""

_SPLIT = Record(
    {"name": Text("[A-Za-z0-9_.-]+"), "shardLengths": Listed(_COUNT, 1)}, optional={"filepathTemplate": Text()}
)

_INFO = Record({"name": Text(), "version": Text(), "fileFormat": Text(), "splits": Listed(_SPLIT, 1)})

_FIX = "Delete the folder and prepare the data set again."


class Split(NamedTuple):
    """A split of a prepared data set: its files in order, and the number of its examples."""

    files: list[pathlib.Path]
    num_examples: int


def check_versions(folder: pathlib.Path) -> dict[pathlib.Path, dict[str, Split]]:
    """Checks every version of a data set, each in a subfolder of its own that is named like 1.0.0. See `check`.

    Returns:
      The splits by name, for the folder of each version.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path: check(path) for path in paths if _VERSION.fullmatch(path.name)}


def check(folder: pathlib.Path) -> dict[str, Split]:
    """Checks the documents and the files of records in the folder of a prepared data set, and returns its splits by name.

    Raises:
      UsageError: if something is missing, is damaged, or does not agree with the rest.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder, and must be the folder of a prepared data set. Move it away.")
    for name in (INFO, FEATURES):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} is no prepared data set: it has no {name}. {_FIX}")
    documents.read(folder / FEATURES, INFO_BYTES, _FIX, Record({}))
    info = documents.read(folder / INFO, INFO_BYTES, _FIX, _INFO)
    if info["fileFormat"] != FORMAT:
        raise UsageError(
            f"{folder} has records in another file format than {FORMAT}: {info['fileFormat']!r}. Choose another --data_dir for "
            "jsubspace."
        )
    found = {}
    for split in info["splits"]:
        if split.get("filepathTemplate", _TEMPLATE) != _TEMPLATE:
            raise UsageError(f"{folder / INFO} is damaged (it names files in another way than TFDS). {_FIX}")
        lengths = [int(length) for length in split["shardLengths"]]
        name = f"{info['name']}-{split['name']}.{FORMAT}"
        files = [folder / f"{name}-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]
        for file, length in zip(files, lengths, strict=True):
            _check_records(file, length)
        found[split["name"]] = Split(files, sum(lengths))
    return found


def _check_records(path: pathlib.Path, expected: int) -> None:
    from array_record.python.array_record_module import ArrayRecordReader

    if not path.is_file():
        raise UsageError(f"{path} is missing. {_FIX}")
    try:
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except Exception as error:  # The reader raises exceptions of many kinds.
        raise UsageError(f"{path} is damaged ({error}). {_FIX}") from error
    if found != expected:
        raise UsageError(f"{path} has {found} records, and {INFO} says {expected}. {_FIX}")
