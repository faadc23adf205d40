"""The classifiers' networks as backbones: torchvision's ResNet-50, MobileNetV3-Large and Swin-B.

The weights come from the user's safetensors file, in torchvision's or timm's naming.
"""

import functools
from typing import Any

import jax
from flax import linen as nn

from mim_jax.classifiers import CLASSIFIERS
from mim_jax.classifiers.mobilenet import InvertedResidual
from mim_jax.classifiers.pretrained import load_pretrained
from mim_jax.classifiers.resnet import Bottleneck
from mim_jax.classifiers.step import normalize
from mim_jax.classifiers.swin import Block
from mim_jax.features.backbone import Apply, Backbone, file_digest, weights_file

IMAGE_SIZE = 224
BLOCKS = (Bottleneck, InvertedResidual, Block)


def load(name: str, path: str) -> Backbone:
    """Load `resnet50`, `mobilenet_v3_large` or `swin_b` from a safetensors file, whatever its classes.

    Raises:
      ValueError: no file, or one of another network, as `load_pretrained`.
    """
    file = weights_file(name, path, f"a safetensors file of {name} in torchvision's or timm's naming")
    # The logits are not used: one class keeps their layer small.
    weights = load_pretrained(name, file, classes=1, key=jax.random.key(0))
    source = f"torchvision's network {name}; its weights are the user's file, and so is their licence"
    return Backbone(name, apply_of(name), IMAGE_SIZE, weights, file_digest(file), source)


def apply_of(name: str) -> Apply:
    """`features` of one of `resnet50`, `mobilenet_v3_large` and `swin_b`."""
    return functools.partial(features, CLASSIFIERS[name](classes=1))


def features(network: nn.Module, weights: Any, images: jax.Array) -> dict[str, jax.Array]:
    """Features of the stem and of each block, by torchvision's names with "_" for ".", in inference mode.

    `resnet50` has 17 layers, from `stem` (behind its pooling) to `layer4_2`; `mobilenet_v3_large` 17, from
    `stem` to `features_15` and the last convolution, `features_16`; `swin_b` 25, from `stem` (the patches) to
    `features_7_1`.

    Args:
      network: one of `CLASSIFIERS`.
      weights: its variables, as `load_pretrained` reads them.
      images: float32 `[B, S, S, 3]` in [0, 1], RGB; S is a multiple of 32.
    """
    _, state = network.apply(
        weights,
        normalize(images),
        train=False,
        capture_intermediates=lambda module, _: isinstance(module, BLOCKS),
        mutable=["intermediates"],
    )
    # A block's output stands under its method, what a network sows stands alone; each in a tuple of calls.
    kept = state["intermediates"].items()
    return {name: (entry["__call__"] if isinstance(entry, dict) else entry)[0] for name, entry in kept}
