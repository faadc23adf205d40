"""What a camera, a hand or a network does to a photograph: seven corruptions, each with one strength.

Pure functions of one image `[S, S, 3]`, float in [0, 1], RGB, to the same; the strength may be traced, so
that all strengths of one corruption are one compilation. `CORRUPTIONS` holds them for batches, with five
strengths each, increasing; strength 0 leaves every image as it is, bit for bit. Brightness and colour are
changed as the pixels are stored (with their gamma), as an image editor does it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

# Annex K of ITU-T T.81 (1992), "Digital compression and coding of continuous-tone still images": the tables
# that libjpeg scales by its quality.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF: R, G, B -> Y, Cb - 128, Cr - 128.
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)
# The orthonormal DCT-II of 8 samples: row u is c_u cos((2x + 1) u pi / 16).
_DCT = np.sqrt(2 / 8) * np.cos((2 * np.arange(8)[None, :] + 1) * np.arange(8)[:, None] * np.pi / 16)
_DCT[0] = np.sqrt(1 / 8)


def gaussian_noise(key: jax.Array, image: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Adds normal noise of standard deviation `sigma` to every value, clipped (section 3.4 of the paper)."""
    return jnp.clip(image + sigma * jax.random.normal(key, image.shape, image.dtype), 0, 1)


