"""The five image similarities of the paper (Eq. 11-15): pure, composable JAX functions, and all five at once.

Images are `[..., H, W, C]` with C = 1 or 3: floats in [0, 1], or uint8, which is read as k / 255. Other
integers are refused; bfloat16, float16 and float64 become float32 first. The range of floats is not checked:
histograms count values outside [0, 1] at its nearer end. Each pair gives one float32, `[...]`, which never
depends on the other pairs of a batch. **High means similar: mpox-like.** Identical images give exactly 1, and
no metric exceeds 1.

All functions work under `jax.jit`, `jax.vmap` and `jax.grad`; options are static. Give batches as leading
axes: on CPU `jax.vmap` over single images is 4 to 6 times slower (32 pairs of 224x224x3), because it turns
branches, which keep XLA from fusing the wrong loops, into selections. Histograms count images of up to 2^24
pixels. Gradients are finite, on flat images too; that of the (hard) histogram metric is zero, because it is
piecewise constant in the pixels.
"""

import functools
import math
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import histograms, pixels
from mim_jax.measure import METRICS as METRICS


class Similarities(NamedTuple):
    """All five metrics, each `[...]` float32, in the order of the paper's tables (and of `METRICS`)."""

    ssim_hbd: jax.Array
    ssim: jax.Array
    hbd: jax.Array
    mae: jax.Array
    mse: jax.Array


class Options(NamedTuple):
    """What the functions that measure all five take as keywords; explained at `ssim` and `hbd`."""

    weights: tuple[float, float] = (0.5, 0.5)  # of SSIM and HBD in Eq. 15: 0 or more, not both 0
    filter_size: int = 11
    filter_sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    window: str = "gaussian"
    bins: int = 256
    per_channel: bool = False


@jax.jit
def mae(x: jax.Array, y: jax.Array) -> jax.Array:
    """Eq. 11: `1 - mean |x - y|`, in [0, 1]. `[..., H, W, C]` twice -> `[...]` float32."""
    x, y = pixels.as_float_pair(x, y)
    return 1 - jnp.mean(jnp.abs(x - y), axis=(-3, -2, -1))


@jax.jit
def mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """Eq. 12: `1 - mean (x - y)^2`, in [0, 1]. `[..., H, W, C]` twice -> `[...]` float32."""
    x, y = pixels.as_float_pair(x, y)
    return 1 - jnp.mean(jnp.square(x - y), axis=(-3, -2, -1))


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
    x, y = pixels.as_float_pair(x, y, max_val=max_val)
    options = Options(filter_size=filter_size, filter_sigma=filter_sigma, k1=k1, k2=k2, window=window)
    options = _checked(options, max_val=max_val)
    _check_window(x.shape, options)
    measure = functools.partial(_dissimilarity_map, options=options, max_val=max_val)
    if return_map:

        def values(x: jax.Array, y: jax.Array) -> jax.Array:
            windows = 1 - measure(x, y)
            return windows.reshape(len(windows), -1, x.shape[-1])

        return pixels.each(values, x.shape[:-3], x, y)
    return pixels.each(lambda a, b: jnp.minimum(1 - jnp.mean(measure(a, b)), 1.0), x.shape[:-3], x, y)


@functools.partial(jax.jit, static_argnames=("bins", "per_channel", "soft"))
def hbd(
    x: jax.Array, y: jax.Array, *, bins: int = 256, per_channel: bool = False, soft: bool = False
) -> jax.Array:
    """Similarity of colour histograms (Eq. 14): `1 + ln BC`, with `BC = sum_i sqrt(p_i q_i)`.

    BC is the Bhattacharyya coefficient; with d = `cv2.compareHist(p, q, cv2.HISTCMP_BHATTACHARYYA)` this is
    `1 + ln(1 - d^2)`. At most 1; BC is held at or above 1e-12 (which makes -26.6), reached only where no
    colour is shared. Pixels are rounded to the 256 levels of a byte, `round(255 x)`: an image has the same
    histogram as float and as uint8. The result is therefore piecewise constant in the pixels, with gradient
    zero; `soft=True` has a gradient.

    Args:
      x: images `[..., H, W, C]`.
      y: images of the same shape.
      bins: bins a channel, 1 to 256; level k is counted in bin `floor(k * bins / 256)`.
      per_channel: False joins the channels' histograms into one of sum 1, which keeps Eq. 14 a single sum;
        True averages `1 + ln BC` over the channels.
      soft: divide each pixel between the two bins whose centres it lies between, in proportion to nearness,
        without rounding. With 256 bins and pixels on the levels of a byte this is the hard histogram, to
        rounding.

    Returns:
      float32 `[...]`; NaN where an image holds NaN.

    Raises:
      ValueError: unfit shapes, dtypes or bins; more than 2^24 pixels, which float32 cannot count.
    """
    x, y = pixels.as_float_pair(x, y)
    bins = _checked(Options(bins=bins)).bins
    form = functools.partial(histograms.soft_histogram if soft else histograms.histogram, bins=bins)
    return pixels.each(
        lambda a, b: histograms.bhattacharyya(form(a), form(b), per_channel), x.shape[:-3], x, y
    )


