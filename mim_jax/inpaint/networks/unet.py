"""A small U-Net as a second generator: skip connections carry the surroundings to the hole at every scale.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mim_jax.inpaint.layers import BatchNorm, Conv, leaky_relu
from mim_jax.inpaint.networks.context_encoder import check_image_size


class UNet(nn.Module):
    """Masked image `[B, S, S, 3]` in [-1, 1] -> patch `[B, S/2, S/2, 3]` in [-1, 1]; S is a multiple of 16.

    Four halvings and three doublings: the output is half the input's size, as for other generators. Each
    decoder stage sees the encoder's feature map at its own scale.
    """

    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masked: jax.Array, *, train: bool) -> jax.Array:
        check_image_size("unet", masked.shape[1], 16)
        w = self.width
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(BatchNorm, train, dtype=self.dtype)
        x = masked.astype(self.dtype)
        skips = []
        for layer, features in enumerate((w, 2 * w, 4 * w, 8 * w)):
            x = conv(features, 4, stride=2, padding=1, name=f"encoder_{layer}")(x)
            x = norm(name=f"encoder_norm_{layer}", activation=leaky_relu)(x) if layer else leaky_relu(x)
            skips.append(x)
        for layer, features in enumerate((4 * w, 2 * w, w)):
            x = conv(features, 4, stride=2, padding=1, transpose=True, name=f"decoder_{layer}")(x)
            x = norm(name=f"decoder_norm_{layer}", activation=nn.relu)(x)
            x = jnp.concatenate((x, skips[2 - layer]), axis=-1)
        x = conv(3, 3, padding=1, name="to_rgb")(x)
        return jnp.tanh(x.astype(jnp.float32))
