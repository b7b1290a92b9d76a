"""The data sets that the library knows: a table of facts."""

import dataclasses
import difflib
import importlib
from typing import Any

from jsubspace.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The facts that a pipeline needs to know.

    Attributes:
      name: the name in the settings and in TFDS. The name of TFDS's variant may follow after a slash.
      image_shape: ``(h, w, c)`` of one uint8 image.
      num_classes: k. Labels are 0, ..., k - 1.
      mean, std: the mean and standard deviation of each channel, for pixels scaled to [0, 1].
      crop_padding: the number of black pixels that are added on each side before a training crop is taken.
      flip: whether training images are mirrored at random.
      test_split: TFDS's name of the split that is evaluated.
      builder: the module of the builder if the builder is ours, or empty if it is TFDS's.
      needs: the extras of setup.py that preparing needs, with commas between, or "".
      archives: the files that ``--manual_dir`` must hold on a machine without a network, or empty if nothing is downloaded.
      sizes: the sizes in bytes of the first archives, if TFDS has no checksum. Without a size, a tar file that was cut
        between two members would be taken for the whole archive.
      downloads: whether a program can download the archives. ImageNet's archives cannot be downloaded by a program.
      in_memory: whether the images have one size and fit into memory.
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
        """The data set with squares of ``side`` x ``side`` pixels averaged (`Examples.pooled`).

        The padding of the crops shrinks in proportion.
        """
        height, width, channels = self.image_shape
        shape = (height // side, width // side, channels)
        return dataclasses.replace(self, image_shape=shape, crop_padding=-(-self.crop_padding // side))

    def tfds_builder(self, data_dir: str) -> Any:
        """The TFDS builder for ``data_dir``. TFDS is imported here, so programs without data do not import it."""
        import tensorflow_datasets as tfds

        if self.builder:
            importlib.import_module(self.builder)  # This makes the builder known to TFDS by its name.
        return tfds.builder(self.name, data_dir=data_dir, file_format="array_record")


_ALL = (
    DataSet(
        name="digits",
        image_shape=(8, 8, 1),
        num_classes=10,
        mean=(0.305,),
        std=(0.376,),
        crop_padding=1,
        flip=False,
        builder="jsubspace.data.digits",
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
        builder="jsubspace.data.tiny_imagenet",
        needs="",
        archives=("tiny-imagenet-200.zip",),
    ),
    DataSet(
        name="imagenet2012",
        image_shape=(224, 224, 3),  # images from its pipeline have this shape, images on the disk any
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
    """The data set with this name.

    Raises:
      UsageError: for an unknown name. The message has the nearest name and lists all names.
    """
    if name in SETS:
        return SETS[name]
    nearest = difflib.get_close_matches(name, SETS, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UsageError(f"unknown data set {name!r}: {hint}The data sets are {', '.join(SETS)}.")
