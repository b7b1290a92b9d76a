"""Puts data sets onto the disk: ``python -m jsubspace.data.prepare NAME [--data_dir=...] [--manual_dir=...]``.

Prepared once, as ``array_record`` files that are read without TensorFlow. Safe to interrupt and to repeat:
TFDS writes into a folder of its own and renames it when it is complete.
"""

import argparse
import os
import pathlib
import sys
from typing import Any

from jsubspace.data import sets
from jsubspace.data.sets import DataSet
from jsubspace.errors import UsageError


def default_data_dir() -> pathlib.Path:
    """$JSUBSPACE_DATA_DIR, or ``~/.cache/jsubspace``.

    Not TFDS's own default: a TFDS folder holds one file format, and there it usually is tfrecord, which cannot be
    read without TensorFlow.
    """
    return pathlib.Path(os.environ.get("JSUBSPACE_DATA_DIR") or "~/.cache/jsubspace").expanduser()


def prepared(data_set: DataSet, data_dir: str = "") -> Any:
    """The TFDS builder of a data set that is on the disk; one that needs no download is prepared now.

    Raises:
      UsageError: if it is not there; the message has the command that prepares it.
    """
    folder = pathlib.Path(data_dir).expanduser() if data_dir else default_data_dir()
    builder = data_set.tfds_builder(str(folder))
    if not pathlib.Path(builder.data_path).exists():
        if data_set.needs == "tensorflow":
            raise UsageError(_how_to_prepare(data_set, folder))
        prepare(data_set.name, str(folder))
        builder = data_set.tfds_builder(str(folder))
    return builder


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> pathlib.Path:
    """Prepares a data set, unless it already is, and returns its folder.

    Args:
      name: one of `sets.SETS`.
      data_dir: where to; "" for `default_data_dir`.
      manual_dir: a folder with the original archives, for machines without a network; their checksums are
        verified. "" to download.

    Raises:
      UsageError: for an unknown name, a package that preparing needs, an archive that is missing or has the
        wrong checksum, a folder that cannot be written.
    """
    import tensorflow_datasets as tfds

    data_set = sets.find(name)
    folder = pathlib.Path(data_dir).expanduser() if data_dir else default_data_dir()
    if manual_dir:
        _check_archives(data_set, pathlib.Path(manual_dir).expanduser())
    config = tfds.download.DownloadConfig(
        manual_dir=str(pathlib.Path(manual_dir).expanduser()) if manual_dir else None, try_download_gcs=False
    )
    try:
        builder = data_set.tfds_builder(str(folder))
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"preparing {name} needs the package {error.name}: pip install 'jsubspace[{data_set.needs}]'. Training does not."
        ) from error
    except tfds.download.NonMatchingChecksumError as error:
        raise UsageError(
            f"an archive of {name} is not the original, it may be incomplete; download it again into {manual_dir or folder / 'downloads'}. {error}"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot prepare {name} in {folder}: {error}") from error
    return pathlib.Path(builder.data_path)


def _check_archives(data_set: DataSet, manual_dir: pathlib.Path) -> None:
    missing = [name for name in data_set.archives if not (manual_dir / name).is_file()]
    if missing:
        raise UsageError(
            f"{manual_dir} has no {', '.join(missing)}; to prepare {data_set.name} without a network put these archives there: "
            f"{', '.join(data_set.archives)}."
        )


def _how_to_prepare(data_set: DataSet, folder: pathlib.Path) -> str:
    return (
        f"{data_set.name} is not prepared in {folder}. Prepare it once, with a network:\n"
        f"    pip install 'jsubspace[{data_set.needs}]'\n"
        f"    python -m jsubspace.data.prepare {data_set.name} --data_dir={folder}\n"
        f"or without one from the archives {', '.join(data_set.archives)} by adding --manual_dir=FOLDER."
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jsubspace.data.prepare", description="Prepares a data set for training."
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(sets.SETS)}")
    parser.add_argument("--data_dir", default="", help=f"where to put it (default: {default_data_dir()})")
    parser.add_argument(
        "--manual_dir", default="", help="folder with the original archives, for machines without a network"
    )
    arguments = parser.parse_args(argv)
    try:
        folder = prepare(arguments.name, arguments.data_dir, arguments.manual_dir)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.name} is ready in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
