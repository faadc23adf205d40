"""The discriminator: a convolutional network that judges, patch by patch, whether pixels are real."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mim_jax.inpaint.layers import Conv, instance_norm, leaky_relu


class PatchDiscriminator(nn.Module):
    """Patch `[B, M, M, 3]` in [-1, 1] -> scores `[B, M/8, M/8, 1]`, linear; least squares, 1 = real.

    1,555,585 parameters at width 64. The layout of the PyTorch-GAN context encoder: receptive field 47
    pixels, no sigmoid, InstanceNorm, so that the score of one image never depends on another.
    """

    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, patch: jax.Array) -> jax.Array:
        w = self.width
        x = patch.astype(self.dtype)
        for layer, (features, stride) in enumerate(((w, 2), (2 * w, 2), (4 * w, 2), (8 * w, 1))):
            x = Conv(features, 3, stride=stride, padding=1, dtype=self.dtype, name=f"conv_{layer}")(x)
            x = instance_norm(x, leaky_relu) if layer else leaky_relu(x)
        return Conv(1, 3, padding=1, dtype=self.dtype, name="to_score")(x).astype(jnp.float32)
