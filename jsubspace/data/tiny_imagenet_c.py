"""Tiny-ImageNet-C, the corrupted validation images of Tiny-ImageNet, as a TFDS builder that needs no TensorFlow."""

import hashlib
import io
import pathlib
import re
import tarfile

import tensorflow_datasets as tfds

from jsubspace.data import corruptions, tiny_imagenet
from jsubspace.errors import UsageError

ARCHIVE, EXTRA_ARCHIVE = "Tiny-ImageNet-C.tar", "Tiny-ImageNet-C-extra.tar"
URL = "https://zenodo.org/record/8206060/files/"


class TinyImagenetCorrupted(tfds.core.GeneratorBasedBuilder):
    """One split per corruption and severity (``fog_3``) with 10,000 images each. The labels are as in Tiny-ImageNet.

    The second archive has the four extra corruptions. If it is missing from ``manual_dir``, their splits are missing too.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The archives' JPEG files, unchanged."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{ARCHIVE} and, for the extra corruptions, {EXTRA_ARCHIVE}, from {URL}"
    # TFDS registers SHA-256, but these MD5 sums are publicly known. They detect a damaged file as well.
    md5 = {ARCHIVE: "f9c9a9dbdc11469f0b850190f7ad8be1", EXTRA_ARCHIVE: "0db0588d243cf403ef93449ec52b70eb"}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Common corruptions of the validation images of Tiny-ImageNet.",
            features=tiny_imagenet.features(),
            supervised_keys=("image", "label"),
            homepage="https://github.com/hendrycks/robustness",
        )

    def _split_generators(self, dl_manager):
        try:
            paths = [path for path in (dl_manager.manual_dir / name for name in self.md5) if path.exists()]
        except AssertionError:  # TFDS raises it if the folder does not exist
            paths = dl_manager.download([URL + name for name in self.md5])
        for path, md5 in zip(paths, self.md5.values(), strict=False):
            _check(pathlib.Path(path), md5)
        images = [image for path in paths for image in _index(pathlib.Path(path))]
        labels = tiny_imagenet.labels_of([wnid for _, wnid, *_ in images], ARCHIVE)
        splits: dict[str, list] = {}
        for split, wnid, name, *place in images:
            splits.setdefault(split, []).append((f"{wnid}/{name}", labels[wnid], *place))
        return {split: self._generate_examples(splits[split]) for split in sorted(splits)}

    def _generate_examples(self, images):
        for key, label, path, start, size in images:
            with open(path, "rb") as file:
                file.seek(start)
                yield key, {"image": io.BytesIO(file.read(size)), "label": label}


def _check(path: pathlib.Path, md5: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise UsageError(
            f"{path} is not the original and may be incomplete: its MD5 sum is {found} instead of {md5}. Download it again."
        )


def _index(path: pathlib.Path):
    """The split, class, name, file, first byte and length of every image. The archive is read once for all splits."""
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            match = re.search(r"(?:^|/)(\w+)/([1-5])/(n\d+)/([^/]+\.JPEG)$", member.name)
            if match and match[1] in corruptions.CORRUPTIONS:
                yield f"{match[1]}_{match[2]}", match[3], match[4], path, member.offset_data, member.size
