"""Baselines that fill the hole without any training, scored like the network's inpaintings.

If a baseline separates mpox from other images as well as the network does, learned inpainting is not the
reason. Images are `[B, S, S, C]`, floats in [0, 1]; all have one hole of `mask_size` at `offset` = (row,
column); the result is the patch `[B, M, M, C]` float32. Call them with arrays, not inside `jax.jit`: all are
jitted already except `telea_fill`, which runs on the host.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import mask
from mim_jax.data.batches import on_device

TELEA_RADIUS = 3  # pixels; the value of OpenCV's own example of this method


@functools.partial(jax.jit, static_argnames=("offset", "mask_size"))
def mean_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fill the hole with the mean colour of the rest of the image, channel by channel."""
    size = _check(images, offset, mask_size)
    kept = 1 - mask.box_mask(offset, size=size, mask_size=mask_size)
    sums = jax.lax.map(  # image by image, as in `_both_axes`
        lambda image: jnp.sum(image * kept, axis=(0, 1), keepdims=True), images.astype(jnp.float32)
    )
    mean = sums / (size**2 - mask_size**2)
    return jnp.broadcast_to(mean, (images.shape[0], mask_size, mask_size, images.shape[-1]))


@functools.partial(jax.jit, static_argnames=("offset", "mask_size"))
def harmonic_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fill the hole with the harmonic function that continues the ring of pixels around it.

    It is the steady state of diffusion from the ring inwards, and solves the Laplace equation, 4 u[i, j]
    = u[i-1, j] + u[i+1, j] + u[i, j-1] + u[i, j+1] in the hole with u = image on the ring, exactly: the sine
    transform S (symmetric, S S = 1) diagonalises the second difference, so U = S ((S B S) / (e_i + e_j)) S,
    where B holds the ring's values on the hole's edge pixels and e_k = 2 - 2 cos(pi k / (M + 1)). Diffusion
    inpainting: Bertalmio, Sapiro, Caselles and Ballester, "Image inpainting", SIGGRAPH 2000; the harmonic
    form: Chan and Shen, "Mathematical models for local nontexture inpaintings", SIAM Journal on Applied
    Mathematics, 2001.
    """
    size = _check(images, offset, mask_size)
    if min(offset) < 1 or max(offset) + mask_size + 1 > size:
        raise ValueError(
            f"a hole of {mask_size} at {tuple(offset)} touches the border of a {size}x{size} image: "
            "this fill needs pixels all around it, move it inside or make it smaller"
        )
    ring = _ring(images.astype(jnp.float32), offset, mask_size)
    # The equations hold for u plus any constant, and values centred on 0 have smaller rounding errors. A mean
    # would work too, but its last bit can change with the size of the batch.
    low, high = (extreme(ring, axis=(1, 2), keepdims=True) for extreme in (jnp.min, jnp.max))
    level = (low + high) / 2
    return level + _inverse_laplacian(_spread(ring - level))


def telea_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fill the hole from its rim inwards by weighted means of the known pixels within three pixels.

    Telea, "An image inpainting technique based on the fast marching method", Journal of Graphics Tools, 2004,
    in the version of `cv2.inpaint`, channel by channel in 16 bits: 8-bit rounding drifts by up to eleven
    levels across a flat hole of 112 pixels, which would affect a comparison of histograms. It runs on the
    host, but not as a callback inside a compiled program: `jax.pure_callback` with images as arguments hangs
    on a single core.
    """
    # OpenCV takes a tenth of a second to import, and only this function needs it.
    import cv2

    size = _check(images, offset, mask_size)
    row, column = offset
    hidden = np.zeros((size, size), np.uint8)
    hidden[row : row + mask_size, column : column + mask_size] = 1

    def paint(channel: np.ndarray) -> np.ndarray:
        painted = cv2.inpaint(channel, hidden, TELEA_RADIUS, cv2.INPAINT_TELEA)
        return painted[row : row + mask_size, column : column + mask_size]

    levels = np.round(65535 * np.clip(np.asarray(images, np.float32), 0, 1)).astype(np.uint16)
    channels = np.ascontiguousarray(np.moveaxis(levels, -1, 1))
    patches = np.zeros((*channels.shape[:2], mask_size, mask_size), np.float32)
    done = _threads().map(paint, channels.reshape(-1, size, size))
    for patch, painted in zip(patches.reshape(-1, mask_size, mask_size), done, strict=True):
        patch[:] = painted / np.float32(65535)
    return on_device(np.moveaxis(patches, 1, -1))


