"""How much an evaluation computes, and a word where that is much for a CPU: before hours are spent."""

from collections.abc import Mapping
from typing import Any

import jax

from mim_jax.data.datasets import Dataset

_COPIES = 5  # of a test image of the positive class, by augmentation
_ROBUSTNESS = 46  # scores of an image by each model, on the sheet
# Fills times pixels times width squared, which the products of a network grow with. A run of 36,104 fills at
# 96 pixels and width 16 has 8.5e10 and scores in a minute on two cores: this is a quarter of an hour.
MUCH = 1e12


def count_fills(config: Mapping[str, Any], dataset: Dataset) -> int:
    """Return how many holes the networks of a run fill to be evaluated, the clinical test left out."""
    settings, folds = config["evaluation"], config["data"]["folds"]
    tested = _COPIES * len(dataset.positives) + folds * len(dataset.tested_negatives)
    networks = 3 if config["training"]["autoencoder"] else 2  # trained, untrained and without adversary
    several = settings["more_holes"] if settings["more_holes"] > 1 else 0
    region = settings["region"] == "image"
    sheet = min(settings["robustness_images"] * folds, len(dataset.positives))
    sheet += folds * min(settings["robustness_images"], len(dataset.tested_negatives))
    return tested * (settings["holes"] * (networks + region) + several) + _ROBUSTNESS * sheet


def advice(config: Mapping[str, Any], dataset: Dataset) -> str | None:
    """Return what makes an evaluation shorter, in a sentence; None where it is short, or on a GPU."""
    if jax.default_backend() != "cpu":
        return None
    fills, size = count_fills(config, dataset), config["data"]["image_size"]
    if fills * size**2 * config["generator"]["width"] ** 2 < MUCH:
        return None
    settings = config["evaluation"]
    shorter = {
        "evaluation.more_holes=1": settings["more_holes"] > 1,
        "evaluation.robustness_images=0": settings["robustness_images"] > 0,
        "training.autoencoder=False": config["training"]["autoencoder"],
    }
    options = [f"--config.{option}" for option, possible in shorter.items() if possible]
    return (
        f"the evaluation will fill {fills:,} holes in images of {size} pixels, which takes a CPU long; "
        f"shorter with {', '.join([*options, 'a GPU'])}"
    )
