"""ResNet50, version 1.5: a classifier that MIM is compared with.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride in the 3x3
convolution of a block, not in its first 1x1: the network of `torchvision.models.resnet50`, layer by layer and
name by name (with underscores for dots).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mim_jax.inpaint.layers import BatchNorm, Conv, kaiming_normal, uniform
from mim_jax.inpaint.recomputing import recomputed

_conv = functools.partial(Conv, use_bias=False, kernel_init=kaiming_normal)
_norm = functools.partial(BatchNorm, scale_init=nn.initializers.ones)


class ResNet50(nn.Module):
    """Images `[B, S, S, 3]`, normalised -> logits `[B, classes]` and features `[B, 32 * width]`, float32.

    S is a multiple of 32. 25,557,032 parameters at 1000 classes and width 64. Features are the means over
    positions that the last dense layer sees. With `recompute`, gradients recompute each block: same values in
    a quarter of the memory.
    """

    classes: int
    width: int = 64
    dtype: Any = jnp.float32
    recompute: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        w, dtype = self.width, self.dtype
        x = _conv(w, 7, stride=2, padding=3, dtype=dtype, name="conv1")(images)
        x = _norm(train, dtype=dtype, name="bn1")(x)
        x = max_pool(nn.relu(x))
        self.sow("intermediates", "stem", x)
        block_of = recomputed(Bottleneck) if self.recompute and train else Bottleneck
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                name = f"layer{stage + 1}_{block}"
                x = block_of(w * 2**stage, stride, project=not block, train=train, dtype=dtype, name=name)(x)
        features = jnp.mean(x.astype(jnp.float32), (1, 2))
        init = uniform(features.shape[-1])
        dense = nn.Dense(
            self.classes, kernel_init=init, bias_init=init, precision=lax.Precision.HIGHEST, name="fc"
        )
        return dense(features), features


class Bottleneck(nn.Module):
    """Block: 1x1 to `features`, 3x3 with the stride, 1x1 to four times `features`, added to its input.

    With `project` the input goes through a 1x1 convolution first.
    """

    features: int
    stride: int
    project: bool
    train: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def normed(y: jax.Array, features: int, taps: int, stride: int, conv: str, norm: str) -> jax.Array:
            y = _conv(features, taps, stride=stride, padding=taps // 2, dtype=self.dtype, name=conv)(y)
            return _norm(self.train, dtype=self.dtype, name=norm)(y)

        y = nn.relu(normed(x, self.features, 1, 1, "conv1", "bn1"))
        y = nn.relu(normed(y, self.features, 3, self.stride, "conv2", "bn2"))
        y = normed(y, 4 * self.features, 1, 1, "conv3", "bn3")
        if self.project:
            x = normed(x, 4 * self.features, 1, self.stride, "downsample_0", "downsample_1")
        return nn.relu(x + y)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 maximum, stride 2, padding 1: `[B, H, W, C]` gives `[B, (H + 1) // 2, (W + 1) // 2, C]`.

    If maxima tie in a window, the first in row order gets the gradient, as in `torch.nn.MaxPool2d(3, 2, 1)`.
    """
    return lax.platform_dependent(x, cpu=_max_pool_slices, default=_max_pool_lax)


def _max_pool_lax(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def _max_pool_slices(x: jax.Array) -> jax.Array:
    """Maximum along rows, then columns, by plain slices: the gradient of `_max_pool_lax` is a scatter."""
    pads = ((0, 0), (1, 1 + x.shape[1] % 2), (1, 1 + x.shape[2] % 2), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    x = x.reshape(x.shape[0], x.shape[1], x.shape[2] // 2, 2, x.shape[3])
    even, odd = x[:, :, :, 0], x[:, :, :, 1]
    x = _first_max(_first_max(even[:, :, :-1], odd[:, :, :-1]), even[:, :, 1:])
    x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2], x.shape[3])
    even, odd = x[:, :, 0], x[:, :, 1]
    return _first_max(_first_max(even[:, :-1], odd[:, :-1]), even[:, 1:])


def _first_max(a: jax.Array, b: jax.Array) -> jax.Array:
    # `jnp.maximum` would split the gradient between equal values; NaN stays NaN.
    return jnp.where((a >= b) | jnp.isnan(a), a, b)
