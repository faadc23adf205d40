"""How much an evaluation computes, and a word where that is much for a CPU: before hours are spent."""

import jax

from mim_jax.train.config import Experiment
from mim_jax.train.mim import mim_settings

_COPIES = 5  # of a test image of the positive class, by augmentation
_ROBUSTNESS = 46  # scores of an image by each model, on the sheet
# Fills times pixels times width squared, which the products of a network grow with. A run of 36,104 fills at
# 96 pixels and width 16 has 8.5e10 and scores in a minute on two cores: this is a quarter of an hour.
MUCH = 1e12


def count_fills(experiment: Experiment) -> int:
    """Return how many holes the networks of a run fill to be evaluated, the clinical test left out."""
    settings, dataset = experiment.settings, experiment.dataset
    options, measure, folds = settings.evaluation, mim_settings(settings).measure, settings.data.folds
    tested = _COPIES * len(dataset.positives) + folds * len(dataset.tested_negatives)
    networks = 3 if settings.training.autoencoder else 2  # trained, untrained and without adversary
    several = options.more_holes if options.more_holes > 1 else 0
    sheet = min(options.robustness_images * folds, len(dataset.positives))
    sheet += folds * min(options.robustness_images, len(dataset.tested_negatives))
    return tested * (measure.holes * networks + several) + _ROBUSTNESS * sheet


def advice(experiment: Experiment) -> str | None:
    """Return what makes an evaluation shorter, in a sentence; None where it is short, or on a GPU."""
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
        f"the evaluation will fill {fills:,} holes in images of {size} pixels, which takes a CPU long; "
        f"shorter with {', '.join([*names, 'a GPU'])}"
    )
