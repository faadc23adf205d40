"""Features of images to refine a score with: how complex an image is, how the discriminator sees it.

uint8 images or true patches in, float64 `[N, F]` out; each row depends on its own image alone. Nothing here
is fitted: `mim_jax.refinements` makes scores of these features.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mim_jax.data.batches import collect, padded_batches
from mim_jax.evaluate.baselines.image_statistics import (
    blocks,
    check_images,
    color_moments,
    laplacian_variances,
    luma_variances,
    to_luma,
)

SCALES = (1, 2, 4)  # sides of the squares of pixels that are averaged before sharpness is measured
# The columns of `complexity_features`.
COMPLEXITY = (
    *(f"log_laplacian_variance_{scale}" for scale in SCALES),
    "log_luma_deviation",
    *(f"{moment}_{channel}" for moment in ("mean", "deviation") for channel in ("red", "green", "blue")),
)
# A quarter of a level, squared, luma in [0, 1]: what is below comes from rounding to bytes. Without this an
# image of one colour would lie at minus infinity, or wherever its last bits put it.
LEAST_VARIANCE = 1e-6


def complexity_features(images: np.ndarray) -> np.ndarray:
    """What makes an image easy or hard to inpaint, whatever it shows: sharpness, contrast and colours.

    The columns are named in `COMPLEXITY`: natural logarithms of the variance of the luma's five-point
    Laplacian, on the image and on its averages over squares of 2x2 and 4x4 pixels (rows and columns that fill
    no square are left out); of the luma's standard deviation; then mean and standard deviation of each
    channel. Pixels and luma (ITU-R BT.601, not rounded) in [0, 1]; variances below 1e-6 count as that.

    Args:
      images: uint8 `[N, S, S, 3]`, S at least 8.

    Returns:
      float64 `[N, 10]`.
    """
    check_images(images, "images")
    if images.shape[1] < 2 * max(SCALES):
        raise ValueError(
            f"images have {images.shape[1]} pixels a side, but complexity at a quarter of the size needs at "
            f"least {2 * max(SCALES)}: use larger ones"
        )
    variances = [np.zeros((0, len(SCALES) + 1))]
    for block in blocks(images):
        luma = to_luma(block)
        own = [laplacian_variances(luma, scale) for scale in SCALES]
        variances.append(np.stack([*own, luma_variances(luma, 1)], axis=1))
    logarithms = np.log(np.maximum(np.concatenate(variances), LEAST_VARIANCE))
    logarithms[:, -1] /= 2  # of the deviation
    return np.concatenate([logarithms, color_moments(images)], axis=1)


def discriminator_features(discriminator: nn.Module, params: Any, patches: np.ndarray) -> np.ndarray:
    """Means and standard deviations over space of what every layer of the discriminator makes of a patch.

    Taken behind each convolution and before the instance normalisation that follows it, which would set them
    all to 0 and 1: they are what it removes, the style of an image in Huang and Belongie, "Arbitrary style
    transfer in real-time with adaptive instance normalization", ICCV 2017.

    Args:
      discriminator: `mim_jax.inpaint.networks.discriminator.PatchDiscriminator`, or a module whose submodules all give
        `[B, H, W, C]`.
      params: its parameters.
      patches: float `[N, M, M, 3]` in [-1, 1]: true pixels, such as the ones the hole will hide.

    Returns:
      float64 `[N, F]`: the layers in the order of their names, of each the means of its channels, then their
      deviations; F = 1922 at the discriminator's own width.
    """
    array = np.asarray(patches)
    if array.ndim != 4 or array.shape[1] != array.shape[2] or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"patches must be floats [N, M, M, 3] in [-1, 1], got {array.dtype} {list(array.shape)}: cut "
            "them from mim_jax.inpaint.gan.to_network_range(images)"
        )
    if array.size and not np.max(np.abs(array)) <= 1:
        raise ValueError(
            f"patches must lie in [-1, 1], but reach {np.max(np.abs(array)):g}: cut them from "
            "mim_jax.inpaint.gan.to_network_range(images)"
        )
    # No image would make no batch, and so no number of features.
    some = array if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)
    batches = padded_batches(some, size=array.shape[1])
    moments = collect(lambda batch: _layer_moments(discriminator, params, batch), batches, None)
    return np.ascontiguousarray(moments[:, : len(array)].T)


@functools.partial(jax.jit, static_argnames="discriminator")
def _layer_moments(discriminator: nn.Module, params: Any, patches: jax.Array) -> jax.Array:
    """float32 `[F, B]`: the images last, as `collect` wants them."""

    def moments(activations: jax.Array) -> jax.Array:
        wide = activations[0].astype(jnp.float32)
        mean = jnp.mean(wide, axis=(0, 1), keepdims=True)
        deviation = jnp.sqrt(jnp.mean(jnp.square(wide - mean), axis=(0, 1)))
        return jnp.concatenate([mean[0, 0], deviation])

    def features(patch: jax.Array) -> jax.Array:
        _, state = discriminator.apply(
            {"params": params}, patch[None], capture_intermediates=lambda module, _: bool(module.path)
        )
        layers = jax.tree.leaves(state["intermediates"])  # sorted by name
        return jnp.concatenate([moments(layer) for layer in layers])

    # Image by image: products and means over a batch can change in their last bits with its size.
    return jax.lax.map(features, patches).T
