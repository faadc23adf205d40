"""Backbones: frozen networks as pure functions of an image, loaded from files that are data.

A backbone gives one map of features a layer. Its weights come from a file of arrays (safetensors, or the
initialisers of an ONNX graph), never from a pickle, and its digest says which.
"""

import hashlib
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
      name: one of `mim_jax.features.backbones.BACKBONES`, or a name of your own.
      apply: `(weights, images) -> {layer: features}`, pure: images are float32 `[B, S, S, 3]` in [0, 1],
        RGB, features `[B, H, W, C]` with H * W > 1. An image's features must not depend on the others.
      image_size: pixels a side of the images it takes.
      weights: a tree of arrays.
      digest: SHA-256 (hex) of the file that the weights came from; "" for a function of your own.
      source: a sentence for people: what the network was trained on, and by whom.
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
    """Path of the file with the weights of the backbone `name`; `wanted` says which file that is.

    Raises:
      ValueError: none is named, or there is no such file.
    """
    if not path:
        raise ValueError(
            f"the backbone {name} comes without weights: name {wanted} with --config.features.weights=FILE"
        )
    found = Path(path).expanduser()
    if not found.is_file():
        raise ValueError(f"the weights of {name} are not at {found}: name {wanted}")
    return found


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
