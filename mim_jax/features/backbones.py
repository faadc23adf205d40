"""Registry of backbones by name: how to load each, and its function for weights already loaded."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from mim_jax.features import dinov2, open_nsfw, torchvision
from mim_jax.features.backbone import Apply, Backbone


class Named(NamedTuple):
    """Registry entry of a backbone."""

    load: Callable[[str], Backbone]  # takes the path of its weights file
    apply: Apply


BACKBONES = {
    open_nsfw.NAME: Named(open_nsfw.load, open_nsfw.features),
    **{
        name: Named(partial(torchvision.load, name), torchvision.apply_of(name))
        for name in ("resnet50", "mobilenet_v3_large", "swin_b")
    },
    dinov2.NAME: Named(dinov2.load, dinov2.features),
}


def named(name: str) -> Named:
    """Look up one of `BACKBONES`; ValueError for an unknown name."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def load_backbone(name: str, weights: str = "") -> Backbone:
    """Load a backbone by name, with weights from a file.

    Args:
      name: one of `BACKBONES`.
      weights: path of the weights file; "" only for backbones whose weights come with a package.

    Raises:
      ValueError: an unknown name; weights that are missing, of another network, truncated or not finite.
    """
    backbone = named(name).load(weights)
    for path, leaf in jax.tree_util.tree_leaves_with_path(backbone.weights):
        if not np.all(np.isfinite(np.asarray(leaf))):
            where = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"the weights of {name} are not finite, first in {where}: fetch the file again")
    return backbone
