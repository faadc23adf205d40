"""Invented folds of scored images for the tests of the statistics."""

import numpy as np

from mim_jax.evaluate.scores import ScoredImages


def scored(
    seed: int,
    *,
    positives: int = 12,
    negatives: int = 40,
    copies: int = 1,
    negatives_a_group: int = 1,
    gap: float = 1.0,
    decimals: int = 1,
) -> ScoredImages:
    """One fold of normal scores, rounded so that many tie; `copies` of each positive share its group."""
    generator = np.random.default_rng(seed)
    base = np.repeat(generator.normal(gap, 1, positives), copies)
    count = positives * copies
    total = count + negatives
    origin = np.repeat(np.arange(positives), copies)
    copy = np.concatenate([np.tile(np.arange(copies), positives), np.zeros(negatives, int)])
    noise = generator.normal(0, 0.3, count) * (copy[:count] > 0)
    other = generator.normal(0, 1, negatives)
    scores = np.round(np.concatenate([base + noise, other]), decimals)
    return ScoredImages(
        names=np.array([f"mpox/{seed}-{i}" for i in range(count)] + [f"other/{i}" for i in range(negatives)]),
        classes=np.array(
            ["mpox"] * count + [("eczema", "measles", "nevus")[i % 3] for i in range(negatives)]
        ),
        groups=np.array(
            [f"p{seed}-{i}" for i in origin] + [f"n{i // negatives_a_group}" for i in range(negatives)]
        ),
        copies=copy,
        positive=np.arange(total) < count,
        augmented=np.ones(total, bool),
        plain=copy == 0,
        similarities={"ssim_hbd": scores, "mae": scores**3 + np.round(generator.normal(0, 1, total), 1)},
    )


def simulated(generator: np.random.Generator, *, folds: int, spread: float) -> list[ScoredImages]:
    """Folds whose models separate the classes by 1 +- spread; own positives, but the same negatives."""
    positives, negatives = 25, 80
    positive = np.arange(positives + negatives) < positives
    shared = generator.normal(0, 1, negatives)
    result = []
    for fold in range(folds):
        gap = generator.normal(1, spread)
        noise = generator.normal(0, 1, negatives)
        scores = np.concatenate(
            [generator.normal(gap, 1, positives), np.sqrt(0.8) * shared + np.sqrt(0.2) * noise]
        )
        groups = [f"p{fold}-{i}" for i in range(positives)] + [f"n{i}" for i in range(negatives)]
        result.append(
            ScoredImages(
                names=np.array(groups),
                classes=np.where(positive, "mpox", "other"),
                groups=np.array(groups),
                copies=np.zeros(len(groups), int),
                positive=positive,
                augmented=np.ones(len(groups), bool),
                plain=np.ones(len(groups), bool),
                similarities={"ssim": scores},
            )
        )
    return result
