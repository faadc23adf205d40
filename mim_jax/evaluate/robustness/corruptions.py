"""Seven corruptions of a photograph by camera, handling or transmission, each with one strength parameter.

Pure functions from one RGB image `[S, S, 3]`, float in [0, 1], to another; the strength may be traced, so a
corruption is compiled once for all strengths. Only `jpeg` runs on the host and cannot be traced.
`CORRUPTIONS` holds batch versions, each with five increasing strengths; strength 0 leaves every image
unchanged, bit for bit. Brightness and colour are changed on the stored, gamma-encoded values, as in an image
editor.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from PIL import Image


def gaussian_noise(key: jax.Array, image: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Add normal noise of standard deviation `sigma` to every value, and clip (section 3.4 of the paper)."""
    return jnp.clip(image + sigma * jax.random.normal(key, image.shape, image.dtype), 0, 1)


def gaussian_blur(image: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Blur with a Gaussian of `sigma` pixels, mirrored at the border (`cv2.BORDER_REFLECT_101`).

    Not truncated to a kernel of fixed size, so `sigma` may be traced. The image is mirrored once on each
    side, which is sufficient while `sigma` is well below the side of the image.
    """
    size = image.shape[0]
    here = jnp.arange(size)[:, None]
    there = jnp.arange(size)[None, :]

    def weight(distance: jax.Array) -> jax.Array:
        return jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-6)))

    # Pixel j contributes at j, mirrored at the first pixel at -j, and at the last pixel at 2 (S - 1) - j.
    weights = weight(here - there)
    weights += jnp.where(there > 0, weight(here + there), 0)
    weights += jnp.where(there < size - 1, weight(2 * (size - 1) - there - here), 0)
    return _resample(image, weights / jnp.sum(weights, axis=1, keepdims=True))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Save the image as JPEG (4:2:0, `quality` 1 to 100) and read it back, with Pillow on the host.

    uint8 comes back as uint8; floats are rounded to the 256 levels of a byte first.
    """
    is_float = image.dtype != np.uint8
    levels = np.rint(255 * image).astype(np.uint8) if is_float else image
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    decoded = np.asarray(Image.open(file))
    return decoded.astype(image.dtype) / 255 if is_float else decoded


def darken(image: jax.Array, share: jax.Array | float) -> jax.Array:
    """Darken every pixel by `share` of its value: `(1 - share) * image`."""
    return image * (1 - share)


def white_balance(image: jax.Array, stops: jax.Array | float) -> jax.Array:
    """Warm the light: red times `2^(stops / 2)`, blue times `2^(-stops / 2)`, green unchanged; clipped."""
    gains = jnp.exp2(jnp.array([0.5, 0.0, -0.5], image.dtype) * stops)
    return jnp.clip(image * gains[None, None, :], 0, 1)


def rotate(image: jax.Array, degrees: jax.Array | float) -> jax.Array:
    """Rotate the image counterclockwise about its centre: bilinear, mirrored at the border.

    As `scipy.ndimage.rotate(image, degrees, reshape=False, order=1, mode="mirror")`.
    """
    size = image.shape[0]
    angle = jnp.deg2rad(degrees)
    centre = (size - 1) / 2
    row, column = jnp.meshgrid(jnp.arange(size) - centre, jnp.arange(size) - centre, indexing="ij")
    # Source coordinates of each output pixel.
    rows = jnp.cos(angle) * row + jnp.sin(angle) * column + centre
    columns = jnp.cos(angle) * column - jnp.sin(angle) * row + centre
    planes = [map_coordinates(image[..., c], [rows, columns], 1, mode="mirror") for c in range(3)]
    return jnp.clip(jnp.stack(planes, axis=-1), 0, 1)


def crop(image: jax.Array, share: jax.Array | float) -> jax.Array:
    """Crop centrally, removing `share` of the side, and enlarge the rest bilinearly to full size."""
    size = image.shape[0]
    first = share * size / 2
    # Pixel centres are at half-integers: output pixel i maps to (i + 1/2) (1 - share) in the crop, clamped
    # to it.
    at = first + (jnp.arange(size) + 0.5) * (1 - share) - 0.5
    at = jnp.clip(at, first, first + (1 - share) * size - 1)
    return _resample(image, jnp.maximum(0, 1 - jnp.abs(at[:, None] - jnp.arange(size)[None, :])))


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption, for batches."""

    apply: Callable[..., Any]  # image `[S, S, 3]`, strength -> image; a random one takes a key first
    unit: str  # unit of the strengths, as shown in the report
    strengths: tuple[float, float, float, float, float]  # increasing; 0 would be the identity
    on_host: bool = False  # NumPy arrays in and out, never traced
    random: bool = False

    def __call__(self, key: jax.Array, images: Any, strength: jax.Array | float, *, index: Any) -> Any:
        """Corrupt images `[B, S, S, 3]`, float in [0, 1], at one strength for all.

        The randomness of an image depends on `key` and its own entry of `index` (int32 `[B]`, its number
        in the whole data set), not on the batch or the strength.
        """
        if self.on_host:
            if strength == 0 or not len(images):
                return images
            return np.stack([self.apply(image, strength) for image in np.asarray(images)])
        strength = jnp.asarray(strength, jnp.float32)
        if self.random:
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
            changed = jax.vmap(self.apply, in_axes=(0, 0, None))(keys, images, strength)
        else:
            changed = jax.vmap(self.apply, in_axes=(0, None))(images, strength)
        return jnp.where(strength == 0, images, changed)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(
        gaussian_noise, "standard deviation, values in [0, 1]", (0.02, 0.05, 0.1, 0.2, 0.3), random=True
    ),
    "blur": Corruption(
        lambda image, strength: gaussian_blur(image, strength / 100 * image.shape[0]),
        "standard deviation, % of the image's side",
        (0.4, 0.8, 1.2, 2.0, 3.0),
    ),
    "jpeg": Corruption(
        lambda image, strength: jpeg(image, 100 - round(strength)),
        "100 - quality of libjpeg",
        (20.0, 50.0, 70.0, 80.0, 90.0),
        on_host=True,
    ),
    "brightness": Corruption(darken, "share of every value taken away", (0.1, 0.2, 0.3, 0.4, 0.5)),
    "white_balance": Corruption(
        white_balance, "stops between red and blue, to the warm side", (0.2, 0.4, 0.6, 0.8, 1.0)
    ),
    "rotation": Corruption(rotate, "degrees, counterclockwise", (5.0, 10.0, 20.0, 30.0, 45.0)),
    "crop": Corruption(crop, "share of the side cut away, then enlarged", (0.05, 0.1, 0.2, 0.3, 0.5)),
}


def _resample(image: jax.Array, weights: jax.Array) -> jax.Array:
    """Apply `weights` `[S, S]` along both axes, with full float32 products on every backend, and clip."""
    planes = jnp.einsum("ij,jkc,lk->ilc", weights, image, weights, precision=jax.lax.Precision.HIGHEST)
    return jnp.clip(planes, 0, 1)
