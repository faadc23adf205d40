"""Flax modules for convolutions and batch and instance normalisation, with PyTorch's semantics."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mim_jax.inpaint import convolution
from mim_jax.inpaint.convolution import as_row
from mim_jax.inpaint.initial import gaussian
from mim_jax.inpaint.recomputing import lean

# `torch.nn.init.kaiming_normal_(mode="fan_out")`: N(0, 2 / (k k O)), for depthwise kernels too.
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform(fan_in: int) -> nn.initializers.Initializer:
    """Uniform within +-1 / sqrt(fan_in), as PyTorch draws kernels and biases."""

    def draw(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return draw


class Conv(nn.Module):
    """Convolution; by default the kernel is drawn from N(0, 0.02) and the bias is 0 (context encoder)."""

    features: int
    taps: int
    stride: int = 1
    padding: int = 0
    transpose: bool = False
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = gaussian
    dtype: Any = jnp.float32  # dtype of the computation; parameters stay float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.taps, self.taps, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        operation = convolution.conv_transpose if self.transpose else convolution.conv
        y = operation(x.astype(self.dtype), kernel, stride=self.stride, padding=self.padding)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return y + as_row(bias.astype(self.dtype))


class ConvPair(nn.Module):
    """Kernel and bias of a `Conv` of the same name, for code that uses them in another way."""

    features: int
    taps: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        shape = (self.taps, self.taps, channels, self.features)
        kernel = self.param("kernel", gaussian, shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)


class DepthwiseConv(nn.Module):
    """Depthwise convolution, taps x taps, padded to keep the size before the stride; no bias."""

    taps: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.taps, self.taps, 1, x.shape[-1])
        kernel = self.param("kernel", kaiming_normal, shape, jnp.float32).astype(self.dtype)
        return convolution.depthwise(x.astype(self.dtype), kernel, stride=self.stride, padding=self.taps // 2)


Activation = Callable[[jax.Array], jax.Array]


def _same(x: jax.Array) -> jax.Array:
    return x


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d`, statistics in float32; by default the scale is drawn from N(1, 0.02).

    `momentum` is the weight of the new statistics. The running variance is the unbiased one, as in PyTorch
    (Flax keeps the biased one).
    """

    train: bool
    eps: float = 1e-5
    momentum: float = 0.1
    scale_init: nn.initializers.Initializer = functools.partial(gaussian, mean=1)
    activation: Activation = _same  # applied to the output
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        scale = self.param("scale", self.scale_init, (features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (features,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)

        def normalize(
            x: jax.Array, scale: jax.Array, bias: jax.Array, *given: jax.Array
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            wide = x.astype(jnp.float32)
            if given:
                mean, var = given
            else:
                mean = jnp.mean(wide, (0, 1, 2))
                var = jnp.mean(jnp.square(wide - as_row(mean)), (0, 1, 2))
            factor = scale * jax.lax.rsqrt(var + self.eps)
            y = (wide - as_row(mean)) * as_row(factor) + as_row(bias)
            return self.activation(y.astype(self.dtype)), mean, var

        if not self.train:
            return normalize(x, scale, bias, running_mean.value, running_var.value)[0]
        y, mean, var = lean(normalize)(x, scale, bias)
        if not self.is_initializing():
            count = x.size // features
            running_mean.value += self.momentum * (mean - running_mean.value)
            running_var.value += self.momentum * (var * (count / max(count - 1, 1)) - running_var.value)
        return y


def instance_norm(x: jax.Array, activation: Activation = _same) -> jax.Array:
    """`torch.nn.InstanceNorm2d` (eps 1e-5, no parameters), then an activation; samples never mix."""

    def normalize(x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, (1, 2), keepdims=True)
        var = jnp.mean(jnp.square(wide - mean), (1, 2), keepdims=True)
        return activation(((wide - mean) * jax.lax.rsqrt(var + 1e-5)).astype(x.dtype))

    return lean(normalize)(x)


@jax.custom_jvp
def leaky_relu(x: jax.Array) -> jax.Array:
    """LeakyReLU with slope 0.2 (Flax's default is 0.01).

    Its gradient is computed from its output, which has the sign of `x`, so that `x` need not be stored.
    """
    return nn.leaky_relu(x, 0.2)


@leaky_relu.defjvp
def _leaky_relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    y = leaky_relu(*primals)
    return y, jax.lax.select(y >= 0, tangents[0], 0.2 * tangents[0])
