"""Frozen-network scores of the test images: reported beside MIM's, or used as the deciding score."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from mim_jax.data.batches import batch_size, collect, in_pieces, padded_batches
from mim_jax.detector import CombinedDetector, Detector
from mim_jax.detector.combined import join_scores
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.test_set import TestSet
from mim_jax.features.backbone import Backbone
from mim_jax.features.backbones import load_backbone
from mim_jax.features.cache import described
from mim_jax.features.detector import (
    COLOR,
    FEATURES,
    FeatureDetector,
    describe_images,
    fit_detector,
    with_join,
)
from mim_jax.features.histograms import feature_hbd
from mim_jax.features.one_class import Histograms, Reference, Units, score, units_of
from mim_jax.train.config import Experiment
from mim_jax.train.images import prepared_folder
from mim_jax.train.metric_writer import Recorder
from mim_jax.train.settings import FeatureSettings

COMBINED = "combined"


def score_features(
    experiment: Experiment, own: FeatureSettings, test_set: TestSet, recorder: Recorder
) -> tuple[FeatureDetector, list[dict[str, np.ndarray]]]:
    """Fit the frozen network's scores on each fold's training images, and score the fold's test images.

    Returns the detector of all folds; for each fold, score name -> float64, one score per test image.
    ValueError if weights are unusable, the backbone takes another image size, or training images are too few.
    """
    settings, dataset = experiment.settings, experiment.dataset
    backbone = checked_backbone(own)
    images = test_set.images if test_set.large is None else test_set.large
    recorder.start("features", total=len(images))
    folder = _cache(settings.data.data_dir)
    found = {FEATURES: described(backbone, images, folder=folder, progress=recorder.advance)}
    recorder.finish()
    found |= describe_images(backbone, images, (COLOR,))
    # The unaugmented images of the training class, in the order of the dataset.
    original = np.flatnonzero(test_set.table.positive & (test_set.table.copies == 0))
    known = original[np.argsort(test_set.index[original])]
    detector = fit_detector(
        backbone,
        images[known],
        groups=dataset.groups[dataset.positives],
        training=[np.searchsorted(dataset.positives, split.train) for split in experiment.splits],
        color=True,
        kinds=own.kinds,
        seed=settings.seed,
        described={name: {k: v[known] for k, v in layers.items()} for name, layers in found.items()},
    )
    scores = _score(detector.references, found)
    return detector, [
        {name: values[fold, part] for name, values in scores.items()}
        for fold, part in enumerate(test_set.parts)
    ]


def checked_backbone(settings: FeatureSettings) -> Backbone:
    """Load the configured frozen network; ValueError if its image size is not the configured one."""
    backbone = load_backbone(settings.backbone, settings.weights)
    if backbone.image_size != settings.image_size:
        raise ValueError(
            f"{backbone.name} takes images of {backbone.image_size} pixels a side, and "
            f"config.features.image_size is {settings.image_size}: set it to {backbone.image_size}"
        )
    return backbone


def score_inpaintings(
    backbone: Backbone, test_set: TestSet, models: Sequence[Detector], recorder: Recorder
) -> list[ScoredImages]:
    """Compare each fold's test images with their inpaintings in frozen-network features (`feature_hbd`)."""
    recorder.start("features of inpaintings", total=sum(map(len, test_set.parts)))
    program = jax.jit(lambda weights, x, y: feature_hbd(replace(backbone, weights=weights), x, y))

    def compare(model: Detector, batch: jax.Array) -> jax.Array:
        return program(backbone.weights, batch, model.inpaint(batch))

    def score(model: Detector, images: np.ndarray) -> np.ndarray:
        batches = padded_batches(images, size=images.shape[1])
        return collect(functools.partial(compare, model), batches)

    found = [
        {"score": in_pieces(functools.partial(score, model), test_set.images[part], recorder.advance)}
        for part, model in zip(test_set.parts, models, strict=True)
    ]
    recorder.finish()
    return test_set.scored(found)


def combine(
    features: FeatureDetector,
    scores: Sequence[Mapping[str, np.ndarray]],
    experiment: Experiment,
    models: Sequence[Detector],
    mim: Sequence[ScoredImages],
) -> tuple[list[CombinedDetector], list[ScoredImages]]:
    """Combine each fold's MIM, whose scored test images are `mim`, with the frozen network and colours.

    `scores` are those of the network and colours by fold. Returns the combined detector of each fold, and its
    test images with the combined score.
    """
    detectors, joined = [], []
    for fold, (model, images) in enumerate(zip(models, mim, strict=True)):
        # Standardised on MIM's own training images: held-out ones would need another training.
        own = model.score_samples(experiment.dataset.images[experiment.splits[fold].train])
        units = units_of([own[None]])
        detector = CombinedDetector(model, features.of_fold(fold), Units(*(u[:, 0] for u in units)))
        combined = join_scores(images.similarities[model.metric], detector.units, scores[fold])
        joined.append(replace(images, similarities={COMBINED: combined}))
        detectors.append(detector)
    return detectors, joined


def _score(
    references: Mapping[str, Reference], histograms: Mapping[str, Histograms]
) -> dict[str, np.ndarray]:
    """Score images by every fold, given their histograms: name -> `[folds, n]`; equal batch sizes."""
    size, program = batch_size(), jax.jit(score)
    found: dict[str, np.ndarray] = {}
    for name, reference in references.items():
        parts, count = [], len(next(iter(histograms[name].values())))
        for start in range(0, count, size):
            taken = np.minimum(np.arange(start, start + size), count - 1)  # the last image fills its batch
            batch = {layer: rows[taken] for layer, rows in histograms[name].items()}
            parts.append(np.asarray(program(reference, batch), np.float64))
        found[name] = np.concatenate(parts, axis=1)[:, :count]
    return with_join(found)


def _cache(data_dir: str) -> Path | None:
    try:
        return prepared_folder(data_dir) / "features"
    except ValueError:  # the user has no home directory: nothing is cached
        return None
