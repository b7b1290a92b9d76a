"""Puts data sets onto the disk: ``python -m jsubspace.data.prepare NAME [--data_dir=...] [--manual_dir=...]``.

A data set is prepared once, as ``array_record`` files that are read without TensorFlow. The command may be interrupted
and repeated: TFDS writes into a separate folder and renames the folder when it is complete.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

from jsubspace import endings, paths, preemption
from jsubspace.data import corruptions, prepared_files, sets
from jsubspace.data.sets import DataSet
from jsubspace.errors import UsageError, file_system_failure, one_line
from jsubspace.storage import files

VARIABLE = "JSUBSPACE_DATA_DIR"
"""The variable of the environment that names the folder for prepared data."""

DEFAULT = "~/.cache/jsubspace"
"""The folder for prepared data if `VARIABLE` is not set."""


def default_data_dir() -> pathlib.Path:
    """$JSUBSPACE_DATA_DIR, or ``~/.cache/jsubspace``.

    TFDS's own default folder is not used. A TFDS folder holds one file format, which is usually tfrecord in the default
    folder, and tfrecord cannot be read without TensorFlow.

    Raises:
      UsageError: if the variable names no folder, or it is not set and no home folder is known.
    """
    if named := os.environ.get(VARIABLE):
        return paths.on_disk(named, VARIABLE)
    try:
        return pathlib.Path(DEFAULT).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"the folder of the data is {DEFAULT} if no other folder is named, and this user has no home folder. Name a folder "
            f"by the variable {VARIABLE}, by --data_dir=FOLDER to prepare, or by the setting data.dir to train."
        ) from error


def prepared(data_set: DataSet, data_dir: str = "") -> Any:
    """The TFDS builder of a data set on the disk. A data set that needs no archive is prepared now.

    Raises:
      UsageError: if the data set is not on the disk. The message has the command that prepares it.
    """
    folder = _folder(data_dir)
    builder = _builder(data_set, folder)
    if not pathlib.Path(builder.data_path).exists():
        if data_set.archives:
            raise UsageError(_how_to_prepare(data_set, folder))
        _prepare_one(data_set, folder, None)
        builder = _builder(data_set, folder)
    return builder


def only_version(data_set: DataSet, data_dir: str = "") -> tuple[pathlib.Path, dict[str, prepared_files.Split]] | None:
    """The folder of the only version of a data set on the disk, and its splits, without TFDS. None if there is no single one.

    Raises:
      UsageError: if the folder has files of the data set that cannot be read.
    """
    found = list(prepared_files.check_versions(_folder(data_dir) / data_set.name).items())
    return found[0] if len(found) == 1 else None


def is_prepared(data_set: DataSet, data_dir: str = "") -> bool:
    """Whether a data set is on the disk. The function writes nothing."""
    try:
        folder = _folder(data_dir)
    except UsageError:  # No file can have this path.
        return False
    return folder.is_dir() and pathlib.Path(_builder(data_set, folder).data_path).exists()


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> pathlib.Path:
    """Prepares a data set if it is not prepared yet, and returns its folder.

    Args:
      name: one of `sets.SETS`, or a corrupted test set (`corruptions.find`).
      data_dir: the folder for prepared data, or "" for `default_data_dir`.
      manual_dir: a folder with the original archives, for machines without a network. Their checksums are verified. "" to
        download.

    Returns:
      The folder of the data set, or the common folder if the name stands for several data sets.

    Raises:
      UsageError: for an unknown name, a missing package, an archive that is missing or not the original, or a folder that
        cannot be written.
    """
    folder = _folder(data_dir)
    archives = paths.on_disk(manual_dir, "--manual_dir") if manual_dir else None
    folders = []
    for data_set in corruptions.find(name):
        preemption.check()
        folders.append(_prepare_one(data_set, folder, archives))
    return pathlib.Path(os.path.commonpath(folders))


def _prepare_one(data_set: DataSet, folder: pathlib.Path, manual_dir: pathlib.Path | None) -> pathlib.Path:
    import requests  # TFDS downloads with this package
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.extractor import ExtractError

    try:
        builder = _builder(data_set, folder)
        path = pathlib.Path(builder.data_path)
        if path.exists():
            return path
        _check_packages(data_set)
        _check_archives(data_set, manual_dir)
        with _alone(folder, data_set.name.partition("/")[0]):
            for leftover in path.parent.glob(f"incomplete.*_{path.name}"):  # of a process that was killed
                files.remove(leftover)
            how = tfds.download.DownloadConfig(
                manual_dir=str(manual_dir) if manual_dir else None, try_download_gcs=False
            )
            builder.download_and_prepare(download_config=how, file_format="array_record")
    except UsageError:
        raise
    except NonMatchingChecksumError as error:
        raise UsageError(
            f"an archive of {data_set.name} is not the original and may be incomplete. Download it again into "
            f"{manual_dir or folder / 'downloads'}. {error}"
        ) from error
    except (ExtractError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(
            f"an archive of {data_set.name} is incomplete or damaged ({error}). Download it again into "
            f"{manual_dir or folder / 'downloads'}."
        ) from error
    except requests.RequestException as error:
        raise UsageError(
            f"cannot download {data_set.name} ({error}). On a machine without a network get {', '.join(data_set.archives)} "
            "elsewhere, put them into one folder and pass it by --manual_dir=FOLDER."
        ) from error
    except OSError as error:
        raise UsageError(f"cannot prepare {data_set.name} in {folder}: {error}") from error
    except RuntimeError as error:  # the type of array_record for everything
        if (reason := file_system_failure(error)) is None:
            raise
        raise UsageError(f"cannot prepare {data_set.name} in {folder}: {reason}") from error
    return path


def _folder(data_dir: str) -> pathlib.Path:
    return paths.on_disk(data_dir, "the folder of the data") if data_dir else default_data_dir()


def _builder(data_set: DataSet, folder: pathlib.Path) -> Any:
    """The TFDS builder. Raises UsageError if the folder has files of the data set that cannot be read."""
    prepared_files.check_versions(folder / data_set.name)
    try:
        return data_set.tfds_builder(str(folder))
    except Exception as error:  # TFDS raises errors of many types about its own files.
        if not (folder / data_set.name).exists() or isinstance(error, OSError | ImportError):
            raise
        raise UsageError(
            f"TFDS cannot read {folder / data_set.name} ({one_line(error)}). Delete the folder and prepare the data set again."
        ) from error


@contextlib.contextmanager
def _alone(folder: pathlib.Path, name: str) -> Iterator[None]:
    """Lets one process at a time prepare a data set. A second process waits. The lock ends with its process, even if killed."""
    files.make_folder(folder)
    with files.lock_file(folder / f".{name}.lock") as lock:
        with contextlib.suppress(ImportError):  # on systems without such a lock
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_PACKAGES = {"digits": "sklearn", "corruptions": "imagecorruptions", "tensorflow": "tensorflow"}
"""The package that each extra installs. Data sets name the extras that they need."""


def _check_packages(data_set: DataSet) -> None:
    """Checks, before anything is downloaded, that the packages that preparing needs are installed."""
    for extra in filter(None, data_set.needs.split(",")):
        if importlib.util.find_spec(_PACKAGES[extra]) is None:
            raise UsageError(
                f"preparing {data_set.name} needs the package {_PACKAGES[extra]}: {_install(data_set.needs)} "
                "in the folder of jsubspace's source. Training does not."
            )
    needs_imagemagick = data_set.name.startswith(("imagenet2012_corrupted/snow", "imagenet2012_corrupted/motion_blur"))
    if needs_imagemagick and shutil.which("imagemagick") is None:
        raise UsageError(
            f"preparing {data_set.name} needs ImageMagick: TFDS runs its command convert under the name imagemagick. "
            "Install it and give it that name: ln -s $(which convert) FOLDER/imagemagick, for a FOLDER in $PATH."
        )


def _check_archives(data_set: DataSet, manual_dir: pathlib.Path | None) -> None:
    if manual_dir is None:
        if data_set.archives and not data_set.downloads:
            raise UsageError(
                f"{data_set.name} cannot be downloaded by a program: get {', '.join(data_set.archives)} from its authors, put "
                "them into one folder and pass it by --manual_dir=FOLDER."
            )
        return
    missing = [name for name in data_set.archives if not (manual_dir / name).is_file()]
    if missing:
        raise UsageError(
            f"{manual_dir} has no {', '.join(missing)}. To prepare {data_set.name} without a network put these archives there: "
            f"{', '.join(data_set.archives)}."
        )
    for name, size in zip(data_set.archives, data_set.sizes, strict=False):
        found = (manual_dir / name).stat().st_size
        if found != size:
            raise UsageError(
                f"{manual_dir / name} is not the original and may be incomplete: it has {found} bytes instead of {size}. "
                "Download it again."
            )


def _how_to_prepare(data_set: DataSet, folder: pathlib.Path) -> str:
    install = f"    {_install(data_set.needs)}  # in the folder of jsubspace's source\n" if data_set.needs else ""
    command = f"    python -m jsubspace.data.prepare {data_set.name} --data_dir={folder}"
    archives = ", ".join(data_set.archives)
    if not data_set.downloads:
        return (
            f"{data_set.name} is not prepared in {folder}. Get {archives} from its authors, put them into one folder "
            f"and prepare it once:\n{install}{command} --manual_dir=FOLDER"
        )
    return (
        f"{data_set.name} is not prepared in {folder}. Prepare it once, with a network:\n{install}{command}\n"
        f"or without one from the archives {archives} by adding --manual_dir=FOLDER."
    )


def _install(extras: str) -> str:
    """The command that installs extras. No index has this library yet, so the command names its source."""
    return f"pip install '.[{extras}]'"


def main(argv: list[str] | None = None) -> None:
    """The command.

    Raises:
      UsageError: as `prepare`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jsubspace.data.prepare", description="Prepares a data set for training."
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help=f"one of {', '.join(sets.SETS)}; or a corrupted test set: NAME_corrupted, NAME_corrupted/fog or NAME_corrupted/fog_3",
    )
    parser.add_argument("--data_dir", default="", help=f"where to put it (default: ${VARIABLE}, or {DEFAULT})")
    parser.add_argument(
        "--manual_dir", default="", help="folder with the original archives, for machines without a network"
    )
    arguments = parser.parse_args(argv)
    folder = prepare(arguments.name, arguments.data_dir, arguments.manual_dir)
    print(f"{arguments.name} is ready in {folder}")


if __name__ == "__main__":
    endings.run(main)
