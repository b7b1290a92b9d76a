"""Random photographs that replace ImageNet in tests and benchmarks on machines without the real images."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Example = tuple[str, bytes, int]
"""File name, encoded image, label."""


def photograph(rng: np.random.Generator, height: int = 375, width: int = 500) -> np.ndarray:
    """An image ``[h, w, 3]`` uint8 with the spectrum of a photograph, so that it compresses like a photograph."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -1.3
    phases = np.exp(2j * np.pi * rng.random((3, *frequency.shape)))
    grey, *colours = (np.fft.irfft2(amplitude * phase, s=(height, width)) for phase in phases)
    image = np.stack([grey, grey + 0.4 * colours[0], grey + 0.4 * colours[1]], axis=-1)
    image = (image - image.mean()) / image.std() * 55 + 120
    return np.clip(image, 0, 255).astype(np.uint8)


def encode(image: np.ndarray, quality: int = 90) -> bytes:
    """The JPEG file of ``image [h, w, 3]`` or ``[h, w]``."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="jpeg", quality=quality)
    return buffer.getvalue()


def examples(count: int, num_classes: int = 1000, height: int = 375, width: int = 500) -> Iterable[Example]:
    """``count`` random photographs as JPEGs with random labels, the same every time."""
    rng = np.random.default_rng(0)
    for i in range(count):
        yield f"{i:08}.JPEG", encode(photograph(rng, height, width)), int(rng.integers(num_classes))


def prepare_imagenet(data_dir: str, splits: Mapping[str, Iterable[Example]]) -> None:
    """Writes ``splits`` in the place and format of TFDS's prepared ``imagenet2012``, without TensorFlow."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            """Random images, NOT ImageNet."""

            name = "imagenet2012"
            VERSION = tfds.core.Version("5.1.0")

            def _info(self) -> Any:
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=self.__doc__,
                    features=tfds.features.FeaturesDict(
                        {
                            "image": tfds.features.Image(encoding_format="jpeg"),
                            "label": tfds.features.ClassLabel(num_classes=1000),
                            "file_name": tfds.features.Text(),
                        }
                    ),
                )

            def _split_generators(self, dl_manager: Any) -> Any:
                del dl_manager  # Nothing is downloaded.
                return {split: self._generate_examples(examples) for split, examples in splits.items()}

            def _generate_examples(self, examples: Iterable[Example]) -> Any:
                for name, image, label in examples:
                    yield name, {"file_name": name, "image": io.BytesIO(image), "label": label}

    Builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
