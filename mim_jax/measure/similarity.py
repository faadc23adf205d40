"""The five image similarities of the paper (Eq. 11-15): pure, composable JAX functions, and all five at once.

Images are `[..., H, W, C]` with C = 1 or 3: floats in [0, 1], or uint8, which is read as k / 255. Other
integers are refused; bfloat16, float16 and float64 become float32 first. The range of floats is checked on
the host only, not in a `jax.Array`; histograms clip to [0, 1]. Each pair gives one float32, `[...]`, which
never depends on the other pairs of a batch. **High means similar: mpox-like.** Identical images give exactly
1, and no metric exceeds 1.

All functions work under `jax.jit`, `jax.vmap`, `jax.grad`, `jax.jvp`, `jax.lax.scan` and `jax.shard_map`, at
any nesting; options are static. `jax.vmap` over single images equals a batch given as leading axes, in speed
and, on CPU, to the last bit: see `mim_jax.measure.each`. Histograms count images of up to 2^24 pixels.
Gradients are finite, on flat images too; the gradient of the (hard) histogram metric is zero, because the
metric is piecewise constant in the pixels.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mim_jax.measure import METRICS, histogram, host, images
from mim_jax.measure.each import each
from mim_jax.measure.ssim import Options, check_window, checked, dissimilarity_map


class Similarities(NamedTuple):
    """All five metrics, each `[...]` float32, in the order of the paper's tables (and of `METRICS`)."""

    ssim_hbd: jax.Array
    ssim: jax.Array
    hbd: jax.Array
    mae: jax.Array
    mse: jax.Array


def mae(x: host.Images, y: host.Images, *, mask: Any = None) -> jax.Array:
    """Mean absolute error as a similarity (Eq. 11): `1 - mean abs(x - y)` of `[..., H, W, C]`, in [0, 1].

    `mask` as in `mim_jax.measure.ssim.ssim`: the mean is weighted by it; a mask of zeros gives NaN.

    >>> mae(jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 8, 8, 3)))
    Array([1., 1.], dtype=float32)
    """
    return _closeness(host.checked_range(x), host.checked_range(y), mask, jnp.abs)


def mse(x: host.Images, y: host.Images, *, mask: Any = None) -> jax.Array:
    """Mean squared error as a similarity (Eq. 12): `1 - mean (x - y)^2` of `[..., H, W, C]`, in [0, 1].

    `mask` as in `mae`.

    >>> mse(jnp.zeros((8, 8, 3)), jnp.full((8, 8, 3), 0.5))
    Array(0.75, dtype=float32)
    """
    return _closeness(host.checked_range(x), host.checked_range(y), mask, jnp.square)


def psnr(x: host.Images, y: host.Images, *, max_val: float = 1.0, mask: Any = None) -> jax.Array:
    """Peak signal-to-noise ratio in decibels, `10 log10(max_val^2 / mean (x - y)^2)`, of `[..., H, W, C]`.

    Infinite, with gradient 0, if the images are equal. `mask` as in `mae`, `max_val` as in `ssim`.

    >>> float(psnr(jnp.zeros((8, 8, 3)), jnp.full((8, 8, 3), 0.1))).__round__(4)
    20.0
    """
    max_val = float(max_val)
    if not 0 < max_val < math.inf:
        raise ValueError(f"max_val must be finite and above 0, got {max_val}")
    x, y = (host.checked_range(image, max_val=max_val) for image in (x, y))
    error = _mean_error(x, y, mask, jnp.square, max_val=max_val) / max_val**2
    return jnp.where(error == 0, jnp.inf, -10 * jnp.log10(jnp.where(error == 0, 1.0, error)))


@functools.partial(jax.jit, static_argnums=3)
def _closeness(x: jax.Array, y: jax.Array, mask: Any, size: Callable[[jax.Array], jax.Array]) -> jax.Array:
    # One program, because 1 - mean rounds once if it is compiled as a whole, and twice if it is not.
    return 1 - _mean_error(x, y, mask, size)


