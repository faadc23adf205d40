"""The classifiers' networks as backbones: torchvision's ResNet-50, MobileNetV3-Large and Swin-B.

The weights come from the user's safetensors file, with torchvision's or timm's tensor names.
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
from mim_jax.data import weight_files
from mim_jax.features.backbone import Apply, Backbone, weights_file

IMAGE_SIZE = 224
BLOCKS = (Bottleneck, InvertedResidual, Block)


def load(name: str, path: str) -> Backbone:
    """Load `resnet50`, `mobilenet_v3_large` or `swin_b` from a safetensors file with any number of classes.

    ValueError if the file is missing or holds another network, as for `load_pretrained`.
    """
    file = weights_file(name, path, f"a safetensors file of {name} in torchvision's or timm's naming")
    # The logits are not used: one class keeps their layer small.
    weights = load_pretrained(name, file, classes=1, key=jax.random.key(0))
    source = f"torchvision's network {name}; its weights are the user's file, and so is their licence"
    return Backbone(name, apply_of(name), IMAGE_SIZE, weights, weight_files.digest(file), source)


def apply_of(name: str) -> Apply:
    """Return the `Backbone.apply` function of `resnet50`, `mobilenet_v3_large` or `swin_b`."""
    return functools.partial(features, CLASSIFIERS[name](classes=1))


def features(network: nn.Module, weights: Any, images: jax.Array) -> dict[str, jax.Array]:
    """Compute the features of the stem and each block in inference mode, by torchvision name ("_" for ".").

    `resnet50` has 17 layers, from `stem` (after pooling) to `layer4_2`; `mobilenet_v3_large` 17, from `stem`
    to `features_15` and the last convolution, `features_16`; `swin_b` 25, from `stem` (patch embedding) to
    `features_7_1`.

    Args:
      network: module built by one of `CLASSIFIERS`.
      weights: variables of the network, as returned by `load_pretrained`.
      images: float32 `[B, S, S, 3]` in [0, 1], RGB; S is a multiple of 32.
    """
    _, state = network.apply(
        weights,
        normalize(images),
        train=False,
        capture_intermediates=lambda module, _: isinstance(module, BLOCKS),
        mutable=["intermediates"],
    )
    # Block outputs are nested under "__call__", sown values are not; each is a tuple with one item per call.
    kept = state["intermediates"].items()
    return {name: (entry["__call__"] if isinstance(entry, dict) else entry)[0] for name, entry in kept}
