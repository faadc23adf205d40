"""Images outside the network: `[..., H, W, C]`, uint8 or float in [0, 1], and their checks.

Shapes, dtypes and known offsets are checked when a program is traced; only `mim_jax.measure.host` reads
pixel values.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# (row, column) of a patch's first pixel: one for all images, or `[..., 2]`, one for each.
Offset = jax.Array | np.ndarray | tuple[Any, Any]


def as_float(image: jax.Array, max_val: float = 1.0) -> jax.Array:
    """Convert uint8 or floats to float32 in [0, max_val]; ValueError for other dtypes.

    >>> as_float(jnp.array([0, 255], jnp.uint8))
    Array([0., 1.], dtype=float32)
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) * max_val / 255
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(
            f"images must be floats in [0, 1] or uint8, got {image.dtype}: convert them to one of these"
        )
    return image.astype(jnp.float32)


def check_pair(x: jax.Array, y: jax.Array) -> None:
    """Raise ValueError unless both are images of the same shape."""
    if shape_of(x) != shape_of(y):
        raise ValueError(f"the two images must have the same shape, got {x.shape} and {y.shape}")
    for image in (x, y):
        if image.dtype != jnp.uint8 and not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(
                f"images must be floats in [0, 1] or uint8, got {image.dtype}: convert them to one of these"
            )


def checked_mask(mask: Any, shape: tuple[int, ...]) -> jax.Array:
    """Convert a mask for images of `shape` `[..., H, W, C]` to float32 `[..., H, W]`: 1 = counted, 0 = not.

    Raises:
      ValueError: the mask is neither `[H, W]` nor `[..., H, W]`, or is not of booleans, bytes or floats.
    """
    mask = jnp.asarray(mask)
    if mask.shape not in (shape[-3:-1], shape[:-1]):
        raise ValueError(f"mask must be {list(shape[-3:-1])} or {list(shape[:-1])}, got {list(mask.shape)}")
    if mask.dtype not in (jnp.bool_, jnp.uint8) and not jnp.issubdtype(mask.dtype, jnp.floating):
        raise ValueError(f"mask must be of booleans, or weights in [0, 1], got {mask.dtype}")
    return jnp.broadcast_to(mask.astype(jnp.float32), shape[:-1])


def shape_of(image: jax.Array) -> tuple[int, ...]:
    """Shape of an array `[..., H, W, C]`; ValueError unless H, W > 0 and C = 1 or 3."""
    if not hasattr(image, "shape"):
        raise ValueError(f"images must be an array, got a {type(image).__name__}: join them with np.stack")
    shape = image.shape
    if len(shape) < 3:
        raise ValueError(f"images must be [..., H, W, C], got {shape}: add the channel axis to a grey image")
    if shape[-1] not in (1, 3):
        hint = "; this looks like NCHW: move axis -3 to the end" if shape[-3] in (1, 3) else ""
        raise ValueError(
            f"images must have 1 or 3 channels on the last axis, got {shape[-1]} in {shape}{hint}"
        )
    if 0 in shape[-3:-1]:
        raise ValueError(f"images must have pixels, got {shape}: height and width must be 1 or more")
    return shape


def checked_offset(image: jax.Array, patch: jax.Array, offset: Offset) -> jax.Array:
    """Offset of `patch` in `image` as int32 `[2]` or `[..., 2]`; ValueError if the patch does not fit.

    Known values are checked; those of a traced offset are not.
    """
    whole, part = shape_of(image), shape_of(patch)
    last = whole[-3] - part[-3], whole[-2] - part[-2]
    if whole[:-3] != part[:-3] or whole[-1] != part[-1] or min(last) < 0:
        raise ValueError(
            f"the patch {part} does not fit the image {whole}: its height and width may be smaller, all else "
            "must be equal"
        )
    try:
        known: Any = np.asarray(offset)
    except jax.errors.TracerArrayConversionError:  # a traced array, or a traced number in a tuple
        known = jnp.asarray(offset)
    except ValueError:  # rows of unequal length
        known = np.asarray(None)
    if not jnp.issubdtype(known.dtype, jnp.integer) or known.shape not in ((2,), (*whole[:-3], 2)):
        raise ValueError(
            "offset must be whole numbers, (row, column) or one such pair per image, got "
            f"{offset if known.dtype == object else f'{known.dtype} of shape {known.shape}'} for {whole}"
        )
    if isinstance(known, np.ndarray):
        for row, column in known.reshape(-1, 2).tolist():
            if not (0 <= row <= last[0] and 0 <= column <= last[1]):
                raise ValueError(
                    f"the patch at {row, column} reaches outside the image: offsets from (0, 0) to {last} "
                    "are allowed"
                )
    return jnp.asarray(known, jnp.int32)


def flip_at_random(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirror images `[B, H, W, C]` left to right and turn them upside down, each with probability 1/2."""
    mirrored, turned = jax.random.bernoulli(key, 0.5, (2, len(images), 1, 1, 1))
    images = jnp.where(mirrored, images[:, :, ::-1], images)
    return jnp.where(turned, images[:, ::-1], images)


def apart(
    function: Callable[..., jax.Array], *arrays: jax.Array, condition: jax.Array | None = None
) -> jax.Array:
    """Compute `function(*arrays)`; on CPU as a separate program whose result is written to memory.

    XLA for CPU fuses the producer of an array into its consumer: a blur along rows would be recomputed for
    each of the eleven columns that need it, and a slice of the batch loop would prevent vectorisation. That
    makes SSIM three times slower. XLA drops `jax.lax.optimization_barrier` before fusion, but keeps the
    boundary of a branch.

    The branch is chosen by a comparison that is never true: whether the first number of `condition`, by
    default the first array, is below minus infinity. Steps with the same `condition` share the comparison.
    """

    def guarded(*arrays: jax.Array) -> jax.Array:
        result = jax.eval_shape(function, *arrays)
        first = (arrays[0] if condition is None else condition).reshape(-1)[0]
        never = first.astype(jnp.float32) < -jnp.inf  # explicit, for strict dtype promotion

        def unused(*_: jax.Array) -> jax.Array:
            return jnp.broadcast_to(first.astype(result.dtype), result.shape)

        return jax.lax.cond(never, unused, function, *arrays)

    return jax.lax.platform_dependent(*arrays, cpu=guarded, default=function)
