"""Photographs on the host: JPEG to uint8 pixels, torchvision's crops, resizing.

simplejpeg decodes and OpenCV resizes if both are installed (the extra ``imagenet``). Otherwise Pillow does both, at half
the speed. The decoded pixels are the same. Training crops differ a little because the filters differ: OpenCV averages over
areas, Pillow and torchvision average over triangles. Pillow always resizes test crops, which equal torchvision's to the
bit.
"""

import importlib
import io
import math
import random
from typing import Any

import numpy as np

cv2: Any
simplejpeg: Any
try:
    cv2, simplejpeg = importlib.import_module("cv2"), importlib.import_module("simplejpeg")
except ModuleNotFoundError:
    cv2 = simplejpeg = None

DECODER = "simplejpeg and OpenCV" if simplejpeg is not None else "Pillow"
"""The packages that decode and resize in this process."""

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
Box = tuple[int, int, int, int]
"""Top, left, height, width."""


def use_one_thread() -> None:
    """Keeps OpenCV from starting threads. Call it in a process that is one of many."""
    if cv2 is not None:
        cv2.setNumThreads(1)


def decode(encoded: bytes) -> np.ndarray:
    """The image ``[h, w, 3]`` uint8 in RGB. The file may be a JPEG or another format, in colour, grey or CMYK.

    Raises:
      ValueError, OSError: if the image is damaged, for example cut off in the middle.
    """
    if _is_plain_jpeg(encoded):
        try:
            return simplejpeg.decode_jpeg(encoded)
        except ValueError as error:
            if "Premature end" in str(error):
                raise
            # Otherwise the file breaks a rule without harm, and Pillow reads it.
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def random_box(rng: random.Random, height: int, width: int) -> Box:
    """The part of an image that a random resized crop takes, by torchvision's algorithm.

    The algorithm draws an area uniformly (a part of the image between the bounds of `SCALE`) and an aspect ratio
    log-uniformly (between the bounds of `RATIO`). If ten draws do not fit into the image, it takes the largest central box
    with an allowed ratio.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(image: np.ndarray, box: Box, size: int, mirror: bool = False) -> np.ndarray:
    """The box of ``image [h, w, 3]``, resized to ``[size, size, 3]`` with antialiasing and mirrored if ``mirror``."""
    top, left, h, w = box
    crop = image[top : top + h, left : left + w]
    if cv2 is None:
        crop = _resize(crop, size, size)
        return crop[:, ::-1] if mirror else crop
    # INTER_AREA is for shrinking only: it repeats pixels if it enlarges.
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if min(h, w) >= size else cv2.INTER_LINEAR)
    return cv2.flip(crop, 1) if mirror else crop


def central_crop(image: np.ndarray, resize: int, size: int) -> np.ndarray:
    """The middle ``[size, size, 3]`` of ``image [h, w, 3]``, after its short side was resized to ``resize``."""
    height, width, _ = image.shape
    if height <= width:
        height, width = resize, int(resize * width / height)
    else:
        height, width = int(resize * height / width), resize
    top, left = round((height - size) / 2), round((width - size) / 2)
    return _resize(image, height, width)[top : top + size, left : left + size]


def _is_plain_jpeg(encoded: bytes) -> bool:
    """Whether simplejpeg decodes the image as Pillow does. ImageNet has a few images in CMYK and one PNG."""
    return (
        simplejpeg is not None
        and simplejpeg.is_jpeg(encoded)
        and simplejpeg.decode_jpeg_header(encoded)[2] in ("YCbCr", "RGB", "Gray")
    )


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