def ssim_hbd(x: jax.Array, y: jax.Array, **options: Any) -> jax.Array:
    """The joint metric (Eq. 15), `weights[0] * ssim + weights[1] * hbd`; arguments as `similarities`."""
    return similarities(x, y, **options).ssim_hbd


def similarities(x: jax.Array, y: jax.Array, **options: Any) -> Similarities:
    """All five metrics of image pairs `[..., H, W, C]`, each `[...]` float32.

    Args:
      x: images `[..., H, W, C]`.
      y: images of the same shape.
      **options: fields of `Options`.

    Raises:
      ValueError: as `ssim` and `hbd`; weights that are negative, not finite, or both 0.
    """
    return _similarities(x, y, options=_checked(Options(**options)))


def composite_similarities(
    image: jax.Array,
    patch: jax.Array,
    offset: pixels.Offset,
    *,
    region: str = "image",
    **options: Any,
) -> Similarities:
    """All five metrics between an image and itself with `patch` pasted at `offset`.

    Computes only what can differ, exactly: windows that do not touch the patch have SSIM 1, pixels outside it
    have error 0, and the histogram of the pasted image is the image's, less the hidden pixels, plus the
    patch's. Equal to `similarities(image, pasted)` to 1e-6; not to the last bit, because the same terms are
    added in another order.

    Args:
      image: `[..., H, W, C]`.
      patch: `[..., M, N, C]` with the same leading axes; M <= H and N <= W.
      offset: (row, column) of the patch's first pixel: integers, or an integer array `[2]` for all images or
        `[..., 2]`. A traced offset that would reach outside the image is moved inside, as
        `jax.lax.dynamic_slice` does. Slices at a place of its own in each image are a gather on accelerators:
        one offset for all is faster.
      region: "image" measures whole images, as the paper does; "mask" only the patch against what it
        replaces.
      **options: fields of `Options`.

    Raises:
      ValueError: as `ssim` and `hbd`; a patch that does not fit; an offset that is known, not traced, and
        reaches outside the image.
    """
    if region not in ("image", "mask"):
        raise ValueError(f"unknown region {region!r}: choose 'image' or 'mask'")
    position = pixels.place(image, patch, offset)
    return _composite_similarities(
        image, patch, position, region=region, options=_checked(Options(**options))
    )


@functools.partial(jax.jit, static_argnames="options")
def _similarities(x: jax.Array, y: jax.Array, *, options: Options) -> Similarities:
    x, y = pixels.as_float_pair(x, y)
    _check_window(x.shape, options)

    def measure(x: jax.Array, y: jax.Array) -> Similarities:
        dissimilarity = jnp.mean(_dissimilarity_map(x, y, options=options))
        counts = histograms.histogram(x, bins=options.bins), histograms.histogram(y, bins=options.bins)
        return _joined(dissimilarity, counts, x - y, 1.0, options)

    return pixels.each(measure, x.shape[:-3], x, y)


