"""Save and load the reference data of a feature detector as files in a workdir."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from mim_jax.data import weight_files
from mim_jax.features.backbone import Backbone
from mim_jax.features.backbones import load_backbone
from mim_jax.features.detector import FeatureDetector
from mim_jax.features.one_class import Reference, Units
from mim_jax.train import workdir

ARRAYS, ABOUT = "features.safetensors", "features.json"


def save(root: Path, detector: FeatureDetector, *, weights: str) -> None:
    """Write a detector's reference data to a workdir; `weights` is the file with its network's weights."""
    arrays = weight_files.flatten_arrays(detector.references)
    weight_files.save(root / ARRAYS, {name: np.asarray(leaf, np.float32) for name, leaf in arrays.items()})
    about = {"weights": weights, **describe_backbone(detector.backbone), "metric": detector.metric}
    workdir.write_json(root / ABOUT, about, sealed=True)


def load(root: Path, *, fold: int | None = None) -> FeatureDetector:
    """Load the detector of a workdir, all folds or one; it is not calibrated.

    ValueError if nothing was saved, or if the network's weights are not those used for fitting.
    """
    if not (root / ABOUT).exists():
        raise ValueError(
            f"{root} has no {ABOUT}: its features are not fitted yet; finish the run with --mode=run, or "
            "evaluate it with --mode=evaluate and --config.features.backbone=NAME"
        )
    about = workdir.read_json(root / ABOUT)
    backbone = load_backbone(about["backbone"], about["weights"])
    if backbone.digest != about["digest"]:
        raise ValueError(
            f"{root} was fitted with {backbone.name} weights of SHA-256 {about['digest'][:16]}..., but those "
            f"found have {backbone.digest[:16]}...: restore the original weights, or evaluate again"
        )
    loaded = FeatureDetector(backbone, unflatten(weight_files.load(root / ARRAYS)), about["metric"])
    return loaded if fold is None else loaded.of_fold(fold)


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """Describe a detector's network in JSON-compatible values."""
    return {"backbone": backbone.name, "digest": backbone.digest, "image_size": backbone.image_size}


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Reference]:
    """Rebuild references from arrays by name, "features/gallery/pool_1"; ValueError if one is missing."""
    try:
        return {name: _reference(tree) for name, tree in unflatten_dict(arrays, sep="/").items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"the arrays of a feature detector cannot be read ({error!r}): refit it") from error


def _reference(tree: Mapping[str, Any]) -> Reference:
    units, joined = (Units(tree[name]["median"], tree[name]["spread"]) for name in ("units", "joined"))
    return Reference(tree["gallery"], tree["kinds"], units, joined)
