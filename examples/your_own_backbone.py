"""A detector on your own features, given by any function of images; nothing is trained.

    python examples/your_own_backbone.py             # embedded procedural images: they say nothing about mpox
    python examples/your_own_backbone.py /data/skin  # one folder per class, one of them mpox

Here the features are edges at three scales in opponent colours. Replace them by the forward pass of
your own network, and `weights` by its weights.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.dataset import Dataset, from_lesions
from mim_jax.data.folder import from_folder
from mim_jax.data.folds import make_folds
from mim_jax.evaluate.statistics.auroc import auroc
from mim_jax.features.backbone import Backbone
from mim_jax.features.detector import fit_detector

SIZE = 96


def edges(weights: Any, images: jax.Array) -> dict[str, jax.Array]:
    """Compute features by layer, `[B, H, W, C]` each, of images `[B, S, S, 3]` in [0, 1].

    The detector compares the standard deviation of each channel over the image. The features of an
    image must not depend on the other images of its batch.
    """
    x = images @ weights["opponents"]  # lightness, red against green, blue against yellow
    layers = {}
    for scale in range(3):
        down, right = x[:, 1:, :-1] - x[:, :-1, :-1], x[:, :-1, 1:] - x[:, :-1, :-1]
        across, along = x[:, 1:, 1:] - x[:, :-1, :-1], x[:, 1:, :-1] - x[:, :-1, 1:]
        layers[f"edges_{scale}"] = jnp.concatenate((x[:, :-1, :-1], down, right, across, along), axis=-1)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    return layers


def evaluate(dataset: Dataset, *, folds: int = 5) -> list[float]:
    """Compute the AUROC of each fold, for held-out mpox against all other classes."""
    opponents = np.array([[0.33, 0.5, 0.25], [0.33, -0.5, 0.25], [0.34, 0.0, -0.5]], np.float32)
    backbone = Backbone("edges", edges, image_size=SIZE, weights={"opponents": opponents})
    mpox, groups = dataset.images[dataset.positives], dataset.groups[dataset.positives]
    splits = make_folds(groups, folds=folds, seed=0)
    detector = fit_detector(backbone, mpox, groups=groups, training=[each.train for each in splits])
    others = dataset.images[dataset.tested_negatives]
    found = []
    for split in splits:
        one = detector.of_fold(split.index)
        scores = [one.score_samples(mpox[split.test]), one.score_samples(others)]  # high = like mpox
        found.append(auroc(np.concatenate(scores), np.repeat([True, False], [len(each) for each in scores])))
    return found


def load(root: str = "") -> Dataset:
    """Load the images of a folder, or the embedded procedural ones."""
    if root:
        return from_folder(root, size=SIZE, positive="mpox")
    return from_lesions(size=SIZE, positives=60, negatives=180, seed=0)


if __name__ == "__main__":
    images = load(*sys.argv[1:2])
    areas = evaluate(images)
    print(f"{images.source}: AUROC {np.mean(areas):.4f}, by fold {' '.join(f'{each:.4f}' for each in areas)}")
    if len(sys.argv) == 1:
        print("procedural images: this number says nothing about mpox")
