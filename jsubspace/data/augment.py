"""Augmentation and normalisation of small images, inside the jitted step.

Images travel to the device as uint8, a quarter of the bytes of float32. Each image is augmented by a key that depends on
its place in the batch alone, so the result is the same on one device and on eight. The draws are those of threefry,
whatever the implementation of the key: under vmap, the draws of rbg depend on the whole batch.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """``(images / 255 - mean) / std`` of uint8 images ``[..., c]``: float32."""
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def random_crop_and_flip(key: jax.Array, images: jax.Array, index: jax.Array, padding: int, flip: bool) -> jax.Array:
    """Shifts each image by up to ``padding`` pixels, fills the border with black, and mirrors half of the images.

    Args:
      key: the step's key, the same on every device. A key of another implementation than threefry is the seed of a
        threefry key.
      images: ``[n, h, w, c]``, any dtype.
      index: ``[n]``, the places of the images in the whole batch.
      padding: the number of black pixels that are added on each side before a crop of h x w is taken uniformly.
      flip: whether to mirror.

    Returns:
      ``[n, h, w, c]``.
    """

    def augment_one(key: jax.Array, image: jax.Array) -> jax.Array:
        crop_key, flip_key = jax.random.split(key)
        if padding:
            top, left = jax.random.randint(crop_key, (2,), 0, 2 * padding + 1)
            padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
            image = jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)
        if flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        return image

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(_threefry(key), index)
    return jax.vmap(augment_one)(keys, images)


def _threefry(key: jax.Array) -> jax.Array:
    if str(jax.random.key_impl(key)) == "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
