"""The generators by name, and the discriminator.

A generator is any Flax module that maps masked images `[B, S, S, 3]` to patches `[B, S/2, S/2, 3]`, both in
[-1, 1], and is called with `train=`. One file and one line in `GENERATORS` add one.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mim_jax.inpaint.networks.context_encoder import ContextEncoder
from mim_jax.inpaint.networks.discriminator import PatchDiscriminator
from mim_jax.inpaint.networks.unet import UNet

__all__ = ["GENERATORS", "ContextEncoder", "PatchDiscriminator", "UNet", "make_generator"]

GENERATORS: dict[str, Callable[..., nn.Module]] = {"context_encoder": ContextEncoder, "unet": UNet}


def make_generator(name: str, options: Mapping[str, Any], *, dtype: Any) -> nn.Module:
    """Build the generator called `name`, convolving in `dtype`, with those of `options` that it takes.

    `options` are fields of the section `generator` of a configuration. An unknown name is a ValueError that
    lists
    the known ones.
    """
    if name not in GENERATORS:
        raise ValueError(f"unknown generator {name!r}: choose one of {', '.join(sorted(GENERATORS))}")
    constructor = GENERATORS[name]
    known = getattr(constructor, "__dataclass_fields__", {})
    return constructor(dtype=dtype, **{key: value for key, value in options.items() if key in known})
