"""Backbones: frozen networks as pure functions of images, loaded from data-only files.

A backbone returns one feature map per layer. Its weights come from a file of arrays (safetensors, or the
initialisers of an ONNX graph), never from a pickle; its digest identifies that file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

# weights, images float32 [B, S, S, 3] in [0, 1] -> layer -> features [B, H, W, C]
Apply = Callable[[Any, jax.Array], Mapping[str, jax.Array]]


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network.

    >>> halves = lambda weights, images: {"halves": images[:, ::2, ::2]}
    >>> Backbone("mine", halves, image_size=8)
    Backbone('mine', image_size=8)

    Attributes:
      name: one of `mim_jax.features.backbones.BACKBONES`, or any name for a custom network.
      apply: pure function `(weights, images) -> {layer: features}`; images float32 `[B, S, S, 3]` in [0, 1],
        RGB, features `[B, H, W, C]` with H * W > 1. An image's features must not depend on other images.
      image_size: side of the input images, in pixels.
      weights: pytree of arrays.
      digest: SHA-256 (hex) of the weights file; "" for a custom network.
      source: sentence for display: what the network was trained on, and by whom.
    """

    name: str
    apply: Apply
    image_size: int
    weights: Any = field(default_factory=dict)
    digest: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, image_size={self.image_size})"

    def features(self, images: jax.Array) -> Mapping[str, jax.Array]:
        """Features of images float32 `[B, S, S, 3]` in [0, 1], by layer: `[B, H, W, C]` each."""
        return self.apply(self.weights, images)


def weights_file(name: str, path: str, wanted: str) -> Path:
    """Return the path of a weights file; ValueError, which describes the `wanted` file, if there is none."""
    if not path:
        raise ValueError(
            f"the backbone {name} comes without weights: give {wanted} with --config.features.weights=FILE"
        )
    found = Path(path).expanduser()
    if not found.is_file():
        raise ValueError(f"no weights of {name} at {found}: give {wanted}")
    return found