def gaussian_blur(image: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Blurs with a Gaussian of `sigma` pixels, mirrored at the border (`cv2.BORDER_REFLECT_101`).

    Not truncated to a kernel of fixed size, so `sigma` may be traced. The mirror image is taken once on each
    side, which is all that matters while `sigma` is well below the side of the image.
    """
    size = image.shape[0]
    here = jnp.arange(size)[:, None]
    there = jnp.arange(size)[None, :]

    def weight(distance: jax.Array) -> jax.Array:
        return jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-6)))

    # Pixel j is met at j, mirrored on the first pixel at -j, and on the last at 2 (S - 1) - j.
    weights = weight(here - there)
    weights += jnp.where(there > 0, weight(here + there), 0)
    weights += jnp.where(there < size - 1, weight(2 * (size - 1) - there - here), 0)
    return _resample(image, weights / jnp.sum(weights, axis=1, keepdims=True))


def jpeg(image: jax.Array, quality: jax.Array | int) -> jax.Array:
    """The image as libjpeg at its default settings gives it back, on the 256 levels of a byte.

    Y Cb Cr of JFIF, chroma at half resolution (4:2:0) and interpolated back by weights 3/4 and 1/4, the
    tables of Annex K scaled by `quality` (1 to 100). Rounds wherever libjpeg rounds, but transforms in
    floating point: a coefficient midway between two levels may go the other way.
    """
    size = image.shape[0]
    to_ycc = jnp.asarray(_TO_YCC, image.dtype)
    highest = jax.lax.Precision.HIGHEST
    ycc = jnp.round(jnp.einsum("hwc,dc->dhw", jnp.round(255 * image), to_ycc, precision=highest))
    padding = -size % 16
    luma, *chroma = jnp.pad(ycc, ((0, 0), (0, padding), (0, padding)), mode="edge")
    scale = _quality_scale(quality)
    luma = _quantised(luma - 128, _LUMINANCE, scale)[:size, :size]
    half = -(-size // 2)
    blue, red = (
        _doubled(_quantised(_halved(128 + plane), _CHROMINANCE, scale)[:half, :half])[:size, :size] - 128
        for plane in chroma
    )
    rgb = [luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue]
    return jnp.clip(jnp.round(jnp.stack(rgb, axis=-1)), 0, 255) / 255


def darken(image: jax.Array, share: jax.Array | float) -> jax.Array:
    """Takes `share` of its value away from every pixel: `(1 - share) * image`."""
    return image * (1 - share)


def white_balance(image: jax.Array, stops: jax.Array | float) -> jax.Array:
    """A warmer light: red times `2^(stops / 2)`, blue times `2^(-stops / 2)`, green as it is; clipped."""
    gains = jnp.exp2(jnp.array([0.5, 0.0, -0.5], image.dtype) * stops)
    return jnp.clip(image * gains[None, None, :], 0, 1)


def rotate(image: jax.Array, degrees: jax.Array | float) -> jax.Array:
    """Turns the image counterclockwise about its centre: bilinear, mirrored at the border.

    `scipy.ndimage.rotate(image, degrees, reshape=False, order=1, mode="mirror")`.
    """
    size = image.shape[0]
    angle = jnp.deg2rad(degrees)
    centre = (size - 1) / 2
    row, column = jnp.meshgrid(jnp.arange(size) - centre, jnp.arange(size) - centre, indexing="ij")
    # Where each pixel of the result comes from.
    rows = jnp.cos(angle) * row + jnp.sin(angle) * column + centre
    columns = jnp.cos(angle) * column - jnp.sin(angle) * row + centre
    planes = [map_coordinates(image[..., c], [rows, columns], 1, mode="mirror") for c in range(3)]
    return jnp.clip(jnp.stack(planes, axis=-1), 0, 1)


def crop(image: jax.Array, share: jax.Array | float) -> jax.Array:
    """Cuts `share` of the side away around the centre and enlarges what is left, bilinearly, to full size."""
    size = image.shape[0]
    first = share * size / 2
    # Centres of pixels are at half-integers: the result's pixel i lies at (i + 1/2) (1 - share) of the crop,
    # held inside it.
    at = first + (jnp.arange(size) + 0.5) * (1 - share) - 0.5
    at = jnp.clip(at, first, first + (1 - share) * size - 1)
    return _resample(image, jnp.maximum(0, 1 - jnp.abs(at[:, None] - jnp.arange(size)[None, :])))


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption, for batches.

    Attributes:
      apply: key, image `[S, S, 3]`, strength -> image.
      unit: of the strengths, for people to read.
      strengths: five, increasing; 0 would be the identity.
    """

    apply: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    unit: str
    strengths: tuple[float, float, float, float, float]

    def __call__(
        self, key: jax.Array, images: jax.Array, strength: jax.Array | float, *, index: jax.Array
    ) -> jax.Array:
        """Images `[B, S, S, 3]`, float in [0, 1], at one strength for all.

        What is random about an image depends on `key` and its own entry of `index` (int32 `[B]`, its number
        in the whole data set): not on the batch, and not on the strength.
        """
        strength = jnp.asarray(strength, jnp.float32)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
        changed = jax.vmap(self.apply, in_axes=(0, 0, None))(keys, images, strength)
        return jnp.where(strength == 0, images, changed)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(gaussian_noise, "standard deviation, values in [0, 1]", (0.02, 0.05, 0.1, 0.2, 0.3)),
    "blur": Corruption(
        lambda key, image, strength: gaussian_blur(image, strength / 100 * image.shape[0]),
        "standard deviation, % of the image's side",
        (0.4, 0.8, 1.2, 2.0, 3.0),
    ),
    "jpeg": Corruption(
        lambda key, image, strength: jpeg(image, 100 - jnp.round(strength).astype(jnp.int32)),
        "100 - quality of libjpeg",
        (20.0, 50.0, 70.0, 80.0, 90.0),
    ),
    "brightness": Corruption(
        lambda key, image, strength: darken(image, strength),
        "share of every value taken away",
        (0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "white_balance": Corruption(
        lambda key, image, strength: white_balance(image, strength),
        "stops between red and blue, to the warm side",
        (0.2, 0.4, 0.6, 0.8, 1.0),
    ),
    "rotation": Corruption(
        lambda key, image, strength: rotate(image, strength),
        "degrees, counterclockwise",
        (5.0, 10.0, 20.0, 30.0, 45.0),
    ),
    "crop": Corruption(
        lambda key, image, strength: crop(image, strength),
        "share of the side cut away, then enlarged",
        (0.05, 0.1, 0.2, 0.3, 0.5),
    ),
}


def _resample(image: jax.Array, weights: jax.Array) -> jax.Array:
    """`weights` `[S, S]` along both axes; full float32 products on every backend."""
    planes = jnp.einsum("ij,jkc,lk->ilc", weights, image, weights, precision=jax.lax.Precision.HIGHEST)
    return jnp.clip(planes, 0, 1)


def _quality_scale(quality: jax.Array | int) -> jax.Array:
    """libjpeg's percentage: 5000 / q below 50, 200 - 2 q from there, in integers."""
    quality = jnp.clip(jnp.asarray(quality, jnp.int32), 1, 100)
    return jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)


def _quantised(plane: jax.Array, table: np.ndarray, scale: jax.Array) -> jax.Array:
    """A plane around 0 through its 8x8 cosine transform, each coefficient rounded to a step; 0 to 255."""
    steps = jnp.clip((jnp.asarray(table) * scale + 50) // 100, 1, 255).astype(plane.dtype)[None, :, None, :]
    dct = jnp.asarray(_DCT, plane.dtype)
    highest = jax.lax.Precision.HIGHEST
    blocks = plane.reshape(plane.shape[0] // 8, 8, plane.shape[1] // 8, 8)
    coefficients = jnp.einsum("ui,hiwj,vj->huwv", dct, blocks, dct, precision=highest)
    coefficients = steps * jnp.round(coefficients / steps)
    blocks = jnp.einsum("ui,huwv,vj->hiwj", dct, coefficients, dct, precision=highest)
    return jnp.clip(jnp.round(blocks.reshape(plane.shape)) + 128, 0, 255)


def _halved(plane: jax.Array) -> jax.Array:
    """Chroma 0 to 255 at half resolution, around 0: means of four, rounded down and up in turn."""
    height, width = plane.shape
    total = jnp.sum(plane.reshape(height // 2, 2, width // 2, 2), axis=(1, 3))
    bias = 1 + jnp.arange(width // 2, dtype=jnp.int32) % 2
    return jnp.floor((total + bias[None, :]) / 4) - 128


def _doubled(plane: jax.Array) -> jax.Array:
    """Chroma at twice the resolution: 3/4 of the nearer sample and 1/4 of the farther, along both axes."""
    height, width = plane.shape
    padded = jnp.pad(plane, 1, mode="edge")
    middle = 3 * padded[1:-1]
    rows = jnp.stack([middle + padded[:-2], middle + padded[2:]], axis=1).reshape(2 * height, width + 2)
    middle = 3 * rows[:, 1:-1]
    left, right = middle + rows[:, :-2] + 8, middle + rows[:, 2:] + 7
    return jnp.floor(jnp.stack([left, right], axis=2).reshape(2 * height, 2 * width) / 16)
