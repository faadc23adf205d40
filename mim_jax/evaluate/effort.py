"""Estimate the cost of an evaluation, and warn in advance if it would take long on a CPU."""

import jax

from mim_jax.train.config import Experiment
from mim_jax.train.mim import mim_settings

_COPIES = 5  # copies of each positive test image, by augmentation
_ROBUSTNESS = 46  # scores per image and model on the robustness sheet
# Fills x pixels x width^2, to which a network's multiplications are proportional. A run with 36,104 fills at
# 96 pixels and width 16 has 8.5e10 and takes a minute on two cores; this limit is a quarter of an hour.
MUCH = 1e12


def count_fills(experiment: Experiment) -> int:
    """Count the holes that a run's networks fill during evaluation, without the clinical test."""
    settings, dataset = experiment.settings, experiment.dataset
    options, measure, folds = settings.evaluation, mim_settings(settings).measure, settings.data.folds
    tested = _COPIES * len(dataset.positives) + folds * len(dataset.tested_negatives)
    networks = 3 if settings.training.autoencoder else 2  # trained, untrained and without adversary
    several = options.more_holes if options.more_holes > 1 else 0
    sheet = min(options.robustness_images * folds, len(dataset.positives))
    sheet += folds * min(options.robustness_images, len(dataset.tested_negatives))
    return tested * (measure.holes * networks + several) + _ROBUSTNESS * sheet


def advice(experiment: Experiment) -> str | None:
    """Return a sentence on how to shorten the evaluation; None if it is short or does not run on a CPU."""
    settings = experiment.settings
    if jax.default_backend() != "cpu" or not settings.mim or settings.detector == "features":
        return None
    fills, size = count_fills(experiment), settings.data.image_size
    if fills * size**2 * settings.mim.generator_options.get("width", 64) ** 2 < MUCH:
        return None
    options = settings.evaluation
    shorter = {
        "evaluation.more_holes=1": options.more_holes > 1,
        "evaluation.robustness_images=0": options.robustness_images > 0,
        "training.autoencoder=False": settings.training.autoencoder,
    }
    names = [f"--config.{option}" for option, possible in shorter.items() if possible]
    return (
        f"the evaluation will fill {fills:,} holes in images of {size} pixels, which takes long on a CPU; "
        f"shorten it with {', '.join([*names, 'a GPU'])}"
    )
