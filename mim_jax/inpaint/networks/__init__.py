"""The generators by name, and the discriminator.

A generator is any Flax module that maps masked images `[B, S, S, 3]` to patches `[B, S/2, S/2, 3]`, both in
[-1, 1], and is called with `train=`. Inside the package one file and one line in `GENERATORS` add one;
outside it `register_generator` does.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mim_jax.inpaint.networks.context_encoder import ContextEncoder
from mim_jax.inpaint.networks.discriminator import PatchDiscriminator
from mim_jax.inpaint.networks.unet import UNet

__all__ = [
    "GENERATORS",
    "ContextEncoder",
    "PatchDiscriminator",
    "UNet",
    "make_generator",
    "register_generator",
]

GENERATORS: dict[str, Callable[..., nn.Module]] = {"context_encoder": ContextEncoder, "unet": UNet}
_OWN = frozenset(GENERATORS)


def register_generator(name: str, generator: type[nn.Module]) -> None:
    """Make a generator of your own known to configurations, workdirs and exports of this process.

    Call it in the file that --config names: it runs before the configuration is read, in every mode.
    `examples/your_own_generator.py` is such a file.

    >>> class Grey(nn.Module):
    ...     dtype: Any = None
    ...     @nn.compact
    ...     def __call__(self, masked, *, train):
    ...         return nn.avg_pool(masked, (2, 2), strides=(2, 2))
    >>> register_generator("grey", Grey)
    >>> make_generator("grey", {"width": 64}, dtype="float32")  # it has no such field
    Grey(
        # attributes
        dtype = 'float32'
    )
    >>> del GENERATORS["grey"]

    Args:
      name: what `config.generator.name` calls it; registered again, a name means the newer generator.
      generator: the module's class. Its field `dtype` is what convolutions compute in; other fields of the
        section `generator` of a configuration reach the fields of the same name.

    Raises:
      ValueError: the name is one of this package's, or the class has no field `dtype`.
    """
    if name in _OWN:
        raise ValueError(f"the generator {name!r} is this package's own: register yours by another name")
    if "dtype" not in getattr(generator, "__dataclass_fields__", {}):
        raise ValueError(
            f"the generator {name!r} has no field dtype, which says what it computes in: add dtype: Any = "
            "jnp.float32 to its class, a Flax module"
        )
    GENERATORS[name] = generator


def make_generator(name: str, options: Mapping[str, Any], *, dtype: Any) -> nn.Module:
    """Build the generator called `name`, convolving in `dtype`, with those of `options` that it takes.

    `options` are fields of the section `generator` of a configuration. An unknown name is a ValueError that
    lists the known ones.
    """
    if name not in GENERATORS:
        raise ValueError(
            f"unknown generator {name!r}: choose one of {', '.join(sorted(GENERATORS))}, or give the "
            "--config file that registers it"
        )
    constructor = GENERATORS[name]
    known = getattr(constructor, "__dataclass_fields__", {})
    return constructor(dtype=dtype, **{key: value for key, value in options.items() if key in known})
