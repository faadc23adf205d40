"""Histograms of an image: over the channels of a backbone's layers, and over colours.

The paper compares colour histograms of two images by the Bhattacharyya coefficient (Eq. 14). Here a layer's
channels replace the colour bins, and each channel's spread over the image replaces the count.
"""

import jax
import jax.numpy as jnp

from mim_jax.features.backbone import Backbone
from mim_jax.measure.histogram import coefficient
from mim_jax.measure.images import as_float

COLOR_BINS = 6  # bins per channel of the joint colour histogram
SMALLEST = 1e-12  # least total mass to divide by; avoids NaN for a histogram without any spread


def channel_histograms(backbone: Backbone, images: jax.Array) -> dict[str, jax.Array]:
    """Compute each layer's histogram over channels: the spread of each channel as a share of their sum.

    The spread is the standard deviation over positions, averaged over the image and its three mirror images
    (left-right, upside down, both), because skin has no upright orientation. Images are uint8, or float in
    [0, 1], `[B, S, S, 3]`. Returns layer -> float32 `[B, C]`; each row sums to 1.

    >>> halves = Backbone("mine", lambda weights, images: {"halves": images[:, ::2, ::2]}, image_size=8)
    >>> images = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    >>> float(channel_histograms(halves, images)["halves"].sum().round(5))
    1.0
    """
    # One mirror image at a time, to use the memory of one.
    spreads = jax.lax.map(
        lambda image: jax.tree.map(spread_of, dict(backbone.features(image))), mirrored(as_float(images))
    )
    return {layer: shares(jnp.mean(spread, axis=0)) for layer, spread in spreads.items()}


def mirrored(images: jax.Array) -> jax.Array:
    """Images `[B, H, W, 3]` and their three mirror images: `[4, B, H, W, 3]`."""
    return jnp.stack([images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]])


def feature_hbd(backbone: Backbone, x: jax.Array, y: jax.Array) -> jax.Array:
    """Similarity of two images in a network: the mean over layers of `1 + ln BC` (Eq. 14).

    A sixth similarity of MIM, between an image and its inpainting. Histograms are of the image itself,
    without mirror images. Images that are not of the network's input size are resized to it. Both are uint8,
    or float in [0, 1], `[B, S, S, 3]`. Returns float32 `[B]`: 1 for equal images; at least -26.6, when the
    histograms of no layer overlap.

    >>> halves = Backbone("mine", lambda weights, images: {"halves": images[:, ::2, ::2]}, image_size=8)
    >>> images = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    >>> feature_hbd(halves, images, images)
    Array([1.], dtype=float32)
    """
    size = backbone.image_size

    def described(images: jax.Array) -> dict[str, jax.Array]:
        shape = (len(images), size, size, 3)
        resized = images if images.shape == shape else jax.image.resize(images, shape, "linear")
        return jax.tree.map(lambda maps: shares(spread_of(maps)), dict(backbone.features(resized)))

    p, q = described(as_float(x)), described(as_float(y))
    return jnp.mean(jnp.stack([1 + jnp.log(coefficient(p[layer], q[layer])) for layer in sorted(p)]), axis=0)


def color_histogram(images: jax.Array) -> jax.Array:
    """Compute the joint histogram of R, G and B in 6x6x6 bins: float32 `[B, 216]`, each row sums to 1.

    Images are uint8, or float in [0, 1], `[B, S, S, 3]`.

    >>> color_histogram(jnp.zeros((1, 4, 4, 3)))[0, :2]
    Array([1., 0.], dtype=float32)
    """
    levels = jnp.round(255 * as_float(images)).astype(jnp.int32) * COLOR_BINS // 256
    digits = jnp.arange(COLOR_BINS, dtype=jnp.int32).reshape(1, 1, 1, 1, COLOR_BINS)
    flags = (levels[..., None] == digits).astype(jnp.float32)  # sums of zeros and ones: exact
    red, green, blue = (flags[:, :, :, channel] for channel in range(3))
    pairs = (red[..., :, None] * green[..., None, :]).reshape(*red.shape[:3], -1)
    counts = jnp.einsum("bhwp,bhwc->bpc", pairs, blue, precision=jax.lax.Precision.HIGHEST)
    return shares(counts.reshape(images.shape[0], -1))


def spread_of(features: jax.Array) -> jax.Array:
    """Standard deviation over positions, `[B, H, W, C]` to `[B, C]`."""
    away = features - jnp.mean(features, axis=(1, 2), keepdims=True)
    return jnp.sqrt(jnp.mean(jnp.square(away), axis=(1, 2)))


def shares(masses: jax.Array) -> jax.Array:
    """Normalize masses `[..., C]` to shares of their sum; all 0 if the sum is 0."""
    return masses / jnp.maximum(jnp.sum(masses, axis=-1, keepdims=True), SMALLEST)
