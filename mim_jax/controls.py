"""Controls: holes filled without any training, to be scored like the network's inpaintings.

A control that separates mpox from other images as well as the network shows that the learned inpainting is
not what does it. Images `[B, S, S, C]`, floats in [0, 1]; one hole of `mask_size` at `offset` = (row, column)
for all; the result is the patch `[B, M, M, C]` float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import masks


def mean_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fills the hole with the mean colour of the rest of the image, channel by channel."""
    size = _check(images, offset, mask_size)
    if mask_size == size:
        raise ValueError(f"mask_size={mask_size} hides the whole image: no pixel is left to take a mean of")
    kept = 1 - masks.box_mask(offset, size=size, mask_size=mask_size)[None]
    mean = jnp.sum(images.astype(jnp.float32) * kept, axis=(1, 2), keepdims=True) / (size**2 - mask_size**2)
    return jnp.broadcast_to(mean, (images.shape[0], mask_size, mask_size, images.shape[-1]))


def harmonic_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fills the hole with the harmonic function that continues the ring of pixels around it.

    It is the end state of diffusion from the ring inwards. Solves the discrete Laplace equation, 4 u[i, j] =
    u[i-1, j] + u[i+1, j] + u[i, j-1] + u[i, j+1] in the hole with u = image on the ring, exactly: the sine
    transform S (symmetric, S S = 1) diagonalises the second difference, so U = S ((S B S) / (e_i + e_j)) S,
    where B holds the ring's values on the hole's edge pixels and e_k = 2 - 2 cos(pi k / (M + 1)). Diffusion
    inpainting: Bertalmio, Sapiro, Caselles and Ballester, "Image inpainting", SIGGRAPH 2000; the harmonic
    form: Chan and Shen, "Mathematical models for local nontexture inpaintings", SIAM Journal on Applied
    Mathematics, 2001.
    """
    size = _check(images, offset, mask_size)
    row, column = offset
    below, right = row + mask_size, column + mask_size
    if min(row, column) < 1 or max(below, right) >= size:
        raise ValueError(
            f"a hole of {mask_size} at {(row, column)} touches the border of a {size}x{size} image, and "
            "harmonic_fill needs a ring of pixels all around it: move it inside or make it smaller"
        )
    images = images.astype(jnp.float32)
    top, bottom = images[:, row - 1, column:right], images[:, below, column:right]
    left_side, right_side = images[:, row:below, column - 1], images[:, row:below, right]
    ring = jnp.stack([top, bottom, left_side, right_side], axis=1)
    # The equation holds for u plus any constant: around the ring's mean there is less to round.
    level = jnp.mean(ring, axis=(1, 2), keepdims=True)
    top, bottom, left_side, right_side = jnp.unstack(ring - level, axis=1)
    edges = jnp.zeros((images.shape[0], mask_size, mask_size, images.shape[-1]), jnp.float32)
    edges = (
        edges.at[:, 0].add(top).at[:, -1].add(bottom).at[:, :, 0].add(left_side).at[:, :, -1].add(right_side)
    )

    sine, eigenvalues = _sine_transform(mask_size)
    scale = (eigenvalues[:, None] + eigenvalues[None, :])[None, :, :, None]
    return level + _both_axes(sine, _both_axes(sine, edges) / scale)


CONTROLS: dict[str, Callable[[jax.Array, tuple[int, int], int], jax.Array]] = {
    "mean_fill": mean_fill,
    "harmonic_fill": harmonic_fill,
}


def _both_axes(sine: jax.Array, planes: jax.Array) -> jax.Array:
    """S X S for every image and channel of `[B, M, M, C]`; full float32 products on every backend."""
    return jnp.einsum("ij,bjkc,kl->bilc", sine, planes, sine, precision=jax.lax.Precision.HIGHEST)


def _sine_transform(size: int) -> tuple[jax.Array, jax.Array]:
    """The orthonormal sine transform (DST-I) `[size, size]`, and the eigenvalues `e_k` of above `[size]`."""
    frequency = np.pi * np.arange(1, size + 1) / (size + 1)
    sine = np.sqrt(2 / (size + 1)) * np.sin(np.outer(frequency, np.arange(1, size + 1)))
    return jnp.asarray(sine, jnp.float32), jnp.asarray(2 - 2 * np.cos(frequency), jnp.float32)


def _check(images: jax.Array, offset: tuple[int, int], mask_size: int) -> int:
    """The side of the images, or a ValueError about images or hole."""
    if images.ndim != 4 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be [B, S, S, C], got {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be floats in [0, 1], got {images.dtype}: divide uint8 images by 255")
    size = images.shape[1]
    masks.check_sizes(size, mask_size)
    if not (0 <= offset[0] <= size - mask_size and 0 <= offset[1] <= size - mask_size):
        raise ValueError(
            f"a hole of {mask_size} at {tuple(offset)} reaches outside a {size}x{size} image: offsets 0 to "
            f"{size - mask_size} are possible"
        )
    return size
