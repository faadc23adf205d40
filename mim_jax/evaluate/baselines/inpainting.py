"""Controls: holes filled without any training, to be scored like the network's inpaintings.

A control that separates mpox from other images as well as the network shows that the learned inpainting is
not what does it. Images `[B, S, S, C]`, floats in [0, 1]; one hole of `mask_size` at `offset` = (row, column)
for all; the result is the patch `[B, M, M, C]` float32. Call them with arrays, not under `jax.jit`: those
that can be compiled are, by themselves; `telea_fill` runs on the host.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import mask

TELEA_RADIUS = 3  # pixels; the value of OpenCV's own example of this method


@functools.partial(jax.jit, static_argnames=("offset", "mask_size"))
def mean_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fills the hole with the mean colour of the rest of the image, channel by channel."""
    size = _check(images, offset, mask_size)
    _check_something_is_left(size, mask_size)
    kept = 1 - mask.box_mask(offset, size=size, mask_size=mask_size)
    sums = jax.lax.map(  # image by image, as in `_both_axes`
        lambda image: jnp.sum(image * kept, axis=(0, 1), keepdims=True), images.astype(jnp.float32)
    )
    mean = sums / (size**2 - mask_size**2)
    return jnp.broadcast_to(mean, (images.shape[0], mask_size, mask_size, images.shape[-1]))


@functools.partial(jax.jit, static_argnames=("offset", "mask_size"))
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
    _check_ring(_check(images, offset, mask_size), offset, mask_size, width=1)
    ring = _sides(_window(images.astype(jnp.float32), offset, mask_size, width=1))[:, :, 1:-1]
    level = _middle(ring)
    return level + _inverse_laplacian(_spread(ring - level))