@functools.partial(jax.jit, static_argnums=3, static_argnames="max_val")
def _mean_error(
    x: jax.Array, y: jax.Array, mask: Any, size: Callable[[jax.Array], jax.Array], *, max_val: float = 1.0
) -> jax.Array:
    images.check_pair(x, y)
    x, y = images.as_float(x, max_val), images.as_float(y, max_val)
    whole = jnp.mean(size(x - y), axis=(-3, -2, -1))
    if mask is None:
        return whole
    mask = images.checked_mask(mask, x.shape)
    counted = size(jnp.where(mask[..., None] > 0, x - y, 0.0)) * mask[..., None]
    weighted = jnp.sum(counted, axis=(-3, -2, -1)) / (x.shape[-1] * jnp.sum(mask, axis=(-2, -1)))
    return jnp.where(jnp.all(mask == 1, axis=(-2, -1)), whole, weighted)


def hbd(
    x: host.Images,
    y: host.Images,
    *,
    bins: int = 256,
    per_channel: bool = False,
    soft: bool = False,
    mask: Any = None,
) -> jax.Array:
    """Similarity of colour histograms (Eq. 14): `1 + ln BC`, with `BC = sum_i sqrt(p_i q_i)`.

    BC is the Bhattacharyya coefficient; with d = `cv2.compareHist(p, q, cv2.HISTCMP_BHATTACHARYYA)` this is
    `1 + ln(1 - d^2)`. At most 1; BC is clipped at 1e-12 from below (which gives -26.6), reached only if no
    colour is shared. Pixels are rounded to the 256 levels of a byte, `round(255 x)`: an image has the same
    histogram as float and as uint8. The result is therefore piecewise constant in the pixels, with gradient
    zero; `soft=True` has a gradient.

    >>> float(hbd(jnp.zeros((8, 8, 3)), jnp.zeros((8, 8, 3), jnp.uint8)))
    1.0

    Args:
      x: images `[..., H, W, C]`.
      y: images of the same shape.
      bins: number of bins per channel, 1 to 256; level k is counted in bin `floor(k * bins / 256)`.
      per_channel: False joins the channels' histograms into one of sum 1, which keeps Eq. 14 a single sum;
        True averages `1 + ln BC` over the channels.
      soft: divide each pixel between the two bins with the nearest centres, in proportion to nearness,
        without rounding. With 256 bins and pixels on the levels of a byte this equals the hard histogram, up
        to rounding errors.
      mask: as in `mim_jax.measure.ssim.ssim`: each pixel is counted with its weight.

    Returns:
      float32 `[...]`; NaN if an image holds NaN or the mask is zero everywhere.

    Raises:
      ValueError: invalid shapes, dtypes or bins; more than 2^24 pixels, which float32 cannot count.
    """
    bins = checked(Options(bins=bins)).bins
    x, y = host.checked_range(x), host.checked_range(y)
    return _hbd(x, y, mask, bins=bins, per_channel=bool(per_channel), soft=bool(soft))


@functools.partial(jax.jit, static_argnames=("bins", "per_channel", "soft"))
def _hbd(x: jax.Array, y: jax.Array, mask: Any, *, bins: int, per_channel: bool, soft: bool) -> jax.Array:
    images.check_pair(x, y)

    def measure(x: jax.Array, y: jax.Array, *mask: jax.Array) -> jax.Array:
        weights = mask[0] if mask else None
        if soft:
            pair = [histogram.soft_histogram(images.as_float(a), bins=bins, mask=weights) for a in (x, y)]
        else:
            pair = histogram.histograms((x, y), bins=bins, mask=weights)
        return histogram.bhattacharyya(pair[0], pair[1], per_channel)

    masks = () if mask is None else (images.checked_mask(mask, x.shape),)
    return each(measure, x.shape[:-3], x, y, *masks)


def ssim_hbd(x: host.Images, y: host.Images, **options: Any) -> jax.Array:
    """The joint metric (Eq. 15), `weights[0] * ssim + weights[1] * hbd`; arguments as in `similarities`.

    >>> ssim_hbd(jnp.zeros((16, 16, 3)), jnp.zeros((16, 16, 3)))
    Array(1., dtype=float32)
    """
    return similarities(x, y, **options).ssim_hbd


