"""Handwritten digits, 8 x 8 pixels in grey, as a TFDS builder that needs neither a network nor TensorFlow."""

import numpy as np
import tensorflow_datasets as tfds

TEST_EXAMPLES = 360


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 digits of scikit-learn, split by a fixed permutation into 1,437 training and 360 test images."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Sixteen grey levels stretched to 0..255; a fixed random fifth is the test split."}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Handwritten digits of the UCI machine learning repository in scikit-learn's 8 x 8 version.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # Nothing is downloaded.
        from sklearn.datasets import load_digits  # only needed to prepare

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        order = np.random.default_rng(0).permutation(len(images))
        test, train = order[:TEST_EXAMPLES], order[TEST_EXAMPLES:]
        return {
            "train": self._generate_examples(images[train], digits.target[train]),
            "test": self._generate_examples(images[test], digits.target[test]),
        }

    def _generate_examples(self, images, labels):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": png(image), "label": int(label)}


def png(image: np.ndarray):
    """``image`` uint8 ``[h, w, c]`` as a PNG file in memory. TFDS would need TensorFlow to encode an array."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format="png")
    buffer.seek(0)
    return buffer
