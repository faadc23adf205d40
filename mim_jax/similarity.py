"""The five image similarities of the paper (Eq. 11-15): pure, composable JAX functions, and all five at once.

Images are `[..., H, W, C]` with C = 1 or 3: floats in [0, 1], or uint8, which is read as k / 255. Other
integers are refused; bfloat16, float16 and float64 become float32 first. The range of floats is not checked:
histograms count values outside [0, 1] at its nearer end. Each pair gives one float32, `[...]`, which never
depends on the other pairs of a batch. **High means similar: mpox-like.** Identical images give exactly 1, and
no metric exceeds 1.

All functions work under `jax.jit`, `jax.vmap` and `jax.grad`; options are static. Gradients are finite, on
flat images too; that of the (hard) histogram metric is zero, because it is piecewise constant in the pixels.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import histograms, pixels

METRICS = ("ssim_hbd", "ssim", "hbd", "mae", "mse")


class Similarities(NamedTuple):
    """All five metrics, each `[...]` float32, in the order of the paper's tables (and of `METRICS`)."""

    ssim_hbd: jax.Array
    ssim: jax.Array
    hbd: jax.Array
    mae: jax.Array
    mse: jax.Array


class Options(NamedTuple):
    """What the functions that measure all five take as keywords; explained at `ssim` and `hbd`."""

    weights: tuple[float, float] = (0.5, 0.5)  # of SSIM and HBD in Eq. 15
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
      max_val: the largest value a float pixel can have; uint8 images are scaled to it.
      filter_size: side of the window in pixels, at most the side of the image.
      filter_sigma: standard deviation of the window in pixels.
      k1: damping of the luminance term.
      k2: damping of the contrast and structure term.
      return_map: return every window's value, `[..., H - filter_size + 1, W - filter_size + 1, C]`; entry (i,
        j) is the window whose first pixel is (i, j).
      window: "gaussian", or "global" for one uniform window over the whole image, Eq. 13 exactly as printed
        (its map is `[..., 1, 1, C]`).

    Returns:
      float32 `[...]`, or the map.

    Raises:
      ValueError: unfit shapes or dtypes, an image smaller than the window, an unknown window.
    """
    x, y = pixels.as_float_pair(x, y, max_val=max_val)
    options = Options(filter_size=filter_size, filter_sigma=filter_sigma, k1=k1, k2=k2, window=window)
    _check_window(x.shape, options)
    measure = functools.partial(_dissimilarity_map, options=options, max_val=max_val)
    if return_map:

        def values(x: jax.Array, y: jax.Array) -> jax.Array:
            windows = 1 - measure(x, y)
            return windows.reshape(len(windows), -1, x.shape[-1])

        return _each(values, x.shape[:-3], x, y)
    return _each(lambda a, b: jnp.minimum(1 - jnp.mean(measure(a, b)), 1.0), x.shape[:-3], x, y)


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
      ValueError: unfit shapes, dtypes or bins.
    """
    x, y = pixels.as_float_pair(x, y)
    histograms.check_bins(bins)
    form = functools.partial(histograms.soft_histogram if soft else histograms.histogram, bins=bins)
    return _each(lambda a, b: histograms.bhattacharyya(form(a), form(b), per_channel), x.shape[:-3], x, y)


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
      ValueError: as `ssim` and `hbd`.
    """
    return _similarities(x, y, options=_options(options))


def composite_similarities(
    image: jax.Array,
    patch: jax.Array,
    offset: jax.Array | tuple[int, int],
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
      offset: (row, column) of the patch's first pixel: integers, or an int32 array `[2]` for all images or
        `[..., 2]`. Arrays may be traced; where they would reach outside the image they are moved inside, as
        `jax.lax.dynamic_slice` does.
      region: "image" measures whole images, as the paper does; "mask" only the patch against what it
        replaces.
      **options: fields of `Options`.

    Raises:
      ValueError: as `ssim` and `hbd`; a patch that does not fit; integers as offset that reach outside the
        image.
    """
    _check_composite(image.shape, patch.shape, offset, region)
    position = jnp.asarray(offset, jnp.int32)
    return _composite_similarities(image, patch, position, region=region, options=_options(options))


@functools.partial(jax.jit, static_argnames="options")
def _similarities(x: jax.Array, y: jax.Array, *, options: Options) -> Similarities:
    x, y = pixels.as_float_pair(x, y)
    histograms.check_bins(options.bins)
    _check_window(x.shape, options)

    def measure(x: jax.Array, y: jax.Array) -> Similarities:
        dissimilarity = jnp.mean(_dissimilarity_map(x, y, options=options))
        counts = histograms.histogram(x, bins=options.bins), histograms.histogram(y, bins=options.bins)
        return _joined(dissimilarity, counts, x - y, 1.0, options)

    return _each(measure, x.shape[:-3], x, y)


