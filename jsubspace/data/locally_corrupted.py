"""Corrupted test sets of data sets without a published corrupted set. They are computed here and kept as TFDS data sets."""

import zlib

import numpy as np
import tensorflow_datasets as tfds

from jsubspace.data import corruptions, digits, examples, sets

LIBRARY_SIDE = 32
"""The smallest side in pixels that the library of corruptions accepts."""


def corrupt(images: np.ndarray, corruption: str, severity: int, name: str = "") -> np.ndarray:
    """Corrupts each of ``images`` independently.

    Grey images are corrupted as RGB and averaged back. Images smaller than 32 x 32 are padded to this size by repeating
    their borders, and cropped afterwards. The noise of an image depends on ``name``, ``corruption``, ``severity`` and
    its place in ``images`` alone.

    Args:
      images: uint8 ``[n, h, w, c]`` with one or three channels.
      corruption, severity: as in `corruptions`.
      name: the name of the data set, which is a part of the seed.

    Returns:
      uint8 ``[n, h, w, c]``.

    References:
      Michaelis et al. (2019), Benchmarking Robustness in Object Detection, for the library.
    """
    import imagecorruptions  # only needed to prepare

    _, height, width, channels = images.shape
    above, left = ((max(LIBRARY_SIDE - side, 0)) // 2 for side in (height, width))
    below, right = max(LIBRARY_SIDE - height, 0) - above, max(LIBRARY_SIDE - width, 0) - left
    seed = zlib.crc32(f"{name}/{corruption}_{severity}".encode())
    result = np.empty_like(images)
    state = np.random.get_state()  # the library draws from numpy's global generator
    try:
        for i, image in enumerate(images):
            np.random.seed([seed, i])
            # Two corruptions have their own seed, which the library would otherwise take from the clock.
            own = {"seed": np.random.randint(2**31)} if corruption in ("glass_blur", "impulse_noise") else {}
            image = np.pad(image, ((above, below), (left, right), (0, 0)), mode="edge")
            image = np.repeat(image, 3 // channels, axis=-1)
            image = imagecorruptions.corrupt(image, severity=severity, corruption_name=corruption, **own)
            image = image[above : above + height, left : left + width]
            result[i] = image if channels == 3 else np.round(image.mean(axis=-1, keepdims=True))
    finally:
        np.random.set_state(state)
    return result


class _LocallyCorrupted(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The corrupted test split of a prepared data set. Every corruption and severity has its own configuration."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "imagecorruptions-imaug with ImageNet-C's constants; every image has its own seed."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=f"{corruption}_{severity}", description=f"{corruption} of severity {severity}")
        for corruption in corruptions.CORRUPTIONS
        for severity in corruptions.SEVERITIES
    ]
    source = ""

    def _info(self) -> tfds.core.DatasetInfo:
        data_set = sets.SETS[self.source]
        return self.dataset_info_from_configs(
            description=f"Common corruptions of the test images of {self.source}.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=data_set.image_shape, encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=data_set.num_classes),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/hendrycks/robustness",
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # Nothing is downloaded.
        import imagecorruptions  # noqa: F401  If the package is missing, this fails before the images are read.

        data_set = sets.SETS[self.source]
        return {"test": self._generate_examples(examples.read(data_set, self._data_dir_root, data_set.test_split))}

    def _generate_examples(self, clean: examples.Examples):
        corruption, _, severity = self.builder_config.name.rpartition("_")
        images = corrupt(clean.images, corruption, int(severity), self.source)
        for i, (image, label) in enumerate(zip(images, clean.labels, strict=True)):
            yield i, {"image": digits.png(image), "label": int(label)}


class FashionMnistCorrupted(_LocallyCorrupted):
    """The corrupted Fashion-MNIST, 28 x 28 pixels in grey."""

    source = "fashion_mnist"


class Cifar100Corrupted(_LocallyCorrupted):
    """The corrupted CIFAR-100. The published CIFAR-100-C has weaker constants, and TFDS does not provide it."""

    source = "cifar100"