_threads = functools.cache(ThreadPoolExecutor)  # they call OpenCV, which releases the GIL

FILLS: dict[str, Callable[[jax.Array, tuple[int, int], int], jax.Array]] = {
    "mean_fill": mean_fill,
    "harmonic_fill": harmonic_fill,
    "telea_fill": telea_fill,
}


def _ring(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Pixels next to the hole: above, below, left and right of it, `[B, 4, M, C]`."""
    row, column = offset
    around = images[:, row - 1 : row + mask_size + 1, column - 1 : column + mask_size + 1]
    sides = jnp.stack([around[:, 0], around[:, -1], around[:, :, 0], around[:, :, -1]], axis=1)
    return sides[:, :, 1:-1]


def _spread(sides: jax.Array) -> jax.Array:
    """Zeros `[B, M, M, C]`, with the sides `[B, 4, M, C]` added to the adjacent edge pixels."""
    top, bottom, left, right = jnp.unstack(sides, axis=1)
    planes = jnp.zeros((sides.shape[0], sides.shape[2], sides.shape[2], sides.shape[3]), sides.dtype)
    return planes.at[:, 0].add(top).at[:, -1].add(bottom).at[:, :, 0].add(left).at[:, :, -1].add(right)


def _inverse_laplacian(planes: jax.Array) -> jax.Array:
    """Solve -D u = planes `[B, M, M, C]`, where D is the five-point Laplacian with zero boundary values."""
    place = np.arange(1, planes.shape[1] + 1)
    frequency = np.pi * place / (len(place) + 1)
    transform = np.sqrt(2 / (len(place) + 1)) * np.sin(np.outer(frequency, place))  # orthonormal (DST-I)
    sine = jnp.asarray(transform, jnp.float32)
    eigenvalues = 2 - 2 * np.cos(frequency)
    scale = (eigenvalues[:, None] + eigenvalues[None, :])[None, :, :, None]
    return _both_axes(sine, _both_axes(sine, planes) / jnp.asarray(scale, jnp.float32))


def _both_axes(sine: jax.Array, planes: jax.Array) -> jax.Array:
    """S X S for every image and channel of `[B, M, M, C]`; full float32 products on every backend."""
    # Image by image: the rounding of one product of all images would depend on the batch size.
    return jax.lax.map(
        lambda plane: jnp.einsum("ij,jkc,kl->ilc", sine, plane, sine, precision=jax.lax.Precision.HIGHEST),
        planes,
    )


def _check(images: jax.Array, offset: tuple[int, int], mask_size: int) -> int:
    """Return the side of the images; ValueError if images or hole do not fit, or nothing is left to see."""
    if images.ndim != 4 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be [B, S, S, C], got {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be floats in [0, 1], got {images.dtype}: divide uint8 images by 255")
    size = images.shape[1]
    mask.check_sizes(size, mask_size)
    if not (0 <= offset[0] <= size - mask_size and 0 <= offset[1] <= size - mask_size):
        raise ValueError(
            f"a hole of {mask_size} at {tuple(offset)} reaches outside a {size}x{size} image: offsets 0 to "
            f"{size - mask_size} are possible"
        )
    if mask_size == size:
        raise ValueError(
            f"mask_size={mask_size} hides the whole image: no pixel is left to fill from, choose a "
            "smaller one"
        )
    return size
