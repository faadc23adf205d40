"""A small generator and discriminator with the losses that are the default."""

import optax

from mim_jax.inpaint.gan import GanConfig
from mim_jax.inpaint.networks import ContextEncoder, PatchDiscriminator


def _constant(step):
    return 1e-3


CONFIG = GanConfig(
    generator=ContextEncoder(4, "pointwise", 8),
    discriminator=PatchDiscriminator(4),
    optimizer=optax.adam(1e-3),
    schedule=_constant,
    image_size=32,
    mask_size=16,
    margin=0,
    flips=False,
    pixel_weight=0.999,
    adversarial_weight=0.001,
    generator_target=1.0,
    real_weight=0.5,
    fake_weight=0.5,
    real_input="patch",
)
