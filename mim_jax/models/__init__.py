"""The networks.

A generator is any Flax module that maps masked images `[B, S, S, 3]` to patches `[B, S/2, S/2, 3]`, both in
[-1, 1]; a classifier one that maps normalised images `[B, S, S, 3]` to logits `[B, classes]` and the features
`[B, F]` that its last layer sees. Both are called with `train=`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mim_jax.classifiers.mobilenet import MobileNetV3Large
from mim_jax.classifiers.pretrained import load_pretrained
from mim_jax.classifiers.resnet import ResNet50
from mim_jax.classifiers.swin import SwinB
from mim_jax.inpaint.networks.context_encoder import ContextEncoder
from mim_jax.inpaint.networks.discriminator import PatchDiscriminator
from mim_jax.inpaint.networks.unet import UNet

GENERATORS: dict[str, Callable[..., nn.Module]] = {"context_encoder": ContextEncoder, "unet": UNet}
CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "resnet50": ResNet50,
    "mobilenet_v3_large": MobileNetV3Large,
    "swin_b": SwinB,
}


def make_generator(name: str, options: Mapping[str, Any], *, dtype: Any) -> nn.Module:
    """The generator called `name`, built with those of `options` that it takes.

    Raises:
      ValueError: unknown name; the message lists the known ones.
    """
    constructor = _find("generator", name, GENERATORS)
    known = getattr(constructor, "__dataclass_fields__", {})
    return constructor(dtype=dtype, **{key: value for key, value in options.items() if key in known})


def make_classifier(name: str, options: Mapping[str, Any], *, classes: int, dtype: Any) -> nn.Module:
    """The classifier called `name`, built with `options`.

    Raises:
      ValueError: unknown name; the message lists the known ones.
    """
    return _find("classifier", name, CLASSIFIERS)(classes=classes, dtype=dtype, **options)


def _find(kind: str, name: str, known: Mapping[str, Callable[..., nn.Module]]) -> Callable[..., nn.Module]:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(known))}")
    return known[name]


__all__ = [
    "CLASSIFIERS",
    "GENERATORS",
    "ContextEncoder",
    "MobileNetV3Large",
    "PatchDiscriminator",
    "ResNet50",
    "SwinB",
    "UNet",
    "load_pretrained",
    "make_classifier",
    "make_generator",
]
