"""Structural similarity (Eq. 13): SSIM of Wang et al. 2004, and the options that all metrics share."""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.measure import host, images
from mim_jax.measure.each import each
from mim_jax.measure.histogram import check_bins


class Options(NamedTuple):
    """Keyword arguments of the functions that compute all five metrics; documented in `ssim` and `hbd`."""

    weights: tuple[float, float] = (0.5, 0.5)  # weights of SSIM and HBD in Eq. 15: >= 0, not both 0
    filter_size: int = 11
    filter_sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    window: str = "gaussian"
    bins: int = 256
    per_channel: bool = False


def ssim(
    x: host.Images,
    y: host.Images,
    *,
    mask: Any = None,
    max_val: float = 1.0,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    return_map: bool = False,
    window: str = "gaussian",
) -> jax.Array:
    """Structural similarity (Eq. 13), in [-1, 1], averaged over windows and channels.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing, 2004: a Gaussian window at all positions inside the
    image, population variances, channel by channel. Matches `dm_pix.ssim` to 1e-6, and scikit-image
    (`gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`) to 2e-5.

    >>> float(ssim(jnp.zeros((16, 16, 3)), jnp.zeros((16, 16, 3))))
    1.0

    Args:
      x: images `[..., H, W, C]`.
      y: images of the same shape.
      mask: weights in [0, 1], `[H, W]` or `[..., H, W]`, or booleans: 1 = counted, 0 = ignored, whatever the
        pixel's value. Means and variances are normalised by the mask's weight in each window, and windows
        are averaged with that weight. A mask of ones changes no bit of the result; one of zeros gives NaN.
      max_val: largest possible value of a float pixel, above 0; uint8 images are scaled to it.
      filter_size: side of the window in pixels, at most the side of the image.
      filter_sigma: standard deviation of the window in pixels.
      k1: stabilising constant of the luminance term, 0 or more; at 0, black windows give 0 / 0.
      k2: stabilising constant of the contrast and structure term, 0 or more; at 0, flat windows give 0 / 0.
      return_map: return the value of every window, `[..., H - filter_size + 1, W - filter_size + 1, C]`;
        entry (i, j) is the window whose first pixel is (i, j).
      window: "gaussian", or "global" for one uniform window over the whole image, Eq. 13 exactly as printed
        (its map is `[..., 1, 1, C]`).

    Returns:
      float32 `[...]`, or the map, with NaN for windows in which the mask is zero everywhere.

    Raises:
      ValueError: invalid shapes, dtypes or options; an image smaller than the window.
    """
    options = Options(filter_size=filter_size, filter_sigma=filter_sigma, k1=k1, k2=k2, window=window)
    options, max_val = checked(options, max_val=max_val), float(max_val)
    x, y = (host.checked_range(image, max_val=max_val) for image in (x, y))
    return _ssim(x, y, mask, options=options, max_val=max_val, return_map=bool(return_map))