@functools.partial(jax.jit, static_argnames=("region", "options"))
def _composite_similarities(
    image: jax.Array, patch: jax.Array, offset: jax.Array, *, region: str, options: Options
) -> Similarities:
    image, patch = pixels.as_float(image), pixels.as_float(patch)
    _check_window((image if region == "image" else patch).shape, options)
    (height, width, channels), box_shape = image.shape[-3:], patch.shape[-3:]
    if options.window == "global":
        margin, windows = max(height, width), channels
    else:
        margin = options.filter_size - 1
        windows = (height - margin) * (width - margin) * channels
    # A window that touches the patch starts at most `margin` before it and ends at most that far behind.
    near = (min(height, box_shape[0] + 2 * margin), min(width, box_shape[1] + 2 * margin), channels)

    def around(image: jax.Array, patch: jax.Array, offset: jax.Array) -> tuple[jax.Array, ...]:
        """The pixels under the patch; and all that those windows see, before and after it is pasted."""
        zero = jnp.zeros((), offset.dtype)  # one dtype for all indices, under jax_enable_x64 too
        leading = (zero,) * (image.ndim - 3)

        def cut(corner: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.lax.dynamic_slice(image, (*leading, *corner, zero), (*image.shape[:-3], *shape))

        corner = jnp.clip(offset, 0, jnp.array([height - box_shape[0], width - box_shape[1]], jnp.int32))
        box = cut(corner, box_shape)
        if region == "mask":
            return box, box, patch
        # Held inside the image, so that a patch at the border has its windows too.
        start = jnp.clip(corner - margin, 0, jnp.array([height - near[0], width - near[1]], jnp.int32))
        before = cut(start, near)
        return box, before, jax.lax.dynamic_update_slice(before, patch, (*leading, *(corner - start), zero))

    def measure(
        image: jax.Array, patch: jax.Array, box: jax.Array, before: jax.Array, after: jax.Array
    ) -> Similarities:
        dissimilarity = _dissimilarity_map(before, after, options=options)
        hidden, filled = (
            histograms.histogram(box, bins=options.bins),
            histograms.histogram(patch, bins=options.bins),
        )
        if region == "mask":
            return _joined(jnp.mean(dissimilarity), (hidden, filled), box - patch, 1.0, options)
        counts = histograms.histogram(image, bins=options.bins)
        return _joined(
            jnp.sum(dissimilarity) / windows,
            (counts, counts - hidden + filled),
            box - patch,
            math.prod(box_shape) / math.prod(image.shape),
            options,
        )

    lead = image.shape[:-3]
    if offset.ndim == 1:
        # Cut from the whole batch at once: one slice at one place, where slices at many places are a gather.
        return pixels.each(measure, lead, image, patch, *around(image, patch, offset))
    return pixels.each(lambda a, b, at: measure(a, b, *around(a, b, at)), lead, image, patch, offset)


def _checked(options: Options, *, max_val: float = 1.0) -> Options:
    """The options as hashable Python numbers; static arguments are hashed, and JSON holds lists.

    Raises:
      ValueError: one of them cannot be.
    """
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
    histograms.check_bins(bins)
    return Options((of_ssim, of_hbd), size, sigma, k1, k2, options.window, bins, bool(options.per_channel))


def _check_window(shape: tuple[int, ...], options: Options) -> None:
    size = options.filter_size
    if options.window == "gaussian" and min(shape[-3:-1]) < size:
        raise ValueError(
            f"{shape[-3]}x{shape[-2]} pixels are fewer than the SSIM window (filter_size={size}) needs: "
            "use larger images, a smaller filter_size, or window='global'"
        )


def _joined(
    dissimilarity: jax.Array,
    counts: tuple[jax.Array, jax.Array],
    difference: jax.Array,
    share: float,
    options: Options,
) -> Similarities:
    """The metrics of one image from its parts; `difference` covers `share` of the pixels, the rest is 0."""
    structure = jnp.minimum(1 - dissimilarity, 1.0)
    colour = histograms.bhattacharyya(*counts, options.per_channel)
    return Similarities(
        ssim_hbd=options.weights[0] * structure + options.weights[1] * colour,
        ssim=structure,
        hbd=colour,
        mae=1 - share * jnp.mean(jnp.abs(difference)),
        mse=1 - share * jnp.mean(jnp.square(difference)),
    )


def _dissimilarity_map(x: jax.Array, y: jax.Array, *, options: Options, max_val: float = 1.0) -> jax.Array:
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

    mean_s, mean_d, square_s, square_d = _window_mean(pixels.apart(planes, x, y), channels, options)
    variance_s = jnp.maximum(square_s - mean_s * mean_s, 0.0)
    variance_d = jnp.maximum(square_d - mean_d * mean_d, 0.0)
    sum_of_means, difference_of_means = jnp.square(mean_s + max_val), jnp.square(mean_d)
    c1, c2 = (options.k1 * max_val) ** 2, (options.k2 * max_val) ** 2
    luminance = 2 * difference_of_means / (sum_of_means + difference_of_means + 2 * c1)
    structure = 2 * variance_d / (variance_s + variance_d + 2 * c2)
    return luminance + structure - luminance * structure


def _window_mean(planes: jax.Array, channels: int, options: Options) -> jax.Array:
    """The weighted mean of planes `[P, H, W C]` under every position of the window: `[P, H', W' C]`."""
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

    return along(pixels.apart(lambda p: along(p, 1, 1), planes), 2, channels)
