"""Swin-B: a transformer that attends within windows of 7 x 7 patches and shifts them every other block.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021, identical
to torchvision's `swin_b`; parameters carry torchvision's names with "_" for ".".
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mim_jax.inpaint.convolution import precision, product
from mim_jax.inpaint.layers import uniform

PATCH = 4  # pixels
WINDOW = 7  # patches
OFFSETS = 2 * WINDOW - 1  # number of position differences along one axis of a window
HEAD_FEATURES = 32
MLP_RATIO = 4
OTHER_REGION = -100.0  # added to scores between patches that only the cyclic shift made neighbours

# torchvision truncates at +-2, not at two standard deviations: effectively a plain normal draw.
_kernel_init = nn.initializers.normal(0.02)


class SwinB(nn.Module):
    """Normalised images `[B, S, S, 3]` -> (logits `[B, classes]`, features `[B, 8 * width]`), float32.

    87,768,224 parameters at width 128 and 1,000 classes. S is at least 4; the remainder of S / 4 is cropped,
    and maps that are not a multiple of the window are zero-padded at the end, as in torchvision. Features
    are the means over positions that the last layer sees. With `train`, whole residual branches are dropped
    per image (stochastic depth), drawn from `rngs={"dropout": key}`.

    Attributes:
      classes: number of classes.
      width: number of features of the first stage, a multiple of 32; doubled by every further stage.
      depths: number of blocks of each stage.
      drop_path: probability that the last block drops a branch; it grows linearly from 0 in the first block.
      dtype: dtype of the computation; parameters, LayerNorm and softmax stay float32.
    """

    classes: int
    width: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    drop_path: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        if self.width < HEAD_FEATURES or self.width % HEAD_FEATURES:
            raise ValueError(
                f"swin_b takes widths that are multiples of {HEAD_FEATURES}, not {self.width}: try 128"
            )
        x = PatchEmbedding(self.width, dtype=self.dtype, name="features_0_0")(images.astype(self.dtype))
        x = _layer_norm(self.dtype, "features_0_2")(x)
        self.sow("intermediates", "stem", x)
        rates = iter(np.linspace(0.0, self.drop_path, sum(self.depths)))
        for stage, depth in enumerate(self.depths):
            if stage:
                x = PatchMerging(dtype=self.dtype, name=f"features_{2 * stage}")(x)
            for block in range(depth):
                x = Block(
                    shift=WINDOW // 2 * (block % 2),
                    drop_path=float(next(rates)),
                    dtype=self.dtype,
                    name=f"features_{2 * stage + 1}_{block}",
                )(x, train=train)
        x = _layer_norm(jnp.float32, "norm")(x)
        features = jnp.mean(x, (1, 2))
        return Dense(self.classes, dtype=jnp.float32, name="head")(features), features


class PatchEmbedding(nn.Module):
    """Patches `[B, H, W, C]` -> `[B, H/4, W/4, features]`: a convolution whose stride is its kernel's size.

    Patches do not overlap, so it is one matrix product.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        rows, columns = height // PATCH, width // PATCH
        inputs = PATCH * PATCH * channels
        shape = (PATCH, PATCH, channels, self.features)
        kernel = self.param("kernel", uniform(inputs), shape, jnp.float32)
        bias = self.param("bias", uniform(inputs), (self.features,), jnp.float32)
        x = x[:, : rows * PATCH, : columns * PATCH].reshape(batch, rows, PATCH, columns, PATCH, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, inputs)
        x = jnp.dot(x, kernel.reshape(inputs, -1).astype(self.dtype), precision=precision(self.dtype))
        return x + bias.astype(self.dtype)[None, None, None, :]


