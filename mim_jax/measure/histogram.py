"""Colour histograms without atomic additions, and the Bhattacharyya similarity of two of them (Eq. 14).

Images `[H, W, C]`, uint8 or float32 in [0, 1], at most 2^24 pixels; values outside are clipped. Histograms
are float32 `[C, bins]`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.measure import bit_planes, images

# The floor of the Bhattacharyya coefficient; without it disjoint histograms would score -inf.
SMALLEST_COEFFICIENT = 1e-12
# float32 represents every integer up to here: one pixel more in a bin would be lost.
MOST_PIXELS = 2**24


def bhattacharyya(p: jax.Array, q: jax.Array, per_channel: bool) -> jax.Array:
    """Similarity `1 + ln BC` of two histograms `[C, bins]` of equal mass, not necessarily 1."""
    if not per_channel:
        p, q = p.reshape(1, -1), q.reshape(1, -1)
    return jnp.mean(1 + jnp.log(coefficient(p, q)))


def coefficient(p: jax.Array, q: jax.Array) -> jax.Array:
    """Bhattacharyya coefficient `BC = sum_i sqrt(p_i q_i)` of histograms `[..., bins]`, from 1e-12 to 1.

    Their masses must be equal, but need not be 1.

    >>> coefficient(jnp.array([1.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 1.0]))
    Array(0.5, dtype=float32)
    """
    product = p * q
    # The square root has no finite gradient at 0: a bin empty in one histogram adds 0, with gradient 0.
    roots = jnp.where(product > 0, jnp.sqrt(jnp.where(product > 0, product, 1.0)), product)
    # Divided by the mean of the two (equal) masses: if p equals q every step is exact, and BC is 1.
    shared = 2 * jnp.sum(roots, axis=-1) / (jnp.sum(p, axis=-1) + jnp.sum(q, axis=-1))
    return jnp.clip(shared, SMALLEST_COEFFICIENT, 1.0)


def histograms(pixels: Sequence[jax.Array], *, bins: int, mask: jax.Array | None = None) -> list[jax.Array]:
    """Exact counts of each image: float32 `[C, bins]`, with NaN in channels that hold NaN.

    All images have the same shape. With a mask `[H, W]` pixels are weighted by it.
    """
    check_countable(pixels[0].shape)
    pixels = [jax.lax.stop_gradient(image) for image in pixels]
    if mask is not None:
        return [_weighted(image, mask, bins=bins) for image in pixels]
    counted, multiplied = (functools.partial(form, bins=bins) for form in (_counted, _multiplied_images))
    return jax.lax.platform_dependent(*pixels, cpu=counted, default=multiplied)


def _weighted(image: jax.Array, mask: jax.Array, *, bins: int) -> jax.Array:
    levels, unknown = _levels(image, jnp.int32)
    mass = jnp.broadcast_to(mask[..., None], image.shape)
    mass = mass if unknown is None else jnp.where(unknown & (mass > 0), jnp.nan, mass)
    return _counts(levels * bins // 256, mass, bins=bins)


def soft_histogram(image: jax.Array, *, bins: int, mask: jax.Array | None = None) -> jax.Array:
    """Soft counts of an image `[H, W, C]`: float32 `[C, bins]`, piecewise linear in the pixels."""
    # Bin b holds the levels 256 b / bins to 256 (b + 1) / bins - 1; positions are counted in bins from the
    # centre of bin 0.
    if mask is not None:
        image = jnp.where(mask[..., None] > 0, image, 0.0)
    position = (255 * jnp.clip(image, 0.0, 1.0) + 0.5) * (bins / 256) - 0.5
    position = jnp.clip(position, 0.0, bins - 1.0)
    lower = jnp.floor(jax.lax.stop_gradient(position))
    upper_share = position - lower
    lower_share = 1 - upper_share
    if mask is not None:
        lower_share, upper_share = lower_share * mask[..., None], upper_share * mask[..., None]
    index = jnp.where(jnp.isnan(lower), 0, lower).astype(jnp.int32)
    lower_counts = _counts(index, lower_share, bins=bins)
    return lower_counts + _counts(jnp.minimum(index + 1, bins - 1), upper_share, bins=bins)


def _counts(index: jax.Array, mass: jax.Array, *, bins: int) -> jax.Array:
    """Sum `mass` `[H, W, C]` into the bins given by `index`, channel by channel: float32 `[C, bins]`."""
    check_countable(index.shape)
    added, multiplied = (functools.partial(form, bins=bins) for form in (_added_counts, _multiplied_counts))
    return jax.lax.platform_dependent(index, mass, cpu=added, default=multiplied)


def _levels(image: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array | None]:
    """Pixels as levels 0 to 255, NaN as 0; and a mask of the NaN pixels, None for uint8."""
    if image.dtype == jnp.uint8:
        return image.astype(dtype), None
    levels = jnp.round(255 * jnp.clip(image, 0.0, 1.0))
    unknown = jnp.isnan(levels)
    return jnp.where(unknown, 0, levels).astype(dtype), unknown


def _counted(*pixels: jax.Array, bins: int) -> list[jax.Array]:
    """Histograms for CPU."""

    def levels(image: jax.Array) -> jax.Array:
        if image.dtype == jnp.uint8:
            return image
        return images.apart(lambda a: _levels(a, jnp.uint8)[0], image)

    def finished(image: jax.Array, counts: jax.Array) -> jax.Array:
        if bins != 256:
            bin_of = np.arange(256) * bins // 256
            counts = jnp.zeros((len(counts), bins), jnp.int32).at[:, bin_of].add(counts)
        counts = counts.astype(jnp.float32)
        if image.dtype == jnp.uint8:
            return counts
        unknown = jnp.any(jnp.isnan(image), axis=(0, 1))
        return counts.at[:, 0].add(jnp.where(unknown, jnp.nan, 0))

    counts = bit_planes.counts([levels(image) for image in pixels])
    return [finished(image, found) for image, found in zip(pixels, counts, strict=True)]


def _multiplied_images(*pixels: jax.Array, bins: int) -> list[jax.Array]:
    """Histograms for accelerators."""

    def multiplied(image: jax.Array) -> jax.Array:
        levels, unknown = _levels(image, jnp.int32)
        # One and zero are exact in bfloat16; the sums are float32, exact up to MOST_PIXELS.
        mass = jnp.ones(image.shape) if unknown is None else jnp.where(unknown, jnp.nan, 1)
        return _multiplied_counts(levels * bins // 256, mass.astype(jnp.bfloat16), bins=bins)

    return [multiplied(image) for image in pixels]


def check_countable(shape: tuple[int, ...]) -> None:
    """Raise ValueError if an image `[H, W, ...]` has more pixels than float32 can count."""
    height, width = shape[:2]
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"{height}x{width} pixels are more than a histogram can count ({MOST_PIXELS}): use smaller images"
        )


def _added_counts(index: jax.Array, mass: jax.Array, *, bins: int) -> jax.Array:
    """Counts added pixel by pixel: on CPU a plain loop, ten times as fast as the matrix products below."""
    channels = index.shape[-1]
    positions = index + bins * jnp.arange(channels, dtype=jnp.int32).reshape(1, 1, channels)
    masses = mass.reshape(-1).astype(jnp.float32)
    counts = jnp.zeros(channels * bins, jnp.float32)
    return counts.at[positions.reshape(-1)].add(masses, mode="promise_in_bounds").reshape(channels, bins)


def _multiplied_counts(index: jax.Array, mass: jax.Array, *, bins: int) -> jax.Array:
    """Counts by one matrix product per channel, of the one-hot high and low halves of each index.

    For accelerators, where additions to the same bin are serialised.
    """
    planes = jnp.moveaxis(index, -1, 0).reshape(index.shape[-1], 1, -1)
    masses = jnp.moveaxis(mass, -1, 0).reshape(planes.shape)
    digits = jnp.arange(16, dtype=jnp.int32).reshape(1, 16, 1)
    high, low = (planes // 16 == digits).astype(mass.dtype), (planes % 16 == digits).astype(mass.dtype)
    precision = jax.lax.Precision.HIGHEST
    counts = jnp.einsum(
        "chn,cln->chl", high * masses, low, precision=precision, preferred_element_type=jnp.float32
    )
    return counts.reshape(index.shape[-1], 256)[:, :bins]


def check_bins(bins: int) -> None:
    """Raise ValueError unless there are 1 to 256 bins."""
    if not 1 <= bins <= 256:
        raise ValueError(f"bins must be 1 to 256 (the levels of a byte), got {bins}")
