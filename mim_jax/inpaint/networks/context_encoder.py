"""The paper's generator: a context encoder that fills the hole from its surroundings.

Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016, in the layout of the PyTorch-GAN
re-implementation, whose shapes and point-wise bottleneck match the paper's Figure 4 (its Tables S1-S2 are not
public). Here BatchNorm has eps 1e-5; that implementation's 0.8 is a momentum passed as eps.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mim_jax.inpaint.convolution import pointwise_then_transpose, precision, saves_to_compose
from mim_jax.inpaint.initial import gaussian
from mim_jax.inpaint.layers import BatchNorm, Conv, ConvPair, leaky_relu

BOTTLENECKS = ("pointwise", "channelwise_fc", "global")


class ContextEncoder(nn.Module):
    """Masked image `[B, S, S, 3]` in [-1, 1] -> patch `[B, S/2, S/2, 3]` in [-1, 1].

    40,401,187 parameters at width 64, 4,000 bottleneck channels and the point-wise bottleneck.

    Attributes:
      width: number of features of the first layer; the others scale with it.
      bottleneck: "pointwise" (the paper: a 1x1 convolution, which mixes no positions), "channelwise_fc"
        (Pathak et al.: each feature map through its own dense layer, then the 1x1 convolution) or "global"
        (one convolution over all positions and back).
      bottleneck_channels: features between encoder and decoder.
      compose: train the bottleneck and the transposed convolution after it as one if that is less work
        (from 12 images per batch at full size); the same function, rounded differently.
      dtype: dtype of the computation; parameters and statistics stay float32.
    """

    width: int = 64
    bottleneck: str = "pointwise"
    bottleneck_channels: int = 4000
    compose: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masked: jax.Array, *, train: bool) -> jax.Array:
        check_image_size("context_encoder", masked.shape[1], 32)
        if self.bottleneck not in BOTTLENECKS:
            raise ValueError(
                f"unknown bottleneck {self.bottleneck!r}: choose one of {', '.join(BOTTLENECKS)}"
            )
        w = self.width
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(BatchNorm, train, dtype=self.dtype)
        x = masked.astype(self.dtype)
        for layer, features in enumerate((w, w, 2 * w, 4 * w, 8 * w)):
            x = conv(features, 4, stride=2, padding=1, name=f"encoder_{layer}")(x)
            x = norm(name=f"encoder_norm_{layer}", activation=leaky_relu)(x) if layer else leaky_relu(x)

        composed = False
        if self.bottleneck == "global":
            side = x.shape[1]
            x = conv(self.bottleneck_channels, side, name="bottleneck")(x)
            x = norm(name="bottleneck_norm", activation=leaky_relu)(x)
            x = conv(8 * w, side, transpose=True, name="bottleneck_out")(x)
            x = norm(name="bottleneck_out_norm", activation=nn.relu)(x)
        else:
            if self.bottleneck == "channelwise_fc":
                x = ChannelwiseDense(dtype=self.dtype, name="channelwise_fc")(x)
            # No norm and no activation, so that this layer and the transposed convolution
            # after it form one linear map.
            sizes = x[..., 0].size, x.shape[-1], self.bottleneck_channels, 8 * w, 4
            # Not for scoring: a score's rounding would depend on the batch size.
            composed = self.compose and train and saves_to_compose(*sizes)
            if composed:
                first = ConvPair(self.bottleneck_channels, 1, name="bottleneck")(x.shape[-1])
                second = ConvPair(8 * w, 4, name="decoder_0")(self.bottleneck_channels)
                pairs = jax.tree.map(lambda weight: weight.astype(self.dtype), (first, second))
                x = pointwise_then_transpose(x, *pairs, stride=2, padding=1)
            else:
                x = conv(self.bottleneck_channels, 1, name="bottleneck")(x)

        for layer, features in enumerate((8 * w, 4 * w, 2 * w, w)):
            if layer or not composed:
                x = conv(features, 4, stride=2, padding=1, transpose=True, name=f"decoder_{layer}")(x)
            x = norm(name=f"decoder_norm_{layer}", activation=nn.relu)(x)
        x = conv(3, 3, padding=1, name="to_rgb")(x)
        return jnp.tanh(x.astype(jnp.float32))


class ChannelwiseDense(nn.Module):
    """Dense layer over positions, one for each feature map: C (n^4 + n^2) parameters for n x n maps.

    Pathak et al. 2016, section 3.1.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        positions = height * width
        kernel = self.param("kernel", gaussian, (channels, positions, positions), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels, positions), jnp.float32)
        flat = x.reshape(batch, positions, channels)
        mixed = jnp.einsum("bpc,cpq->bqc", flat, kernel.astype(self.dtype), precision=precision(self.dtype))
        mixed = mixed + bias.T.astype(self.dtype)[None]
        return mixed.reshape(batch, height, width, channels)


def check_image_size(name: str, size: int, multiple: int) -> None:
    """Raise ValueError, naming sizes that fit, unless `size` is a positive multiple of `multiple`."""
    if size < multiple or size % multiple:
        below, above = size // multiple * multiple, (size // multiple + 1) * multiple
        fits = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"the generator {name} takes image sizes that are multiples of {multiple}, not {size}: try {fits}"
        )