class PatchMerging(nn.Module):
    """Merge four neighbours: `[B, H, W, C]` -> `[B, ceil(H/2), ceil(W/2), 2 C]`, LayerNorm, one product."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        rows, columns = -(-height // 2), -(-width // 2)
        x = _pad(x, 2 * rows, 2 * columns).reshape(batch, rows, 2, columns, 2, channels)
        # torchvision's order of neighbours: (0, 0), (1, 0), (0, 1), (1, 1), rows before columns.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, rows, columns, 4 * channels)
        x = _layer_norm(self.dtype, "norm")(x)
        return Dense(2 * channels, dtype=self.dtype, name="reduction", use_bias=False)(x)


class Block(nn.Module):
    """Attention within windows, then an MLP on every patch; each a residual branch after its LayerNorm."""

    shift: int
    drop_path: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        features = x.shape[-1]
        # One draw per image: the branch is kept with probability 1 - p, and then divided by 1 - p.
        drop = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)
        dense = functools.partial(Dense, dtype=self.dtype)
        branch = _layer_norm(self.dtype, "norm1")(x)
        x = x + drop(WindowAttention(self.shift, dtype=self.dtype, name="attn")(branch))
        branch = _layer_norm(self.dtype, "norm2")(x)
        branch = nn.gelu(dense(MLP_RATIO * features, name="mlp_0")(branch), approximate=False)
        return x + drop(dense(features, name="mlp_3")(branch))


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows of a cyclically shifted map, with relative position bias."""

    shift: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, features = x.shape
        heads = features // HEAD_FEATURES
        patches = WINDOW * WINDOW
        rows, columns = -(-height // WINDOW), -(-width // WINDOW)
        # No shift along an axis that one window covers.
        shifts = (self.shift if rows > 1 else 0, self.shift if columns > 1 else 0)

        x = _pad(x, rows * WINDOW, columns * WINDOW)
        x = jnp.roll(x, (-shifts[0], -shifts[1]), (1, 2))
        x = x.reshape(batch, rows, WINDOW, columns, WINDOW, features).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * columns, patches, features)

        qkv = Dense(3 * features, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, rows * columns, patches, 3, heads, HEAD_FEATURES)
        query, key, value = (qkv[:, :, :, part] for part in range(3))
        scores = jnp.einsum(
            "bwqhd,bwkhd->bwhqk",
            query * HEAD_FEATURES**-0.5,
            key,
            precision=precision(self.dtype),
            preferred_element_type=jnp.float32,
        )
        table = self.param("relative_position_bias_table", _kernel_init, (OFFSETS**2, heads), jnp.float32)
        bias = table[_relative_positions()].reshape(1, 1, patches, patches, heads)
        scores = scores + bias.transpose(0, 1, 4, 2, 3)
        if any(shifts):
            scores = scores + _shift_mask(rows, columns, shifts)[None, :, None]
        weights = nn.softmax(scores, axis=-1).astype(self.dtype)
        x = jnp.einsum("bwhqk,bwkhd->bwqhd", weights, value, precision=precision(self.dtype))
        x = x.reshape(batch, rows * columns, patches, features)
        x = Dense(features, dtype=self.dtype, name="proj")(x)

        x = x.reshape(batch, rows, columns, WINDOW, WINDOW, features).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * WINDOW, columns * WINDOW, features)
        return jnp.roll(x, shifts, (1, 2))[:, :height, :width]


@functools.cache
def _relative_positions() -> np.ndarray:
    """Row of the table for query q and key k, flat `[49 * 49]`: (dy + 6) 13 + dx + 6, d = q - k."""
    y, x = np.divmod(np.arange(WINDOW * WINDOW), WINDOW)
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return ((dy + WINDOW - 1) * OFFSETS + dx + WINDOW - 1).reshape(-1)


@functools.cache
def _shift_mask(rows: int, columns: int, shifts: tuple[int, int]) -> np.ndarray:
    """`[windows, 49, 49]`: 0 between patches of the same region of the map before the shift, else -100."""
    # Shifting by s moves the first s rows to the end: the last s rows in the last row of windows.
    y, x = (
        np.arange(n * WINDOW) >= n * WINDOW - shift for n, shift in zip((rows, columns), shifts, strict=True)
    )
    region = 2 * y[:, None] + x[None]
    region = region.reshape(rows, WINDOW, columns, WINDOW).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    return np.where(region[:, :, None] == region[:, None], 0.0, OTHER_REGION).astype(np.float32)


def _pad(x: jax.Array, height: int, width: int) -> jax.Array:
    """Pad with zeros after the last row and column, up to the given size."""
    return jnp.pad(x, ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]), (0, 0)))


class Dense(nn.Module):
    """Dense layer `[..., I]` -> `[..., features]` as one matrix product."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", _kernel_init, (x.shape[-1], self.features), jnp.float32)
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = product(rows, kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)


def _layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    # E[(x - mean)^2]: the faster E[x^2] - mean^2 loses precision if the mean is large.
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name)
