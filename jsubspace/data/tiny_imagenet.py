"""Tiny-ImageNet as a TFDS builder that needs no TensorFlow. TFDS itself has no builder for it."""

import io
import re
import zipfile

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from jsubspace.errors import UsageError

ARCHIVE = "tiny-imagenet-200.zip"
URL = f"http://cs231n.stanford.edu/{ARCHIVE}"
FOLDER = "tiny-imagenet-200"
NUM_CLASSES = 200


def features() -> tfds.features.FeaturesDict:
    """The features of clean and corrupted images. JPEGs are stored unchanged, and grey images become RGB when decoded."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=NUM_CLASSES),
        }
    )


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """100,000 training and 10,000 validation images, 64 x 64, of 200 classes. The test images have no labels.

    The label of a class is the place of its WordNet identifier in alphabetical order.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The archive's JPEG files, unchanged."}
    # The size and SHA-256 of the published archive. TFDS checks them for a download and for manual_dir.
    url_infos = {
        URL: checksums.UrlInfo(
            size=248_100_043,
            checksum="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            filename=ARCHIVE,
        )
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="A subset of ImageNet: 200 classes at 64 x 64 pixels.",
            features=features(),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
        )

    def _split_generators(self, dl_manager):
        path = dl_manager.download(URL)
        return {
            "train": self._generate_examples(path, _train),
            "validation": self._generate_examples(path, _validation),
        }

    def _generate_examples(self, path, images):
        with zipfile.ZipFile(path) as archive:
            labels = labels_of(archive.read(f"{FOLDER}/wnids.txt").decode().split(), ARCHIVE)
            for name, wnid in images(archive):
                yield name, {"image": io.BytesIO(archive.read(name)), "label": labels[wnid]}


def _train(archive: zipfile.ZipFile):
    for name in archive.namelist():
        if match := re.fullmatch(rf"{FOLDER}/train/(n\d+)/images/[^/]+\.JPEG", name):
            yield name, match[1]


def _validation(archive: zipfile.ZipFile):
    for line in archive.read(f"{FOLDER}/val/val_annotations.txt").decode().splitlines():
        name, wnid = line.split("\t")[:2]  # then the bounding box
        yield f"{FOLDER}/val/images/{name}", wnid


def labels_of(wnids: list[str], archive: str) -> dict[str, int]:
    """The label of each class, from the WordNet identifiers of all classes."""
    if len(set(wnids)) != NUM_CLASSES:
        raise UsageError(f"{archive} has {len(set(wnids))} classes instead of {NUM_CLASSES}: it is not the original.")
    return {wnid: label for label, wnid in enumerate(sorted(set(wnids)))}