@functools.partial(jax.jit, static_argnames=("region", "options"))
def _composite_similarities(
    image: jax.Array, patch: jax.Array, offset: jax.Array, *, region: str, options: Options
) -> Similarities:
    image, patch = pixels.as_float(image), pixels.as_float(patch)
    histograms.check_bins(options.bins)
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
        leading = (0,) * (image.ndim - 3)

        def cut(corner: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.lax.dynamic_slice(image, (*leading, *corner, 0), (*image.shape[:-3], *shape))

        corner = jnp.clip(offset, 0, jnp.array([height - box_shape[0], width - box_shape[1]], jnp.int32))
        box = cut(corner, box_shape)
        if region == "mask":
            return box, box, patch
        # Held inside the image, so that a patch at the border has its windows too.
        start = jnp.clip(corner - margin, 0, jnp.array([height - near[0], width - near[1]], jnp.int32))
        before = cut(start, near)
        return box, before, jax.lax.dynamic_update_slice(before, patch, (*leading, *(corner - start), 0))

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
        return _each(measure, lead, image, patch, *around(image, patch, offset))
    return _each(lambda a, b, at: measure(a, b, *around(a, b, at)), lead, image, patch, offset)


def _options(options: dict[str, Any]) -> Options:
    chosen = Options(**options)
    # Static arguments are hashed; a configuration read from JSON holds a list.
    return chosen._replace(weights=(float(chosen.weights[0]), float(chosen.weights[1])))


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


def _each(measure: Callable[..., Any], lead: tuple[int, ...], *arrays: jax.Array) -> Any:
    """Applies `measure` to every image of the leading axes, in the form that the backend runs fast.

    On CPU one image after the other: its planes stay in the cache (about twice as fast as a batched form),
    memory is bounded, and the same instructions score an image in any batch. Accelerators take the whole
    batch at once.
    """
    if not lead:
        return measure(*arrays)
    flat = [array.reshape(math.prod(lead), *array.shape[len(lead) :]) for array in arrays]
    result = jax.lax.platform_dependent(
        *flat,
        cpu=lambda *batch: jax.lax.map(lambda items: measure(*items), batch),
        default=jax.vmap(measure),
    )
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), result)


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

    mean_s, mean_d, square_s, square_d = _window_mean(_apart(planes, x, y), channels, options)
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
    taps = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / options.filter_sigma) ** 2)
    weights = [float(tap) for tap in taps / taps.sum()]

    def along(planes: jax.Array, axis: int, step: int) -> jax.Array:
        length = planes.shape[axis] - (size - 1) * step
        shifted = [jax.lax.slice_in_dim(planes, k * step, k * step + length, axis=axis) for k in range(size)]
        # The weights are symmetric: equal ones share a product.
        terms = [weights[k] * (shifted[k] + shifted[-1 - k]) for k in range(size // 2)]
        terms += [weights[size // 2] * shifted[size // 2]] if size % 2 else []
        return functools.reduce(jnp.add, terms)

    return along(_apart(lambda p: along(p, 1, 1), planes), 2, channels)


def _apart(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`function(*arrays)`; on CPU compiled by itself, its result written to memory.

    XLA for CPU fuses what produces an array into what consumes it: a blur along rows would be computed anew
    for each of the eleven columns that need it, and a slice of the batch loop would keep loops from being
    vectorised. That makes SSIM three times slower. It drops `jax.lax.optimization_barrier` before it fuses,
    but not the border of a branch.
    """

    def guarded(*arrays: jax.Array) -> jax.Array:
        shape = jax.eval_shape(function, *arrays).shape
        first = arrays[0].reshape(-1)[0]
        never = first < -jnp.inf
        return jax.lax.cond(never, lambda *_: jnp.broadcast_to(first, shape), function, *arrays)

    return jax.lax.platform_dependent(*arrays, cpu=guarded, default=function)


def _check_window(shape: tuple[int, ...], options: Options) -> None:
    size, sigma = options.filter_size, options.filter_sigma
    if options.window not in ("gaussian", "global"):
        raise ValueError(f"unknown window {options.window!r}: choose 'gaussian' or 'global'")
    if size < 1 or not sigma > 0:
        raise ValueError(f"filter_size={size} and filter_sigma={sigma} make no window: both must be positive")
    if options.window == "gaussian" and min(shape[-3:-1]) < size:
        raise ValueError(
            f"{shape[-3]}x{shape[-2]} pixels are fewer than the SSIM window (filter_size={size}) needs: "
            "use larger images, a smaller filter_size, or window='global'"
        )


def _check_composite(
    image: tuple[int, ...], patch: tuple[int, ...], offset: jax.Array | tuple[int, int], region: str
) -> None:
    if region not in ("image", "mask"):
        raise ValueError(f"unknown region {region!r}: choose 'image' or 'mask'")
    pixels.check_layout(image)
    pixels.check_layout(patch)
    last = image[-3] - patch[-3], image[-2] - patch[-2]
    if image[:-3] != patch[:-3] or image[-1] != patch[-1] or min(last) < 0:
        raise ValueError(
            f"the patch {patch} does not fit the image {image}: only its height and width may differ, and be "
            "smaller"
        )
    shape = (2,) if isinstance(offset, tuple | list) else offset.shape
    if shape not in ((2,), (*image[:-3], 2)):
        raise ValueError(
            f"offset must be (row, column), or that for each image, got shape {shape} for {image}"
        )
    known = isinstance(offset, tuple | list) and all(isinstance(value, int) for value in offset)
    if known and not (0 <= offset[0] <= last[0] and 0 <= offset[1] <= last[1]):
        raise ValueError(
            f"the patch at {offset} reaches outside the image: offsets from (0, 0) to {last} are possible"
        )
