"""The generators by name, and the discriminator.

A generator is any Flax module that maps masked images `[B, S, S, 3]` to patches `[B, S/2, S/2, 3]`, both in
[-1, 1], and takes the keyword `train`. To add one to this package, write one file and one line in
`GENERATORS`; outside it, call `register_generator`.
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
    "is_own",
    "make_generator",
    "register_generator",
]

GENERATORS: dict[str, Callable[..., nn.Module]] = {"context_encoder": ContextEncoder, "unet": UNet}
_OWN = frozenset(GENERATORS)


def is_own(name: str) -> bool:
    """Whether a generator is this package's, not a user's."""
    return name in _OWN


def register_generator(name: str, generator: type[nn.Module]) -> None:
    """Register your own generator for the configurations, workdirs and exports of this process.

    Call it in the --config file, which runs before the configuration is read, in every mode.
    `examples/your_own_generator.py` is an example.

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
      name: name of the generator in `config.generator.name`; registering a name again replaces its generator.
      generator: the module's class. Its field `dtype` is the dtype of its convolutions; the other settings in
        the configuration's `generator` section set its fields of the same name.

    Raises:
      ValueError: the name is one of this package's, or the class has no field `dtype`.
    """
    if is_own(name):
        raise ValueError(f"the generator {name!r} is this package's own: register yours under another name")
    if "dtype" not in getattr(generator, "__dataclass_fields__", {}):
        raise ValueError(
            f"the generator {name!r} has no field dtype, the dtype it computes in: add dtype: Any = "
            "jnp.float32 to its class, a Flax module"
        )
    GENERATORS[name] = generator


def make_generator(name: str, options: Mapping[str, Any], *, dtype: Any) -> nn.Module:
    """Build the generator called `name`, convolving in `dtype`, with those of `options` that are its fields.

    `options` are from the `generator` section of a configuration. An unknown name raises a ValueError that
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