def similarities(x: host.Images, y: host.Images, **options: Any) -> Similarities:
    """All five metrics of image pairs `[..., H, W, C]`, each `[...]` float32.

    >>> float(similarities(jnp.zeros((16, 16, 3)), jnp.full((16, 16, 3), 0.5)).mae)
    0.5

    Args:
      x: images `[..., H, W, C]`.
      y: images of the same shape.
      **options: fields of `Options`.

    Raises:
      ValueError: as in `ssim` and `hbd`; weights that are negative, not finite, or both 0.
    """
    x, y = host.checked_range(x), host.checked_range(y)
    return _similarities(x, y, options=checked(Options(**options)))


def composite_similarities(
    image: host.Images,
    patch: host.Images,
    offset: images.Offset,
    *,
    region: str = "image",
    **options: Any,
) -> Similarities:
    """All five metrics between an image and itself with `patch` pasted at `offset`.

    Computes only the parts that can differ, without approximation: windows that do not touch the patch have
    SSIM 1, pixels outside it have error 0, and the histogram of the pasted image is that of the image minus
    the hidden pixels plus the patch. Equal to `similarities(image, pasted)` to 1e-6, not to the last bit,
    because the same terms are added in another order.

    >>> image, patch = jnp.zeros((32, 32, 3)), jnp.zeros((16, 16, 3))
    >>> float(composite_similarities(image, patch, (8, 8)).ssim_hbd)
    1.0

    Args:
      image: images `[..., H, W, C]`.
      patch: patches `[..., M, N, C]` with the same leading axes; M <= H and N <= W.
      offset: (row, column) of the patch's first pixel: integers, or an integer array `[2]` for all images or
        `[..., 2]`. A traced offset that would reach outside the image is moved inside, as
        `jax.lax.dynamic_slice` does. One offset for all avoids a gather on accelerators.
      region: "image" compares whole images, as the paper does; "mask" only the patch and the pixels under it.
      **options: fields of `Options`.

    Raises:
      ValueError: as in `ssim` and `hbd`; a patch that does not fit; a known (not traced) offset that reaches
        outside the image.
    """
    if region not in REGIONS:
        raise ValueError(f"unknown region {region!r}: choose one of {', '.join(REGIONS)}")
    image, patch = host.checked_range(image), host.checked_range(patch)
    position = images.checked_offset(image, patch, offset)
    return _composite_similarities(image, patch, position, region=region, options=checked(Options(**options)))


@functools.partial(jax.jit, static_argnames="options")
def _similarities(x: jax.Array, y: jax.Array, *, options: Options) -> Similarities:
    images.check_pair(x, y)
    check_window(x.shape, options)

    def measure(x: jax.Array, y: jax.Array) -> Similarities:
        dissimilarity = jnp.mean(dissimilarity_map(x, y, options=options))
        counts = histogram.histograms((x, y), bins=options.bins)
        return _joined(dissimilarity, counts, images.as_float(x) - images.as_float(y), 1.0, options)

    return each(measure, x.shape[:-3], x, y)


