"""Structural similarity (Eq. 13): SSIM of Wang et al. 2004, and the options that all metrics share."""

import functools
import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.measure import images
from mim_jax.measure.each import each
from mim_jax.measure.histogram import check_bins


class Options(NamedTuple):
    """Keywords of the functions that compute all five metrics; explained at `ssim` and `hbd`."""

    weights: tuple[float, float] = (0.5, 0.5)  # of SSIM and HBD in Eq. 15: 0 or more, not both 0
    filter_size: int = 11
    filter_sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    window: str = "gaussian"
    bins: int = 256
    per_channel: bool = False


@functools.partial(
    jax.jit,
    static_argnames=("max_val", "filter_size", "filter_sigma", "k1", "k2", "return_map", "window"),
)
def ssim(
    x: jax.Array,
    y: jax.Array,
    *,
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
      max_val: the largest value a float pixel can have, above 0; uint8 images are scaled to it.
      filter_size: side of the window in pixels, at most the side of the image.
      filter_sigma: standard deviation of the window in pixels.
      k1: damping of the luminance term, 0 or more; without it the luminance of black is 0 / 0.
      k2: damping of the contrast and structure term, 0 or more; without it flat windows have 0 / 0.
      return_map: return every window's value, `[..., H - filter_size + 1, W - filter_size + 1, C]`; entry (i,
        j) is the window whose first pixel is (i, j).
      window: "gaussian", or "global" for one uniform window over the whole image, Eq. 13 exactly as printed
        (its map is `[..., 1, 1, C]`).

    Returns:
      float32 `[...]`, or the map.

    Raises:
      ValueError: unfit shapes, dtypes or options; an image smaller than the window.
    """
    x, y = images.as_float_pair(x, y, max_val=max_val)
    options = Options(filter_size=filter_size, filter_sigma=filter_sigma, k1=k1, k2=k2, window=window)
    options = checked(options, max_val=max_val)
    check_window(x.shape, options)
    measure = functools.partial(dissimilarity_map, options=options, max_val=max_val)
    if return_map:

        def values(x: jax.Array, y: jax.Array) -> jax.Array:
            windows = 1 - measure(x, y)
            return windows.reshape(len(windows), -1, x.shape[-1])

        return each(values, x.shape[:-3], x, y)
    return each(lambda a, b: jnp.minimum(1 - jnp.mean(measure(a, b)), 1.0), x.shape[:-3], x, y)


def checked(options: Options, *, max_val: float = 1.0) -> Options:
    """The options as hashable Python numbers, which static arguments must be; ValueError if one cannot be."""
    if options.window not in ("gaussian", "global"):
        raise ValueError(f"unknown window {options.window!r}: choose 'gaussian' or 'global'")
    try:
        size, sigma = operator.index(options.filter_size), float(options.filter_sigma)
        bins, (of_ssim, of_hbd) = operator.index(options.bins), map(float, options.weights)
        k1, k2, max_val = float(options.k1), float(options.k2), float(max_val)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{options} cannot be used ({error}): weights are two numbers, filter_size and bins whole ones"
        ) from error
    if size < 1 or not sigma > 0:
        raise ValueError(f"filter_size={size} and filter_sigma={sigma} make no window: both must be positive")
    if not (0 <= k1 < math.inf and 0 <= k2 < math.inf and 0 < max_val < math.inf):
        raise ValueError(f"k1={k1} and k2={k2} must be 0 or more, max_val={max_val} greater, all finite")
    if not (min(of_ssim, of_hbd) >= 0 and 0 < of_ssim + of_hbd < math.inf):
        raise ValueError(f"weights must be two numbers of 0 or more, not both 0, got {options.weights}")
    check_bins(bins)
    return Options((of_ssim, of_hbd), size, sigma, k1, k2, options.window, bins, bool(options.per_channel))


def check_window(shape: tuple[int, ...], options: Options) -> None:
    """Raise ValueError where images of that shape are smaller than the SSIM window."""
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
    b = 2 v_d / (v_s + v_d + 2 c2), and 1 - SSIM = a + b - a b. That is four blurred planes instead of five,
    exactly 0 where x equals y, and with variances held at or above 0 no covariance can exceed sqrt(v_x v_y).
    """
    height, width, channels = x.shape

    def planes(x: jax.Array, y: jax.Array) -> jax.Array:
        # Rows stay as they lie, [H, W C]: a step of one pixel is a step of C values. A constant taken off
        # changes no variance, and E[s^2] - E[s]^2 cancels least around mid-range.
        x, y = x.reshape(height, width * channels), y.reshape(height, width * channels)
        s, d = x + y - max_val, x - y
        return jnp.stack([s, d, s * s, d * d])

    mean_s, mean_d, square_s, square_d = _window_mean(images.apart(planes, x, y), channels, options)
    variance_s = jnp.maximum(square_s - mean_s * mean_s, 0.0)
    variance_d = jnp.maximum(square_d - mean_d * mean_d, 0.0)
    sum_of_means, difference_of_means = jnp.square(mean_s + max_val), jnp.square(mean_d)
    c1, c2 = (options.k1 * max_val) ** 2, (options.k2 * max_val) ** 2
    luminance = 2 * difference_of_means / (sum_of_means + difference_of_means + 2 * c1)
    structure = 2 * variance_d / (variance_s + variance_d + 2 * c2)
    return luminance + structure - luminance * structure


def _window_mean(planes: jax.Array, channels: int, options: Options) -> jax.Array:
    """Weighted mean of planes `[P, H, W C]` under every position of the window: `[P, H', W' C]`."""
    if options.window == "global":
        count, height, width = planes.shape
        return jnp.mean(planes.reshape(count, height, width // channels, channels), axis=(1, 2))[:, None]
    size = options.filter_size
    # A sigma below 1e-3 leaves nothing beyond the nearest pixels, and a much smaller one would overflow.
    exponents = -0.5 * ((np.arange(size) - (size - 1) / 2) / max(options.filter_sigma, 1e-3)) ** 2
    # From the largest, which for an even window is below 0: all could vanish, and their sum divides.
    taps = np.exp(exponents - exponents.max())
    weights = [float(tap) for tap in taps / taps.sum()]

    def along(planes: jax.Array, axis: int, step: int) -> jax.Array:
        length = planes.shape[axis] - (size - 1) * step
        shifted = [jax.lax.slice_in_dim(planes, k * step, k * step + length, axis=axis) for k in range(size)]
        # The weights are symmetric: equal ones share a product.
        terms = [weights[k] * (shifted[k] + shifted[-1 - k]) for k in range(size // 2)]
        terms += [weights[size // 2] * shifted[size // 2]] if size % 2 else []
        return functools.reduce(jnp.add, terms)

    return along(images.apart(lambda p: along(p, 1, 1), planes), 2, channels)
