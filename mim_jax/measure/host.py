"""Images in host memory: accepted if their meaning is clear, refused with a one-line error otherwise.

Only values already on the host are checked: NumPy arrays, lists, PIL images, CPU tensors of other libraries.
A `jax.Array` is not: a traced one has no values yet, and reading a computed one would wait for the device.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Arrays of JAX and NumPy, CPU tensors, PIL images, and lists of these with one shape and dtype.
Images = Any
SLACK = 1e-3  # tolerance beyond [0, max_val], relative to max_val, for rounding; histograms clip it


def as_array(image: Any) -> Any:
    """Convert a PIL image (to RGB), a CPU tensor, or a list of images of one shape and dtype to an array.

    NumPy and JAX arrays are returned unchanged; anything else raises ValueError.

    >>> as_array([np.zeros((2, 2, 3)), np.ones((2, 2, 3))]).shape
    (2, 2, 2, 3)
    """
    if isinstance(image, np.ndarray | jax.Array):
        return image
    if isinstance(image, list | tuple) and image:
        parts = [as_array(part) for part in image]
        if len(found := {np.shape(part) for part in parts}) > 1 or len({part.dtype for part in parts}) > 1:
            raise ValueError(f"a list of images must have one shape and dtype, got {sorted(map(str, found))}")
        return (jnp if any(isinstance(part, jax.Array) for part in parts) else np).stack(parts)
    if hasattr(image, "convert") and hasattr(image, "mode"):  # a PIL image; PIL need not be installed
        if image.mode not in ("RGB", "L"):
            raise ValueError(f"PIL images must be RGB or L, got {image.mode}: use image.convert('RGB')")
        return np.asarray(image.convert("RGB"))
    if hasattr(image, "__array__"):
        try:
            return np.asarray(image)
        except (TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"a {type(image).__name__} cannot be read on the host: {reason}") from error
    raise ValueError(f"images must be an array, got {type(image).__name__}: join them with np.stack")


def checked_range(image: Any, *, max_val: float = 1.0) -> Any:
    """Return `as_array(image)`; ValueError if it is on the host and holds floats outside [0, max_val]."""
    image = as_array(image)
    if not isinstance(image, np.ndarray) or not image.size or not jnp.issubdtype(image.dtype, jnp.floating):
        return image
    low, high = (float(f.reduce(image, axis=None)) / max_val for f in (np.fmin, np.fmax))  # ignore NaN
    if low < -SLACK or high > 1 + SLACK:
        if low >= 0 and high > 2:
            way = "divide by 255, or pass uint8"
        elif low >= -0.25 and high <= 1.25:
            way = "clip them"
        elif low >= -1 and high <= 1:
            way = "use (x + 1) / 2"
        else:
            way = "undo the normalisation, x * deviation + mean"
        raise ValueError(
            f"images must be uint8 or floats in [0, {max_val:g}], got values from {low * max_val:.4g} to "
            f"{high * max_val:.4g}: {way}"
        )
    return image
