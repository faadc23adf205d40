"""Describe a detector in plain values, for an export's config.json, and rebuild it from an export."""

import math
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from mim_jax.data import weight_files
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy import arrays, format
from mim_jax.detector import CombinedDetector, Detector
from mim_jax.features import backbones, saved
from mim_jax.features.backbone import Backbone
from mim_jax.features.detector import FeatureDetector, histograms
from mim_jax.features.one_class import Units
from mim_jax.inpaint.inference import abstract_patch, abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure


def describe(detector: NoveltyDetector) -> dict[str, Any]:
    """Describe a detector in plain values, for `build` and for people.

    Raises:
      ValueError: the detector is of a kind that cannot be exported, has no folds, has weights or a threshold
        that are not finite, or a `model` that does not describe its generator.
    """
    match detector:
        case Detector():
            kind, described = "mim", _describe_mim(detector)
        case FeatureDetector():
            kind, described = "features", _describe_features(detector)
        case CombinedDetector():
            kind = "combined"
            described = _describe_mim(detector.mim) | _describe_features(detector.features)
        case _:
            raise ValueError(
                f"a {type(detector).__name__} cannot be exported: load a workdir's detector with mim_jax.load"
            )
    threshold = detector.threshold
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold must be finite, or None if not calibrated, got {threshold}")
    return {
        "kind": kind,
        "metrics": list(detector.metrics),
        "folds": detector.folds,
        **described,
        "threshold": None if threshold is None else float(threshold),
        "origin": detector.threshold_origin,
        "calibration": asdict(detector.calibration) if detector.calibration else None,
        "notice": detector.notice,
    }


def build(found: format.ExportContents) -> Detector | FeatureDetector | CombinedDetector:
    """Build the detector of an export from its arrays, without scoring its golden images.

    Raises:
      ValueError: the arrays do not fit the networks in config.json, or a network has no name in this package
        to build it by.
    """
    decides: dict[str, Any] = {
        "threshold": found.threshold,
        "threshold_origin": found.origin,
        "calibration": found.calibration,
        "notice": found.notice,
    }
    if found.kind == "mim":
        return _build_mim(found, found.arrays, **decides)
    if found.kind == "features":
        return _build_features(found, found.arrays, **decides)
    mim = _build_mim(found, arrays.under(found.arrays, "mim/"))
    features = _build_features(found, arrays.under(found.arrays, "features/"))
    with format.faults_named(found.root / format.CONFIG):
        units = Units(*(jnp.asarray(found.arrays[f"units/{name}"]) for name in Units._fields))
        return CombinedDetector(mim, features, units, **decides)


def _describe_mim(detector: Detector) -> dict[str, Any]:
    model = detector.model
    lacking = [name for name in ("generator", "options", "image_size", "mask_size") if name not in model]
    if lacking:
        raise ValueError(
            f"the detector's `model` lacks {', '.join(lacking)}: load the detector with Detector.load"
        )
    sizes, said = (detector.image_size, detector.mask_size), (model["image_size"], model["mask_size"])
    if sizes != said:
        raise ValueError(
            f"the detector's image and mask sizes are {sizes}, but its `model` says {said}: make them agree"
        )
    if not detector.variables:
        raise ValueError("the detector has no folds (empty `variables`): load it with Detector.load")
    _check_finite(list(detector.variables), "the detector's weights are not all finite: train it again")
    return {"model": dict(model), "measure": asdict(detector.measure)}


def _describe_features(detector: FeatureDetector) -> dict[str, Any]:
    backbone = detector.backbone
    _check_finite(backbone.weights, f"the weights of {backbone.name} are not all finite: load it again")
    _check_finite(dict(detector.references), "the detector's reference data are not all finite: fit it again")
    described = saved.describe_backbone(backbone)
    return {"features": {**described, "source": backbone.source, "metric": detector.metric}}


def _check_finite(tree: Any, sentence: str) -> None:
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree)):
        raise ValueError(f"{sentence}, or use another")


def _build_mim(found: format.ExportContents, named: dict[str, np.ndarray], **decides: Any) -> Detector:
    size, where = found.model["image_size"], found.root / format.CONFIG
    with format.faults_named(where):
        measure = Measure(**found.measure)
        generator = make_generator(found.model["generator"], found.model["options"], dtype=jnp.float32)
        wanted = abstract_variables(generator, size)
        painted = abstract_patch(generator, size)
        found_folds = unflatten_dict(named, sep="/")
        # A network that has no statistics has no arrays of them.
        folds = [{"params": {}, "batch_stats": {}} | found_folds[k] for k in sorted(found_folds, key=int)]
    _check_weights(named, [wanted] * len(folds))
    if painted != (1, found.mask_size, found.mask_size, 3):
        raise ValueError(
            f"{where} says mask_size={found.mask_size}, but its network fills in "
            f"{list(painted)}: fetch it again"
        )
    folds = jax.tree.map(jnp.asarray, folds)
    return Detector(generator, folds, size, found.mask_size, measure=measure, model=found.model, **decides)


def _build_features(
    found: format.ExportContents, named: dict[str, np.ndarray], **decides: Any
) -> FeatureDetector:
    about = found.features
    name, size = about["backbone"], about["image_size"]
    try:
        apply = backbones.named(name).apply
    except ValueError as error:
        raise ValueError(
            f"{found.root} holds a network {name!r}, which this mim_jax cannot build: run its compiled "
            "program with mim_jax.load_exported"
        ) from error
    weights = jax.tree.map(jnp.asarray, unflatten_dict(arrays.under(named, "backbone/"), sep="/"))
    references = saved.unflatten(jax.tree.map(jnp.asarray, arrays.under(named, "references/")))
    backbone = Backbone(name, apply, size, weights, about["digest"], about["source"])
    with format.faults_named(found.root / format.WEIGHTS):
        detector = FeatureDetector(backbone, references, about["metric"], **decides)
        one = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
        for component, reference in references.items():
            given = jax.eval_shape(lambda image, of=component: histograms(backbone, image, of), one)
            for layer in sorted(given.keys() | reference.gallery.keys()):
                own, known = (np.shape(each.get(layer, 0))[1:] for each in (given, reference.gallery))
                if own != known:
                    raise ValueError(
                        f"the network {name} gives {list(own)} channels for {layer}, but the reference "
                        f"data have {list(known)}"
                    )
    if detector.folds != found.folds:
        raise ValueError(
            f"{found.root / format.WEIGHTS} holds {detector.folds} folds of features, expected "
            f"{found.folds} as {format.CONFIG} says: fetch it again"
        )
    return detector


def _check_weights(named: dict[str, np.ndarray], wanted: list[Any]) -> None:
    """Raise ValueError unless the arrays are those of `wanted`, a tree of shapes and dtypes for each fold."""
    found = {name: (array.shape, array.dtype) for name, array in named.items()}
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in weight_files.flatten_arrays(wanted).items()}
    differ = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if differ:
        raise ValueError(
            f"fold {differ[0].partition('/')[0]} does not fit the network of {format.CONFIG}: {differ[0]} is "
            f"{found.get(differ[0])}, expected {expected.get(differ[0])}"
        )
