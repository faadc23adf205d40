"""What counts as an image outside the network: `[..., H, W, C]`, uint8 or float in [0, 1]."""

import jax
import jax.numpy as jnp


def as_float(image: jax.Array, max_val: float = 1.0) -> jax.Array:
    """uint8 or floats -> float32 in [0, max_val]; other dtypes are a ValueError."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) * max_val / 255
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(
            f"images must be floats in [0, 1] or uint8, got {image.dtype}: convert them to either"
        )
    return image.astype(jnp.float32)


def as_float_pair(x: jax.Array, y: jax.Array, *, max_val: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Both images as float32, or a ValueError about shapes or dtypes; pixel values are not read."""
    if x.shape != y.shape:
        raise ValueError(f"the two images must have one shape, got {x.shape} and {y.shape}")
    check_layout(x.shape)
    return as_float(x, max_val), as_float(y, max_val)


def check_layout(shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `shape` is `[..., H, W, C]` with C = 1 or 3."""
    if len(shape) < 3:
        raise ValueError(f"images must be [..., H, W, C], got {shape}: add the channel axis to a grey image")
    if shape[-1] not in (1, 3):
        hint = "; this looks like NCHW: move axis -3 to the end" if shape[-3] in (1, 3) else ""
        raise ValueError(
            f"images must have 1 or 3 channels on the last axis, got {shape[-1]} in {shape}{hint}"
        )
