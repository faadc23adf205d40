"""Inference: a trained generator fills the hole of an image.

Images are uint8 or in [0, 1] outside the network and in [-1, 1] inside; only this package converts them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mim_jax import mask
from mim_jax.data.batches import on_device, padded_batches
from mim_jax.measure import images as pixels


def to_network_range(images: jax.Array) -> jax.Array:
    """Scale uint8 or [0, 1] to float32 in [-1, 1].

    >>> to_network_range(jnp.array([0, 255], jnp.uint8))
    Array([-1.,  1.], dtype=float32)
    """
    scale = 255.0 if images.dtype == jnp.uint8 else 1.0
    return images.astype(jnp.float32) * (2.0 / scale) - 1.0


def from_network_range(x: jax.Array) -> jax.Array:
    """Scale [-1, 1] to float32 in [0, 1], clipped.

    >>> from_network_range(jnp.array([-1.0, 0.0, 1.5]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    return jnp.clip((x.astype(jnp.float32) + 1.0) * 0.5, 0.0, 1.0)


def network_fill(
    generator: nn.Module,
    variables: Any,
    images: jax.Array,
    offset: jax.Array | tuple[int, int],
    *,
    mask_size: int,
    margin: int = 0,
) -> jax.Array:
    """Patches `[B, M, M, 3]` in [0, 1] that a generator fills into the hole of images `[B, S, S, 3]`."""
    hide = functools.partial(mask.hide, offset=offset, mask_size=mask_size, margin=margin)
    patch: Any = generator.apply(variables, jax.vmap(hide)(to_network_range(images)), train=False)
    return from_network_range(patch)


def inpaint_all(
    generator: nn.Module,
    variables: Any,
    images: np.ndarray | jax.Array,
    *,
    mask_size: int,
    margin: int = 0,
) -> np.ndarray:
    """Composites: `images` with the centre inpainted, float32 in [0, 1], `[N, S, S, 3]`.

    >>> from mim_jax.inpaint.networks import UNet
    >>> images = np.zeros((1, 32, 32, 3), np.uint8)
    >>> variables = UNet(width=1).init(jax.random.key(0), images, train=False)
    >>> inpaint_all(UNet(width=1), variables, images, mask_size=16).shape
    (1, 32, 32, 3)
    """
    batches = padded_batches(images, size=images.shape[-2])
    done = [
        np.asarray(_composite(generator, variables, on_device(batch), mask_size, margin))[:n]
        for batch, n in batches
    ]
    return np.concatenate(done)


def abstract_variables(generator: nn.Module, image_size: int) -> Any:
    """Shapes and dtypes of the generator's variables, as `jax.eval_shape` gives them."""
    return _abstract(generator, image_size)[0]


def abstract_patch(generator: nn.Module, image_size: int) -> tuple[int, ...]:
    """Shape of the patch that the generator fills in for one image."""
    return _abstract(generator, image_size)[1]


@functools.lru_cache(maxsize=8)
def _abstract(generator: nn.Module, image_size: int) -> tuple[Any, tuple[int, ...]]:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    init = functools.partial(generator.init_with_output, train=True)
    patch, variables = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), images)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}, patch.shape


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _composite(
    generator: nn.Module, variables: Any, images: jax.Array, mask_size: int, margin: int
) -> jax.Array:
    offset = mask.center_offset(images.shape[1], mask_size)
    patches = network_fill(generator, variables, images, offset, mask_size=mask_size, margin=margin)
    return jax.vmap(lambda image, patch: mask.paste(image, patch, offset))(pixels.as_float(images), patches)
