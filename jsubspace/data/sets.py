"""The data sets that the library knows, as a table of facts."""

import dataclasses
import difflib
import importlib
from typing import Any

from jsubspace.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What a pipeline must know of a data set.

    Attributes:
      name: as in a config; also TFDS's name, with its configuration after a slash, unless ``builder`` says otherwise.
      image_shape: ``(h, w, c)`` of one uint8 image.
      num_classes: k; labels are 0, ..., k - 1.
      mean, std: of each channel, for pixels scaled to [0, 1].
      crop_padding: training crops are taken from the image with so many black pixels on each side.
      flip: whether training images are mirrored at random.
      test_split: TFDS's name of the split that is evaluated on.
      builder: ``module:class`` of a builder of ours; empty for TFDS's own.
      needs: what preparing takes: "" for nothing, else extras in setup.py, with commas between.
      archives: files that ``--manual_dir`` must hold where there is no network; empty if there is nothing to download.
      sizes: of the first archives in bytes, where TFDS has no checksum and a tar cut between two files would pass for a
        whole one.
      downloads: whether the archives can be fetched from the network; those of ImageNet can not.
      in_memory: whether the images are of one size and few enough to be held in memory.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    test_split: str = "test"
    builder: str = ""
    needs: str = "tensorflow"
    archives: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    downloads: bool = True
    in_memory: bool = True

    def pooled(self, side: int) -> "DataSet":
        """The same with squares of ``side`` x ``side`` pixels averaged (`Examples.pooled`), cropped as far in proportion."""
        height, width, channels = self.image_shape
        shape = (height // side, width // side, channels)
        return dataclasses.replace(self, image_shape=shape, crop_padding=-(-self.crop_padding // side))

    def tfds_builder(self, data_dir: str) -> Any:
        """The TFDS builder for ``data_dir``. Importing TFDS here keeps it out of programs that have no data."""
        import tensorflow_datasets as tfds

        if not self.builder:
            return tfds.builder(self.name, data_dir=data_dir, file_format="array_record")
        module, name = self.builder.split(":")
        config = self.name.partition("/")[2] or None
        builder = getattr(importlib.import_module(module), name)
        return builder(data_dir=data_dir, config=config, file_format="array_record")


_ALL = (
    DataSet(
        name="digits",
        image_shape=(8, 8, 1),
        num_classes=10,
        mean=(0.305,),
        std=(0.376,),
        crop_padding=1,
        flip=False,
        builder="jsubspace.data.digits:Digits",
        needs="digits",
    ),
    DataSet(
        name="fashion_mnist",
        image_shape=(28, 28, 1),
        num_classes=10,
        mean=(0.286,),
        std=(0.353,),
        crop_padding=2,
        flip=True,
        archives=(
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
        ),
    ),
    DataSet(
        name="cifar10",
        image_shape=(32, 32, 3),
        num_classes=10,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_padding=4,
        flip=True,
        archives=("cifar-10-binary.tar.gz",),
    ),
    DataSet(
        name="cifar100",
        image_shape=(32, 32, 3),
        num_classes=100,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_padding=4,
        flip=True,
        archives=("cifar-100-binary.tar.gz",),
    ),
    DataSet(
        name="tiny_imagenet",
        image_shape=(64, 64, 3),
        num_classes=200,
        mean=(0.480, 0.448, 0.397),
        std=(0.276, 0.269, 0.282),
        crop_padding=4,
        flip=True,
        test_split="validation",
        builder="jsubspace.data.tiny_imagenet:TinyImagenet",
        needs="",
        archives=("tiny-imagenet-200.zip",),
    ),
    DataSet(
        name="imagenet2012",
        image_shape=(224, 224, 3),  # of what its pipeline yields; on the disk they are of any size
        num_classes=1000,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_padding=0,  # random resized crops instead
        flip=True,
        test_split="validation",
        archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        sizes=(147_897_477_120, 6_744_924_160),
        downloads=False,
        in_memory=False,
    ),
)

SETS = {data_set.name: data_set for data_set in _ALL}


def find(name: str) -> DataSet:
    """The data set of that name.

    Raises:
      UsageError: for an unknown name; it lists the known ones, the nearest first.
    """
    if name in SETS:
        return SETS[name]
    nearest = difflib.get_close_matches(name, SETS, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UsageError(f"unknown data set {name!r}: {hint}The data sets are {', '.join(SETS)}.")
