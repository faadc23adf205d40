"""Train MIM with your own generator, without changing the package.

    python launch.py --config=examples/your_own_generator.py --workdir=runs/mine
    python launch.py --config=examples/your_own_generator.py --mode=score --workdir=runs/mine photo.jpg

This file is also the configuration: it registers the network, and `get_config` selects it. Every
`--config.FIELD` works as usual. Without `--config.data.root=/data/skin` the images are the embedded
procedural ones, which say nothing about mpox. In your own code call `register_generator` before
`mim_jax.load("runs/mine")`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from configs import mim
from mim_jax.inpaint.layers import BatchNorm, Conv, leaky_relu
from mim_jax.inpaint.networks import register_generator


class MeanContext(nn.Module):
    """Two layers of stride 2, then layers that see their window and the mean over the image.

    Maps masked images `[B, S, S, 3]` to patches `[B, S/2, S/2, 3]`, both in [-1, 1]; S must be a
    multiple of 4.
    """

    width: int = 64  # `config.generator.width` sets the field of the same name
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masked: jax.Array, *, train: bool) -> jax.Array:
        x = masked.astype(self.dtype)
        # This package's `Conv` is fast on CPUs inside a training loop; flax.linen's also works.
        for layer, features in enumerate((self.width, 2 * self.width)):
            x = Conv(features, 4, stride=2, padding=1, dtype=self.dtype, name=f"halve_{layer}")(x)
            x = leaky_relu(BatchNorm(train, dtype=self.dtype, name=f"halve_norm_{layer}")(x))
        for layer in range(2):
            seen = jnp.concatenate((x, jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)), axis=-1)
            seen = Conv(2 * self.width, 3, padding=1, dtype=self.dtype, name=f"look_{layer}")(seen)
            x = x + leaky_relu(BatchNorm(train, dtype=self.dtype, name=f"look_norm_{layer}")(seen))
        x = Conv(self.width, 4, stride=2, padding=1, transpose=True, dtype=self.dtype, name="double")(x)
        x = nn.relu(BatchNorm(train, dtype=self.dtype, name="double_norm")(x))
        return jnp.tanh(Conv(3, 3, padding=1, dtype=self.dtype, name="to_rgb")(x).astype(jnp.float32))


register_generator("mean_context", MeanContext)


def get_config(variant: str = "quick") -> Any:
    """Return the configuration of configs/mim.py with this generator; takes the same variants."""
    config = mim.get_config(variant)
    config.generator.name = "mean_context"
    return config
