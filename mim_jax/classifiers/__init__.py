"""The classifiers that the paper compares MIM with, by name; their training and their scores.

A classifier is a Flax module that maps normalised images `[B, S, S, 3]` to logits `[B, classes]` and to the
features `[B, F]` that its last layer sees, and takes the keyword `train`. To add one, write one file and
one line in `CLASSIFIERS`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mim_jax.classifiers.mobilenet import MobileNetV3Large
from mim_jax.classifiers.resnet import ResNet50
from mim_jax.classifiers.swin import SwinB

__all__ = ["CLASSIFIERS", "MobileNetV3Large", "ResNet50", "SwinB", "make_classifier"]

CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "resnet50": ResNet50,
    "mobilenet_v3_large": MobileNetV3Large,
    "swin_b": SwinB,
}


def make_classifier(name: str, options: Mapping[str, Any], *, classes: int, dtype: Any) -> nn.Module:
    """Build the classifier called `name` with `options` (fields of the module), computing in `dtype`.

    An unknown name raises a ValueError that lists the known ones.
    """
    if name not in CLASSIFIERS:
        raise ValueError(f"unknown classifier {name!r}: choose one of {', '.join(sorted(CLASSIFIERS))}")
    return CLASSIFIERS[name](classes=classes, dtype=dtype, **options)