@functools.partial(jax.jit, static_argnames=("options", "max_val", "return_map"))
def _ssim(
    x: jax.Array, y: jax.Array, mask: Any, *, options: Options, max_val: float, return_map: bool
) -> jax.Array:
    images.check_pair(x, y)
    check_window(x.shape, options)

    def plain(x: jax.Array, y: jax.Array) -> jax.Array:
        dissimilarity = dissimilarity_map(x, y, options=options, max_val=max_val)
        if return_map:
            return (1 - dissimilarity).reshape(len(dissimilarity), -1, x.shape[-1])
        return jnp.minimum(1 - jnp.mean(dissimilarity), 1.0)

    def weighted(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        terms, seen = _masked_terms(x, y, mask, options=options, max_val=max_val)
        dissimilarity = _joined(*terms)
        if return_map:
            return jnp.where(seen > 0, 1 - dissimilarity, jnp.nan).reshape(len(seen), -1, x.shape[-1])
        counted = jnp.where(seen > 0, dissimilarity, 0.0)
        return jnp.minimum(1 - jnp.sum(counted * seen) / jnp.sum(seen), 1.0)

    def either(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        whole = jnp.all(mask == 1)
        return jax.lax.cond(whole, lambda x, y, _: plain(x, y), weighted, x, y, mask)

    if mask is None:
        return each(plain, x.shape[:-3], x, y)
    return each(either, x.shape[:-3], x, y, images.checked_mask(mask, x.shape))


# Exponents of the five scales, finest first, from Wang, Simoncelli and Bovik 2003.
POWER_FACTORS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(
    x: host.Images,
    y: host.Images,
    *,
    max_val: float = 1.0,
    power_factors: Sequence[float] = POWER_FACTORS,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> jax.Array:
    """Multi-scale structural similarity, in [0, 1]: contrast and structure at five scales, then luminance.

    Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment", Asilomar
    Conference on Signals, Systems and Computers, 2003. Equal to `pytorch_msssim.ms_ssim` to 1e-5: scales are
    means of 2x2 pixels, odd sides are padded with zeros in front; terms below 0 count as 0, with gradient 0;
    channels are averaged last.

    >>> float(ms_ssim(jnp.zeros((176, 176, 1)), jnp.zeros((176, 176, 1))))
    1.0

    Args:
      x: images `[..., H, W, C]`, of at least 161 pixels a side with the defaults.
      y: images of the same shape.
      max_val: as in `ssim`, like filter_size, filter_sigma, k1 and k2.
      power_factors: exponent of each scale, finest first; one per scale.

    Returns:
      float32 `[...]`.

    Raises:
      ValueError: as in `ssim`; an image smaller than the window at the last scale.
    """
    options = Options(filter_size=filter_size, filter_sigma=filter_sigma, k1=k1, k2=k2)
    options, max_val = checked(options, max_val=max_val), float(max_val)
    factors = tuple(float(factor) for factor in power_factors)
    if not factors or not all(0 <= factor < math.inf for factor in factors):
        raise ValueError(f"power_factors must be numbers of 0 or more, one per scale, got {power_factors}")
    x, y = (host.checked_range(image, max_val=max_val) for image in (x, y))
    return _ms_ssim(x, y, options=options, max_val=max_val, factors=factors)


@functools.partial(jax.jit, static_argnames=("options", "max_val", "factors"))
def _ms_ssim(
    x: jax.Array, y: jax.Array, *, options: Options, max_val: float, factors: tuple[float, ...]
) -> jax.Array:
    images.check_pair(x, y)
    least = (options.filter_size - 1) * 2 ** (len(factors) - 1) + 1
    if min(x.shape[-3:-1]) < least:
        raise ValueError(
            f"{x.shape[-3]}x{x.shape[-2]} pixels are fewer than {len(factors)} scales of SSIM with "
            f"filter_size={options.filter_size} need ({least} a side): use larger images, or fewer "
            "power_factors"
        )

    def measure(x: jax.Array, y: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        result = jnp.ones(channels)
        for scale, factor in enumerate(factors, start=1):
            luminance, structure = _terms(_planes(x, y, options, max_val), options, max_val)
            last = scale == len(factors)
            dissimilarity = _joined(luminance, structure) if last else structure
            value = 1 - jnp.mean(dissimilarity.reshape(-1, channels), axis=0)
            # A power has no finite gradient at 0.
            result *= jnp.where(value > 0, jnp.where(value > 0, value, 1.0) ** factor, 0.0)
            x, y = (images.apart(halved, image) for image in (x, y))
        return jnp.mean(result)

    def halved(image: jax.Array) -> jax.Array:
        image = images.as_float(image, max_val)
        height, width, channels = image.shape
        image = jnp.pad(image, ((height % 2, 0), (width % 2, 0), (0, 0)))
        return jnp.mean(image.reshape(-(-height // 2), 2, -(-width // 2), 2, channels), axis=(1, 3))

    return each(measure, x.shape[:-3], x, y)


def checked(options: Options, *, max_val: float = 1.0) -> Options:
    """Convert the options to hashable Python values, as static arguments require; ValueError if invalid."""
    if options.window not in ("gaussian", "global"):
        raise ValueError(f"unknown window {options.window!r}: choose 'gaussian' or 'global'")
    try:
        size, sigma = operator.index(options.filter_size), float(options.filter_sigma)
        bins, (of_ssim, of_hbd) = operator.index(options.bins), map(float, options.weights)
        k1, k2, max_val = float(options.k1), float(options.k2), float(max_val)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{options} cannot be used ({error}): weights must be two numbers, filter_size and bins integers"
        ) from error
    if size < 1 or not sigma > 0:
        raise ValueError(f"filter_size={size} and filter_sigma={sigma} give no window: both must be positive")
    if not (0 <= k1 < math.inf and 0 <= k2 < math.inf and 0 < max_val < math.inf):
        raise ValueError(f"k1={k1} and k2={k2} must be 0 or more, max_val={max_val} above 0, all finite")
    if not (min(of_ssim, of_hbd) >= 0 and 0 < of_ssim + of_hbd < math.inf):
        raise ValueError(f"weights must be two numbers of 0 or more, not both 0, got {options.weights}")
    check_bins(bins)
    return Options((of_ssim, of_hbd), size, sigma, k1, k2, options.window, bins, bool(options.per_channel))


def check_window(shape: tuple[int, ...], options: Options) -> None:
    """Raise ValueError if images of this shape are smaller than the SSIM window."""
    size = options.filter_size
    if options.window == "gaussian" and min(shape[-3:-1]) < size:
        raise ValueError(
            f"{shape[-3]}x{shape[-2]} pixels are fewer than the SSIM window (filter_size={size}) needs: "
            "use larger images, a smaller filter_size, or window='global'"
        )


def dissimilarity_map(x: jax.Array, y: jax.Array, *, options: Options, max_val: float = 1.0) -> jax.Array:
    """`1 - SSIM` of every window: `[H, W, C]` twice -> `[H', W' C]`.

    SSIM = (2 m_x m_y + c1) (2 cov + c2) / ((m_x^2 + m_y^2 + c1) (v_x + v_y + c2)).
    With s = x + y and d = x - y,
      2 m_x m_y = (m_s^2 - m_d^2) / 2    m_x^2 + m_y^2 = (m_s^2 + m_d^2) / 2
      2 cov     = (v_s   - v_d)   / 2    v_x + v_y     = (v_s   + v_d)   / 2
    so that one minus the first factor is a = 2 m_d^2 / (m_s^2 + m_d^2 + 2 c1), one minus the second is
    b = 2 v_d / (v_s + v_d + 2 c2), and 1 - SSIM = a + b - a b. This blurs four planes instead of five,
    is exactly 0 where x equals y, and with variances clipped at 0 no covariance can exceed sqrt(v_x v_y).
    """
    return _joined(*_terms(_planes(x, y, options, max_val), options, max_val))


def _joined(luminance: jax.Array, structure: jax.Array) -> jax.Array:
    return luminance + structure - luminance * structure


def _planes(x: jax.Array, y: jax.Array, options: Options, max_val: float) -> jax.Array:
    """Window means of s, d, s^2 and d^2: `[4, H', W' C]`; a constant is subtracted from s."""
    planes = functools.partial(_sums_and_differences, max_val=max_val)
    return _window_mean(images.apart(planes, x, y), x.shape[-1], options)


def _masked_terms(
    x: jax.Array, y: jax.Array, mask: jax.Array, *, options: Options, max_val: float
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Both terms from means weighted by a mask `[H, W]`; and the mask's weight in each window."""

    def planes(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        x, y = (jnp.where(mask[..., None] > 0, images.as_float(a, max_val), 0.0) for a in (x, y))
        weights = jnp.broadcast_to(mask[..., None], x.shape).reshape(1, len(mask), -1)
        return jnp.concatenate([_sums_and_differences(x, y, max_val=max_val) * weights, weights])

    means = _window_mean(images.apart(planes, x, y, mask), x.shape[-1], options)
    seen = means[4]
    means = means[:4] / jnp.where(seen > 0, seen, 1.0)[None]
    return _terms(means, options, max_val), seen


def _sums_and_differences(x: jax.Array, y: jax.Array, *, max_val: float) -> jax.Array:
    # Rows keep their memory layout, [H, W C]: a step of one pixel is a step of C values. Subtracting a
    # constant changes no variance, and E[s^2] - E[s]^2 cancels least around mid-range.
    x, y = (images.as_float(a, max_val).reshape(len(a), -1) for a in (x, y))
    s, d = x + y - max_val, x - y
    return jnp.stack([s, d, s * s, d * d])


def _terms(means: jax.Array, options: Options, max_val: float) -> tuple[jax.Array, jax.Array]:
    """The terms a and b of `dissimilarity_map`: one minus luminance; one minus contrast and structure."""
    mean_s, mean_d, square_s, square_d = means
    variance_s = jnp.maximum(square_s - mean_s * mean_s, 0.0)
    variance_d = jnp.maximum(square_d - mean_d * mean_d, 0.0)
    sum_of_means, difference_of_means = jnp.square(mean_s + max_val), jnp.square(mean_d)
    c1, c2 = (options.k1 * max_val) ** 2, (options.k2 * max_val) ** 2
    luminance = 2 * difference_of_means / (sum_of_means + difference_of_means + 2 * c1)
    structure = 2 * variance_d / (variance_s + variance_d + 2 * c2)
    return luminance, structure


def _window_mean(planes: jax.Array, channels: int, options: Options) -> jax.Array:
    """Weighted mean of planes `[P, H, W C]` under every position of the window: `[P, H', W' C]`."""
    if options.window == "global":
        count, height, width = planes.shape
        return jnp.mean(planes.reshape(count, height, width // channels, channels), axis=(1, 2))[:, None]
    size = options.filter_size
    # Below a sigma of 1e-3 only the nearest pixels have any weight, and a much smaller one would overflow.
    exponents = -0.5 * ((np.arange(size) - (size - 1) / 2) / max(options.filter_sigma, 1e-3)) ** 2
    # Relative to the largest (below 0 for an even window): otherwise all taps could underflow and sum to 0.
    taps = np.exp(exponents - exponents.max())
    weights = [float(tap) for tap in taps / taps.sum()]

    def along(planes: jax.Array, axis: int, step: int) -> jax.Array:
        length = planes.shape[axis] - (size - 1) * step
        shifted = [jax.lax.slice_in_dim(planes, k * step, k * step + length, axis=axis) for k in range(size)]
        # The weights are symmetric: equal weights share a product.
        terms = [weights[k] * (shifted[k] + shifted[-1 - k]) for k in range(size // 2)]
        terms += [weights[size // 2] * shifted[size // 2]] if size % 2 else []
        return functools.reduce(jnp.add, terms)

    return along(images.apart(lambda p: along(p, 1, 1), planes), 2, channels)
