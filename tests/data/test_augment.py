"""Augmentation inside the step, against pillow, pixel by pixel."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from jsubspace.data import augment

crop_and_flip = jax.jit(augment.random_crop_and_flip, static_argnums=(3, 4))
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def crops_by_pillow(image, padding, flip):
    """Every crop and mirroring of one image: ``{(top, left, mirrored): pixels}``."""
    grey = image.shape[-1] == 1
    padded = ImageOps.expand(Image.fromarray(image[..., 0] if grey else image), border=padding, fill=0)
    height, width, _ = image.shape
    crops = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded.crop((left, top, left + width, top + height))
            for mirrored in (False, True) if flip else (False,):
                pixels = np.asarray(ImageOps.mirror(crop) if mirrored else crop)
                crops[top, left, mirrored] = pixels.reshape(image.shape)
    return crops


@pytest.mark.parametrize(
    ("shape", "padding", "flip"),
    [
        ((32, 32, 3), 4, True),
        ((28, 28, 1), 2, True),
        ((8, 8, 1), 1, False),
        ((6, 9, 3), 0, True),
        ((6, 9, 3), 3, False),
    ],
)
def test_every_output_is_one_of_pillows_crops_and_all_are_drawn_alike(shape, padding, flip):
    image = RNG.integers(1, 256, shape, dtype=np.uint8)  # no black: a shift is never mistaken for another
    crops = crops_by_pillow(image, padding, flip)
    names = {pixels.tobytes(): name for name, pixels in crops.items()}
    assert len(names) == len(crops)
    n = 60 * len(crops)
    found = crop_and_flip(KEY, jnp.array(np.tile(image, (n, 1, 1, 1))), jnp.arange(n), padding, flip)
    assert found.dtype == jnp.uint8
    counts = collections.Counter(names.get(one.tobytes()) for one in np.asarray(found))
    assert None not in counts, "an output that no shift explains"
    # Uniform over all shifts and mirrorings: chi squared below mean + 4 standard deviations.
    k = len(crops)
    chi_squared = sum((counts[name] - 60) ** 2 / 60 for name in crops)
    assert chi_squared < (k - 1) + 4 * np.sqrt(2 * max(k - 1, 1))


IMAGES = jnp.asarray(RNG.integers(0, 256, (16, 12, 12, 3), dtype=np.uint8))


def test_each_image_depends_on_its_place_in_the_whole_batch_alone():
    """So that eight devices with two images each compute what one device computes."""
    whole = crop_and_flip(KEY, IMAGES, jnp.arange(16), 3, True)
    for devices in (2, 8):
        split = jax.vmap(lambda x, i: crop_and_flip(KEY, x, i, 3, True))(
            IMAGES.reshape(devices, -1, 12, 12, 3), jnp.arange(16).reshape(devices, -1)
        )
        np.testing.assert_array_equal(split.reshape(whole.shape), whole)
    order = RNG.permutation(16)
    np.testing.assert_array_equal(crop_and_flip(KEY, IMAGES[order], jnp.asarray(order), 3, True), whole[order])


def test_the_same_on_eight_devices():
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    whole = crop_and_flip(KEY, IMAGES, jnp.arange(16), 3, True)
    step = jax.pmap(lambda x, i: crop_and_flip(KEY, x, i, 3, True))
    split = step(IMAGES.reshape(8, 2, 12, 12, 3), jnp.arange(16).reshape(8, 2))
    np.testing.assert_array_equal(np.asarray(split).reshape(whole.shape), whole)


def test_another_step_draws_others():
    one, two = (crop_and_flip(jax.random.key(s), IMAGES, jnp.arange(16), 3, True) for s in (0, 1))
    assert (one != two).any()


def test_nothing_asked_nothing_done():
    np.testing.assert_array_equal(crop_and_flip(KEY, IMAGES, jnp.arange(16), 0, False), IMAGES)


def test_normalize_is_the_formula_in_float64_to_float32_rounding():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = augment.normalize(IMAGES, mean, std)
    assert found.dtype == jnp.float32
    expected = (np.asarray(IMAGES, np.float64) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    grey = augment.normalize(IMAGES[..., :1], (0.5,), (0.25,))
    assert grey.shape == (16, 12, 12, 1)
    np.testing.assert_allclose(grey, (np.asarray(IMAGES[..., :1], np.float64) / 255 - 0.5) / 0.25, atol=1e-6)
