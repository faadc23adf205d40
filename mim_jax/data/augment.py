"""The augmented test set of the paper (section 3.1): five copies of each image, by flips and saturation.

The copies of one image are not independent: intervals must treat them as one cluster (see `origin`).
"""

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

COPIES = 5


def augment_test(
    images: np.ndarray, *, mode: str = "fixed", seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make five copies of each image; copies of one image are consecutive.

    The paper's "44 -> 220" leaves open whether the original is among the five: in mode "fixed" it is.

    Args:
      images: uint8 `[N, S, S, 3]`, RGB.
      mode: "fixed": the original, flipped left to right, flipped upside down, saturation x 0.7, and x 1.3.
        "random": five draws of both flips, each with probability 0.5, and saturation x U(0.5, 1.5).
      seed: seed for "random"; the draws for an image depend only on the seed and on its index.

    Returns:
      Copies, uint8 `[5N, S, S, 3]`; `origin`, int `[5N]`, index of each copy's source image; `copy`, int
      `[5N]`: 0 to 4 in "fixed", where 0 is the unchanged original; 1 to 5 in "random", without an original.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 [N, S, S, 3], but are {images.dtype} {list(images.shape)}")
    key = jax.random.key(seed)
    augmented = np.empty((len(images), COPIES, *images.shape[1:]), dtype=np.uint8)
    # One image at a time, so that no more than five copies are ever held in floating point.
    for i, image in enumerate(images):
        augmented[i] = _apply(image, *_plan(mode, jax.random.fold_in(key, i)))
    origin = np.repeat(np.arange(len(images)), COPIES)
    first_copy = 1 if mode == "random" else 0
    copy = np.tile(np.arange(first_copy, first_copy + COPIES), len(images))
    return augmented.reshape(-1, *images.shape[1:]), origin, copy


@jax.jit
def _apply(image: jax.Array, mirrored: jax.Array, upside_down: jax.Array, saturation: jax.Array) -> jax.Array:
    """Augment one image, uint8 `[S, S, 3]`, with all rows of `_plan`: uint8 `[5, S, S, 3]`."""

    def one(mirrored: jax.Array, upside_down: jax.Array, saturation: jax.Array) -> jax.Array:
        flipped = jnp.where(mirrored, pix.flip_left_right(image), image)
        flipped = jnp.where(upside_down, pix.flip_up_down(flipped), flipped)
        coloured = pix.adjust_saturation(flipped.astype(jnp.float32) / 255, saturation)
        # Rounded to the nearest level, half to even. A factor of one bypasses the arithmetic.
        return jnp.where(saturation == 1, flipped, jnp.round(255 * coloured).astype(jnp.uint8))

    return jax.vmap(one)(mirrored, upside_down, saturation)


def _plan(mode: str, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """For each copy: flip left to right, flip upside down, both bool `[5]`; saturation, float `[5]`."""
    if mode == "random":
        mirrored, upside_down, saturation = jax.random.split(key, 3)
        return (
            jax.random.bernoulli(mirrored, 0.5, (COPIES,)),
            jax.random.bernoulli(upside_down, 0.5, (COPIES,)),
            jax.random.uniform(saturation, (COPIES,), jnp.float32, 0.5, 1.5),
        )
    return (
        jnp.array([False, True, False, False, False]),
        jnp.array([False, False, True, False, False]),
        jnp.array([1, 1, 1, 0.7, 1.3], dtype=jnp.float32),
    )
