"""The backbones that have a name: how each is loaded, and its function for weights that are at hand."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from mim_jax.features import dinov2, open_nsfw, torchvision
from mim_jax.features.backbone import Apply, Backbone


class Named(NamedTuple):
    """A backbone that has a name."""

    load: Callable[[str], Backbone]  # from the file of its weights
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
    """One of `BACKBONES`; another name is a ValueError."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def load_backbone(name: str, weights: str = "") -> Backbone:
    """Load a backbone by name, its weights from a file.

    Args:
      name: one of `BACKBONES`.
      weights: the file; "" only for those whose weights come with a package.

    Raises:
      ValueError: an unknown name; weights that are absent, of another network, cut short or not finite.
    """
    backbone = named(name).load(weights)
    for path, leaf in jax.tree_util.tree_leaves_with_path(backbone.weights):
        if not np.all(np.isfinite(np.asarray(leaf))):
            where = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"the weights of {name} are not all finite, {where} first: fetch the file again")
    return backbone
