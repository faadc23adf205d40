"""Maps of where an image is unlike the training class: the score's own measure, applied to windows.

A layer's histogram holds the spread of each channel over the whole image. The spread within a window around a
position gives the same kind of histogram, whatever the sign of the features, and is compared in the same way:
by the Hellinger distance to the nearest training image. So no data is needed beyond the score's reference.
A window is about a quarter of the image wide, and at least three positions: a single position has no spread,
and a histogram of its features would not be comparable with those of the training images.

The scale is the score's, in interquartile ranges above the median of whole held-out training images. A window
is a smaller sample than an image, so windows of training-class images are above 0 as well.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.batches import Images, collect, padded_batches
from mim_jax.features.backbone import Apply
from mim_jax.features.detector import FEATURES, FeatureDetector
from mim_jax.features.histograms import shares
from mim_jax.features.one_class import Reference, coefficients
from mim_jax.measure.images import as_float

LAYERS = 4  # most layers used; evenly spaced in the order of their names, including the last
PART = 4  # a window is about 1/PART of the image wide
MOST = 10.0  # interquartile ranges above the median that map to 1
_HIGHEST = jax.lax.Precision.HIGHEST


def unlikeness(detector: FeatureDetector, images: Images) -> np.ndarray:
    """Map where images are unlike the training class, float32 `[N, S, S]`, averaged over folds.

    0 = as near as the median held-out training image as a whole; 1 = ten or more interquartile ranges
    farther. A map does not explain a decision: it shows where the distance is large, not what is there.

    Args:
      detector: detector whose kinds of score include "nearest".
      images: images `[N, S, S, 3]`, as for `FeatureDetector.score_samples`.

    Raises:
      ValueError: images of another size; a detector without the kind "nearest".
    """
    reference, size = detector.references[FEATURES], detector.image_size
    draw = functools.partial(_draw, detector.backbone.apply, detector.backbone.weights, reference)
    return np.moveaxis(collect(draw, padded_batches(images, size=size)), -1, 0).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _draw(apply: Apply, weights: Any, reference: Reference, images: jax.Array) -> jax.Array:
    features = apply(weights, as_float(images))
    return jnp.moveaxis(feature_map(reference, features, images.shape[1]), 0, -1)  # `collect` joins axis -1


def feature_map(reference: Reference, features: Mapping[str, jax.Array], size: int) -> jax.Array:
    """Compute the map of `unlikeness` from features by layer, `[B, H, W, C]`: float32 `[B, size, size]`."""
    if "nearest" not in reference.kinds:
        raise ValueError(
            f"the map needs the kind of score 'nearest', but the detector has {', '.join(reference.kinds)}: "
            "fit it with 'nearest' too"
        )
    names = sorted(reference.gallery)
    chosen = names[:: -max(len(names) // LAYERS, 1)][:LAYERS]
    maps = [_layer_map(reference, layer, features[layer], size) for layer in chosen]
    return jnp.clip(sum(maps[1:], start=maps[0]) / (len(maps) * MOST), 0.0, 1.0)


def _layer_map(reference: Reference, layer: str, features: jax.Array, size: int) -> jax.Array:
    """Compute the standardized distances of one layer, averaged over folds: `[B, size, size]`."""
    rows, columns = (jnp.asarray(_windows(side)) for side in features.shape[1:3])

    def averaged(x: jax.Array) -> jax.Array:
        return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=_HIGHEST)

    mean = averaged(features)
    spread = jnp.sqrt(jnp.maximum(averaged(jnp.square(features)) - jnp.square(mean), 0.0))
    found = shares(spread).reshape(-1, features.shape[-1])
    alike = coefficients(found, jnp.asarray(reference.gallery[layer]))
    members = jnp.asarray(reference.kinds["nearest"][layer]["members"])[:, None]  # [F, 1, T]
    nearest = jnp.max(jnp.where(members > 0, alike[None], 0.0), axis=-1)
    far = jnp.sqrt(jnp.maximum(1 - nearest, 0.0))  # [F, B * H * W]
    # The units are of scores, which are negative distances.
    place = sorted(reference.kinds).index("nearest") * len(reference.gallery)
    place += sorted(reference.gallery).index(layer)
    median, unit = (jnp.asarray(values)[:, place : place + 1] for values in reference.units)
    in_units = jnp.mean((far + median) / unit, axis=0).reshape(features.shape[:3])
    return jax.image.resize(in_units, (features.shape[0], size, size), "linear", precision=_HIGHEST)


def _windows(side: int) -> np.ndarray:
    """Return the matrix `[side, side]` that averages over the window around each position.

    At the border windows are shifted inside: a smaller window is a smaller sample and would look more unlike.
    """
    width = min(2 * max(round(side / PART) // 2, 1) + 1, side)
    first = np.clip(np.arange(side) - width // 2, 0, side - width)[:, None]
    places = np.arange(side)[None]
    return ((places >= first) & (places < first + width)).astype(np.float32) / width
