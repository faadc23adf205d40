"""MobileNetV3-Large: a classifier that MIM is compared with, small enough for a phone.

Howard et al., "Searching for MobileNetV3", ICCV 2019, identical to `torchvision.models.mobilenet_v3_large`
layer by layer and name by name (with underscores for dots).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mim_jax.inpaint.layers import BatchNorm, Conv, DepthwiseConv, kaiming_normal

# Table 1 of the paper: taps, expanded features, features out, squeeze-and-excite, hard-swish, stride.
_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)

_conv = functools.partial(Conv, use_bias=False, kernel_init=kaiming_normal)


class MobileNetV3Large(nn.Module):
    """Images `[B, S, S, 3]`, normalised -> logits `[B, classes]` and features `[B, 1280 * width]`, float32.

    S is a multiple of 32. 5,483,032 parameters at 1000 classes and width 1; every number of features times
    `width` is rounded to a multiple of 8. Features are the inputs of the last dense layer, before dropout.
    """

    classes: int
    width: float = 1.0
    dropout: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        def features(full: int) -> int:
            return round_to_eight(full * self.width)

        stem = _conv(features(16), 3, stride=2, padding=1, dtype=self.dtype, name="features_0_0")
        x = nn.hard_swish(_norm(train, self.dtype, "features_0_1")(stem(images)))
        self.sow("intermediates", "stem", x)
        for number, (taps, expanded, out, squeeze, swish, stride) in enumerate(_BLOCKS, 1):
            block = functools.partial(InvertedResidual, dtype=self.dtype, name=f"features_{number}")
            x = block(taps, features(expanded), features(out), squeeze, swish, stride)(x, train)
        x = _conv(6 * x.shape[-1], 1, dtype=self.dtype, name="features_16_0")(x)
        x = nn.hard_swish(_norm(train, self.dtype, "features_16_1")(x))
        self.sow("intermediates", "features_16", x)
        x = jnp.mean(x.astype(jnp.float32), (1, 2))
        x = nn.hard_swish(_dense(features(1280), "classifier_0")(x))
        kept = nn.Dropout(self.dropout, deterministic=not train)(x)
        return _dense(self.classes, "classifier_3")(kept), x


class InvertedResidual(nn.Module):
    """Block: 1x1 to `expanded` features, depthwise convolution, squeeze-and-excite, 1x1 to `features`.

    The result is added to the input if both have the same shape. Names number only the parts present, as in
    torchvision.
    """

    taps: int
    expanded: int
    features: int
    squeeze: bool
    swish: bool
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        activation = nn.hard_swish if self.swish else nn.relu
        y, part = x, 0
        if self.expanded != x.shape[-1]:
            y = _conv(self.expanded, 1, dtype=self.dtype, name="block_0_0")(y)
            y = activation(_norm(train, self.dtype, "block_0_1")(y))
            part = 1
        y = DepthwiseConv(self.taps, self.stride, dtype=self.dtype, name=f"block_{part}_0")(y)
        y = activation(_norm(train, self.dtype, f"block_{part}_1")(y))
        if self.squeeze:
            part += 1
            squeezed = round_to_eight(self.expanded // 4)
            means = jnp.mean(y.astype(jnp.float32), (1, 2), keepdims=True)
            dense = functools.partial(_conv, taps=1, use_bias=True, dtype=self.dtype)
            weights = nn.relu(dense(squeezed, name=f"block_{part}_fc1")(means))
            weights = dense(self.expanded, name=f"block_{part}_fc2")(weights)
            y = y * nn.hard_sigmoid(weights)
        y = _conv(self.features, 1, dtype=self.dtype, name=f"block_{part + 1}_0")(y)
        y = _norm(train, self.dtype, f"block_{part + 1}_1")(y)
        return x + y if x.shape == y.shape else y


def round_to_eight(features: float) -> int:
    """Round to the nearest multiple of 8, at least 8; to the next one if that is over a tenth less."""
    rounded = max(8, int(features + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * features else rounded


def _norm(train: bool, dtype: Any, name: str) -> BatchNorm:
    return BatchNorm(train, eps=1e-3, momentum=0.01, scale_init=nn.initializers.ones, dtype=dtype, name=name)


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(
        features, kernel_init=nn.initializers.normal(0.01), precision=jax.lax.Precision.HIGHEST, name=name
    )
