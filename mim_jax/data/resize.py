"""Image downscaling, with the same result on the host and inside a compiled program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def shrink(images: jax.Array, size: int) -> jax.Array:
    """Resize float images in [0, 1], `[B, S, S, 3]`, to `size` pixels a side, rounded to 256 levels.

    Each pixel is a triangle-weighted mean of the pixels under it (`jax.image.resize`, "linear", antialiased).

    >>> shrink(jnp.ones((1, 4, 4, 3)), 2).shape
    (1, 2, 2, 3)
    """
    if images.shape[1] == size:
        return images
    smaller = jax.image.resize(images, (images.shape[0], size, size, 3), "linear", precision="highest")
    return jnp.round(255 * smaller) / 255


def reduce(images: np.ndarray, size: int) -> np.ndarray:
    """Resize images uint8 `[N, S, S, 3]` as `shrink` does: uint8 `[N, size, size, 3]`."""
    found = np.empty((len(images), size, size, 3), np.uint8)
    for index, image in enumerate(images):
        found[index] = _reduce_one(image, size)[0]
    return found


@functools.partial(jax.jit, static_argnums=1)
def _reduce_one(image: jax.Array, size: int) -> jax.Array:
    return jnp.round(255 * shrink(image[None].astype(jnp.float32) / 255, size)).astype(jnp.uint8)