@functools.partial(jax.jit, static_argnames=("offset", "mask_size"))
def biharmonic_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fills the hole with the biharmonic function that continues the two rings of pixels around it.

    It continues slopes as well as values. Solves D D u = 0 in the hole, D the five-point Laplacian and u =
    image outside, exactly, and cuts the result to the range of each channel outside the hole, because slopes
    that go on across a large hole leave it. Matches `skimage.restoration.inpaint_biharmonic` to 1e-4; Damelin
    and Hoang, "On surface completion and image inpainting by biharmonic functions: numerical aspects",
    International Journal of Mathematics and Mathematical Sciences, 2018.

    The sparse system is never formed. The curvature w = D u is harmonic in the hole; were it known on the
    inner ring, two harmonic problems would give u. With h the harmonic fill, T the reading of the hole's
    edge pixels next to the ring, and K = -D inside the hole, u = h - K^-2 T' w, while on the inner ring w =
    (D of the image with an empty hole) + T u. So w = (1 + T K^-2 T')^-1 (D of that image + T h), a system of
    only 4 M unknowns that no pixel value enters.
    """
    size = _check(images, offset, mask_size)
    _check_ring(size, offset, mask_size, width=2)
    images = images.astype(jnp.float32)
    ring = _sides(_window(images, offset, mask_size, width=1))[:, :, 1:-1]
    level = _middle(ring)
    harmonic = _inverse_laplacian(_spread(ring - level))

    hidden = mask.box_mask(offset, size=size, mask_size=mask_size)[None] > 0
    emptied = _window(jnp.where(hidden, 0, images - level), offset, mask_size, width=2)
    known = _sides(_laplacian(emptied))[:, :, 1:-1] + _sides(harmonic)
    solver = jnp.asarray(_curvature_solver(mask_size))
    curvature = jax.lax.map(  # image by image, as in `_both_axes`
        lambda sides: jnp.matmul(solver, sides, precision=jax.lax.Precision.HIGHEST),
        known.reshape(known.shape[0], 4 * mask_size, known.shape[-1]),
    )
    patches = level + harmonic - _inverse_laplacian(_spread(curvature.reshape(known.shape)), power=2)
    low = jnp.min(images, axis=(1, 2), keepdims=True, where=~hidden, initial=jnp.inf)
    high = jnp.max(images, axis=(1, 2), keepdims=True, where=~hidden, initial=-jnp.inf)
    return jnp.clip(patches, low, high)


def telea_fill(images: jax.Array, offset: tuple[int, int], mask_size: int) -> jax.Array:
    """Fills the hole from its rim inwards by weighted means of what is known within three pixels.

    Telea, "An image inpainting technique based on the fast marching method", Journal of Graphics Tools, 2004,
    as `cv2.inpaint` has it, channel by channel in 16 bits: in 8 its rounding drifts by up to eleven levels
    across a flat hole of 112 pixels, which a comparison of histograms would hold against it. It runs on the
    host and is no callback inside a compiled program: `jax.pure_callback` with images as arguments hangs
    where there is one core.
    """
    # OpenCV takes a tenth of a second to import, and only this function needs it.
    import cv2

    size = _check(images, offset, mask_size)
    _check_something_is_left(size, mask_size)
    row, column = offset
    hidden = np.zeros((size, size), np.uint8)
    hidden[row : row + mask_size, column : column + mask_size] = 1

    def paint(channel: np.ndarray) -> np.ndarray:
        painted = cv2.inpaint(channel, hidden, TELEA_RADIUS, cv2.INPAINT_TELEA)
        return painted[row : row + mask_size, column : column + mask_size]

    levels = np.round(65535 * np.clip(np.asarray(images, np.float32), 0, 1)).astype(np.uint16)
    channels = np.ascontiguousarray(np.moveaxis(levels, -1, 1))
    patches = np.zeros((*channels.shape[:2], mask_size, mask_size), np.float32)
    with ThreadPoolExecutor() as pool:  # OpenCV lets other threads of Python run meanwhile
        done = pool.map(paint, channels.reshape(-1, size, size))
        for patch, painted in zip(patches.reshape(-1, mask_size, mask_size), done, strict=True):
            patch[:] = painted / np.float32(65535)
    return jnp.asarray(np.moveaxis(patches, 1, -1))


CONTROLS: dict[str, Callable[[jax.Array, tuple[int, int], int], jax.Array]] = {
    "mean_fill": mean_fill,
    "harmonic_fill": harmonic_fill,
    "biharmonic_fill": biharmonic_fill,
    "telea_fill": telea_fill,
}


def _window(images: jax.Array, offset: tuple[int, int], mask_size: int, *, width: int) -> jax.Array:
    """The hole and `width` pixels all around it."""
    row, column = offset
    return images[:, row - width : row + mask_size + width, column - width : column + mask_size + width]


def _sides(planes: jax.Array) -> jax.Array:
    """First and last row, first and last column of `[B, M, M, C]`: `[B, 4, M, C]`."""
    return jnp.stack([planes[:, 0], planes[:, -1], planes[:, :, 0], planes[:, :, -1]], axis=1)


def _middle(ring: jax.Array) -> jax.Array:
    """The middle of the ring's range, `[B, 1, 1, C]`.

    The equations hold for u plus any constant, and around the middle there is less to round. A mean would do
    as well, but its last bit can change with the size of the batch.
    """
    low, high = (extreme(ring, axis=(1, 2), keepdims=True) for extreme in (jnp.min, jnp.max))
    return (low + high) / 2


def _spread(sides: jax.Array) -> jax.Array:
    """The transpose of `_sides`: zeros `[B, M, M, C]` with the sides `[B, 4, M, C]` added on their places."""
    top, bottom, left, right = jnp.unstack(sides, axis=1)
    planes = jnp.zeros((sides.shape[0], sides.shape[2], sides.shape[2], sides.shape[3]), sides.dtype)
    return planes.at[:, 0].add(top).at[:, -1].add(bottom).at[:, :, 0].add(left).at[:, :, -1].add(right)


def _laplacian(planes: jax.Array) -> jax.Array:
    """The sum of the four neighbours minus four times the pixel: `[B, M, M, C]` -> `[B, M-2, M-2, C]`."""
    inner = planes[:, 1:-1, 1:-1]
    return (
        (planes[:, :-2, 1:-1] + planes[:, 2:, 1:-1])
        + (planes[:, 1:-1, :-2] + planes[:, 1:-1, 2:])
        - 4 * inner
    )


def _inverse_laplacian(planes: jax.Array, *, power: int = 1) -> jax.Array:
    """K^-power of `[B, M, M, C]`, K the negative Laplacian with zeros around."""
    transform, eigenvalues = _sine_transform(planes.shape[1])
    sine = jnp.asarray(transform, jnp.float32)
    scale = (eigenvalues[:, None] + eigenvalues[None, :])[None, :, :, None] ** power
    return _both_axes(sine, _both_axes(sine, planes) / jnp.asarray(scale, jnp.float32))


@functools.cache
def _curvature_solver(mask_size: int) -> np.ndarray:
    """(1 + T K^-2 T')^-1 of `biharmonic_fill`, float32 `[4 M, 4 M]`; its condition grows as M, 33 at 112."""
    sine, eigenvalues = _sine_transform(mask_size)
    first, last = sine[0], sine[-1]
    # The sine transform of each edge pixel's unit image, over the eigenvalues of K.
    units = np.stack(
        [
            first[None, :, None] * sine[:, None, :],
            last[None, :, None] * sine[:, None, :],
            sine[:, :, None] * first[None, None, :],
            sine[:, :, None] * last[None, None, :],
        ]
    ) / (eigenvalues[:, None] + eigenvalues[None, :])
    units = units.reshape(4 * mask_size, mask_size**2)
    return np.linalg.inv(np.eye(4 * mask_size) + units @ units.T).astype(np.float32)


def _both_axes(sine: jax.Array, planes: jax.Array) -> jax.Array:
    """S X S for every image and channel of `[B, M, M, C]`; full float32 products on every backend."""
    # Image by image: one product of them all would round differently with the size of the batch.
    return jax.lax.map(
        lambda plane: jnp.einsum("ij,jkc,kl->ilc", sine, plane, sine, precision=jax.lax.Precision.HIGHEST),
        planes,
    )


def _sine_transform(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The orthonormal sine transform (DST-I) `[size, size]`, and the eigenvalues `e_k` of above `[size]`."""
    frequency = np.pi * np.arange(1, size + 1) / (size + 1)
    sine = np.sqrt(2 / (size + 1)) * np.sin(np.outer(frequency, np.arange(1, size + 1)))
    return sine, 2 - 2 * np.cos(frequency)


def _check(images: jax.Array, offset: tuple[int, int], mask_size: int) -> int:
    """The side of the images, or a ValueError about images or hole."""
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
    return size


def _check_something_is_left(size: int, mask_size: int) -> None:
    if mask_size == size:
        raise ValueError(
            f"mask_size={mask_size} hides the whole image: no pixel is left to fill from, choose a "
            "smaller one"
        )


def _check_ring(size: int, offset: tuple[int, int], mask_size: int, *, width: int) -> None:
    """Raises ValueError unless `width` pixels of the image surround the hole."""
    if min(offset) < width or max(offset) + mask_size + width > size:
        raise ValueError(
            f"a hole of {mask_size} at {tuple(offset)} touches the border of a {size}x{size} image or "
            f"comes too near: this fill needs {width} pixels all around it, move it inside or make it smaller"
        )