@functools.partial(jax.jit, static_argnames=("region", "options"))
def _composite_similarities(
    image: jax.Array, patch: jax.Array, offset: jax.Array, *, region: str, options: Options
) -> Similarities:
    patch = images.as_float(patch)
    if image.dtype != jnp.uint8:
        image = images.as_float(image)
    check_window((image if region == "image" else patch).shape, options)
    (height, width, channels), box_shape = image.shape[-3:], patch.shape[-3:]
    if options.window == "global":
        margin, windows = max(height, width), channels
    else:
        margin = options.filter_size - 1
        windows = (height - margin) * (width - margin) * channels
    # A window that touches the patch starts at most `margin` before it and ends at most `margin` after it.
    near = (min(height, box_shape[0] + 2 * margin), min(width, box_shape[1] + 2 * margin), channels)

    def around(image: jax.Array, patch: jax.Array, offset: jax.Array) -> tuple[jax.Array, ...]:
        """The pixels under the patch, and the area of those windows before and after pasting."""
        zero = jnp.zeros((), offset.dtype)  # one dtype for all indices, under jax_enable_x64 too
        leading = (zero,) * (image.ndim - 3)

        def cut(corner: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.lax.dynamic_slice(image, (*leading, *corner, zero), (*image.shape[:-3], *shape))

        corner = jnp.clip(offset, 0, jnp.array([height - box_shape[0], width - box_shape[1]], jnp.int32))
        box = cut(corner, box_shape)
        if region == "mask":
            return box, images.as_float(box), patch
        # Clipped to the image, so that a patch at the border has its windows too.
        start = jnp.clip(corner - margin, 0, jnp.array([height - near[0], width - near[1]], jnp.int32))
        before = images.as_float(cut(start, near))
        return box, before, jax.lax.dynamic_update_slice(before, patch, (*leading, *(corner - start), zero))

    def measure(
        image: jax.Array, patch: jax.Array, box: jax.Array, before: jax.Array, after: jax.Array
    ) -> Similarities:
        dissimilarity = dissimilarity_map(before, after, options=options)
        hidden, filled = histogram.histograms((box, patch), bins=options.bins)
        difference = images.as_float(box) - patch
        if region == "mask":
            return _joined(jnp.mean(dissimilarity), (hidden, filled), difference, 1.0, options)
        (counts,) = histogram.histograms((image,), bins=options.bins)
        return _joined(
            jnp.sum(dissimilarity) / windows,
            (counts, counts - hidden + filled),
            difference,
            math.prod(box_shape) / math.prod(image.shape),
            options,
        )

    lead = image.shape[:-3]
    if offset.ndim == 1:
        # Cut from the whole batch at once: a slice at one place, while slices at many places are a gather.
        return each(measure, lead, image, patch, *around(image, patch, offset))
    return each(lambda a, b, at: measure(a, b, *around(a, b, at)), lead, image, patch, offset)


def _joined(
    dissimilarity: jax.Array,
    counts: Sequence[jax.Array],
    difference: jax.Array,
    share: float,
    options: Options,
) -> Similarities:
    """Metrics of one image from their parts; `difference` covers `share` of the pixels and is 0 elsewhere."""
    structure = jnp.minimum(1 - dissimilarity, 1.0)
    colour = histogram.bhattacharyya(counts[0], counts[1], options.per_channel)
    return Similarities(
        ssim_hbd=options.weights[0] * structure + options.weights[1] * colour,
        ssim=structure,
        hbd=colour,
        mae=1 - share * jnp.mean(jnp.abs(difference)),
        mse=1 - share * jnp.mean(jnp.square(difference)),
    )


REGIONS = ("image", "mask")  # compared: the whole image, or only the mask
# Reductions of the scores of several holes in one image to one score.
REDUCTIONS = {"mean": lambda scores: scores.mean(axis=0), "min": lambda scores: scores.min(axis=0)}


@dataclass(frozen=True)
class Measure:
    """How to compare an image with its inpainting: the metric used as score, and options of all five."""

    metric: str = "ssim_hbd"  # the metric used as score
    window: str = "gaussian"
    bins: int = 256
    region: str = "image"
    holes: int = 1  # number of holes; 1 = the centre; see `mask.grid_offsets`
    reduce: str = "mean"  # reduction over several holes: "mean" or "min"

    def __post_init__(self) -> None:
        for name, known in (("metric", METRICS), ("region", REGIONS), ("reduce", REDUCTIONS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")

    def check(self, image_size: int, mask_size: int) -> None:
        """Raise ValueError if images and patches of these sizes cannot be compared, without tracing."""
        side = image_size if self.region == "image" else mask_size
        check_window((side, side, 3), checked(Options(window=self.window, bins=self.bins)))
        histogram.check_countable((side, side, 3))

    def compare(
        self, images: jax.Array, patches: jax.Array, offset: jax.Array | tuple[int, int]
    ) -> Similarities:
        """Similarities `[B]` between images `[B, S, S, 3]` and themselves with patches pasted at `offset`."""
        return composite_similarities(
            images, patches, offset, region=self.region, window=self.window, bins=self.bins
        )

    def reduced(self, scores: Any) -> Any:
        """Reduce a tree of arrays `[holes, ...]` to `[...]`."""
        return jax.tree.map(REDUCTIONS[self.reduce], scores)
