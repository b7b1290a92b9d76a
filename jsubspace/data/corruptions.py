"""The corrupted test sets and their names.

The corrupted copy of the data set ``cifar10`` with fog of severity 3 is the data set ``cifar10_corrupted/fog_3``. It is
prepared and read like any other data set, and has only a test split.

References:
  Hendrycks and Dietterich (2019), Benchmarking Neural Network Robustness to Common Corruptions and Perturbations.
"""

import dataclasses
import difflib

from jsubspace import arguments
from jsubspace.data import sets
from jsubspace.data.sets import DataSet
from jsubspace.errors import UsageError

MAIN = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The benchmark's corruptions, by ImageNet-C's names."""

EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
"""The corruptions that the benchmark's authors set aside for the choice of hyperparameters."""

CORRUPTIONS = (*MAIN, *EXTRA)
SEVERITIES = (1, 2, 3, 4, 5)

SMALLEST_SIDE = 24
"""In pixels. The corruptions are defined for 32 pixels and more. Images below 32 are padded, and images below this number
would be mostly padding."""

_SUFFIX = "_corrupted"
# TFDS's names for the files of CIFAR-10-C that differ from the names of ImageNet-C.
_CIFAR10_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_FROST = tuple(f"frost{i}.{'png' if i <= 3 else 'jpg'}" for i in range(1, 7))


def corrupted(data_set: DataSet, corruption: str, severity: int) -> DataSet:
    """The corrupted test set of ``data_set``.

    CIFAR-10-C, ImageNet-C and Tiny-ImageNet-C are the published sets. TFDS's builder computes ImageNet-C from the
    validation images. For every other data set, `locally_corrupted` computes the same corruptions with ImageNet-C's
    constants.

    Raises:
      UsageError: for an unknown corruption or severity, or images that are too small.
    """
    _check(corruption, severity)
    name, variant = f"{data_set.name}{_SUFFIX}", f"{corruption}_{severity}"
    match data_set.name:
        case "cifar10":
            variant = f"{_CIFAR10_NAMES.get(corruption, corruption)}_{severity}"
            return dataclasses.replace(data_set, name=f"{name}/{variant}", archives=("CIFAR-10-C.tar",))
        case "imagenet2012":
            return dataclasses.replace(
                data_set,
                name=f"{name}/{variant}",
                needs="tensorflow,corruptions",  # TFDS corrupts with the packages of the extra "corruptions"
                archives=("ILSVRC2012_img_val.tar", *_FROST),
                sizes=data_set.sizes[1:],
            )
        case "tiny_imagenet":  # One data set has one split per corruption, so its archive is read once.
            builder, archives = "jsubspace.data.tiny_imagenet_c", ("Tiny-ImageNet-C.tar",)
            return dataclasses.replace(data_set, name=name, test_split=variant, builder=builder, archives=archives)
    height, width, _ = data_set.image_shape
    if min(height, width) < SMALLEST_SIDE:
        raise UsageError(
            f"images of {data_set.name} are {height} x {width}. The corruptions are defined for 32 x 32 and larger, and for "
            f"images padded to that from {SMALLEST_SIDE} x {SMALLEST_SIDE} on."
        )
    builder = "jsubspace.data.locally_corrupted"
    return dataclasses.replace(
        data_set, name=f"{name}/{variant}", test_split="test", builder=builder, needs="corruptions", archives=()
    )


def parse(text: str) -> tuple[tuple[str, int], ...]:
    """The corruptions and severities that a setting lists.

    Args:
      text: names with commas between, as "fog_3", or "fog" for its five severities. "all" stands for all 19 corruptions
        with five severities each, and "" for no corruption.

    Raises:
      ValueError: for an empty word.
      UsageError: for an unknown name.

    Example:
      >>> parse("snow_3, fog_1")
      (('snow', 3), ('fog', 1))
    """
    if text.strip() == "all":
        return tuple((corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES)
    found: dict[tuple[str, int], None] = {}
    for word in arguments.words(text):
        name, severities = _with_severities(word)
        for severity in severities:
            _check(name, severity)
            found[name, severity] = None
    return tuple(found)


def find(name: str) -> tuple[DataSet, ...]:
    """The data sets that ``name`` stands for: a clean data set, or a corrupted one as in the module's docstring.

    ``cifar10_corrupted/fog`` stands for its five severities and ``cifar10_corrupted`` for all 95 sets.

    Raises:
      UsageError: for an unknown name.
    """
    family, _, variant = name.partition("/")
    if not family.endswith(_SUFFIX):
        return (sets.find(name),)
    data_set = sets.find(family.removesuffix(_SUFFIX))
    corruption, severities = _with_severities(variant)
    corruption = next((ours for ours, theirs in _CIFAR10_NAMES.items() if theirs == corruption), corruption)
    found: dict[str, DataSet] = {}
    for one in (corruption,) if variant else CORRUPTIONS:
        for severity in severities:
            row = corrupted(data_set, one, severity)
            found.setdefault(row.name, row)
    return tuple(found.values())


def _with_severities(word: str) -> tuple[str, tuple[int, ...]]:
    """A corruption and its severities: of "fog_3" the third, of "fog" all. Only the digits 0 to 9 are severities."""
    name, _, severity = word.rpartition("_")
    return (name, (int(severity),)) if severity in tuple("0123456789") and name else (word, SEVERITIES)


def _check(corruption: str, severity: int) -> None:
    if corruption not in CORRUPTIONS:
        nearest = difflib.get_close_matches(corruption, CORRUPTIONS, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UsageError(f"unknown corruption {corruption!r}: {hint}The corruptions are {', '.join(CORRUPTIONS)}.")
    if severity not in SEVERITIES:
        raise UsageError(f"the severity of a corruption is 1, 2, 3, 4 or 5, not {severity!r}.")
