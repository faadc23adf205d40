"""The test set: every tested image once, and the positions that each fold tests."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mim_jax.data import augment
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Split
from mim_jax.data.resize import reduce
from mim_jax.evaluate.robustness.conditions import GroupedImages
from mim_jax.evaluate.scores import ScoredImages


@dataclass(frozen=True, eq=False)
class TestSet:
    """The test images of all folds with their augmented copies. Arrays of length n."""

    images: np.ndarray  # uint8 `[n, S, S, 3]`
    large: np.ndarray | None  # the same at the size of a frozen network; None = no other size is needed
    index: np.ndarray  # position in the dataset
    copy: np.ndarray  # 0 = original, 1, 2, ... = augmented copies.
    augmented: np.ndarray  # bool, True = in the augmented test sets
    plain: np.ndarray  # bool, True = in the plain test sets


def make_test_set(dataset: Dataset, *, mode: str, seed: int) -> TestSet:
    """Make the test set: positives, five copies each (`augment.augment_test`), then the tested negatives."""
    positives, negatives = dataset.positives, dataset.tested_negatives
    whole = dataset.images if dataset.large is None else dataset.large
    copies, origin, number = augment.augment_test(whole[positives], mode=mode, seed=seed)
    # The random mode has no unaugmented original among its five copies: add it, for the plain table only.
    apart = positives if not np.any(number == 0) else positives[:0]
    images = np.concatenate((copies, whole[apart], whole[negatives]))
    copy = np.concatenate((number, np.zeros(len(apart) + len(negatives), int)))
    augmented = np.ones(len(images), bool)
    augmented[len(copies) : len(copies) + len(apart)] = False
    small = images if dataset.large is None else reduce(images, dataset.images.shape[1])
    large = None if dataset.large is None else images
    return TestSet(
        small, large, np.concatenate((positives[origin], apart, negatives)), copy, augmented, copy == 0
    )


def tested(test_set: TestSet, dataset: Dataset, split: Split) -> np.ndarray:
    """Positions in the test set of the images that a fold is tested on: its positives and all negatives."""
    positive = dataset.labels[test_set.index] == dataset.positive
    return np.flatnonzero(~positive | np.isin(test_set.index, split.test))


def scored_images(
    dataset: Dataset, test_set: TestSet, part: np.ndarray, scores: Mapping[str, np.ndarray]
) -> ScoredImages:
    """Table of the images at positions `part` of the test set with their scores, metric -> `[len(part)]`."""
    index = test_set.index[part]
    return ScoredImages(
        names=dataset.names[index],
        classes=dataset.labels[index],
        groups=dataset.groups[index],
        copies=test_set.copy[part],
        positive=dataset.labels[index] == dataset.positive,
        augmented=test_set.augmented[part],
        plain=test_set.plain[part],
        similarities=dict(scores),
    )


def grouped(dataset: Dataset, index: np.ndarray, *, size: int) -> GroupedImages:
    """Images at positions `index` of the dataset, `size` pixels wide, with their groups."""
    large = dataset.large
    images = dataset.images if large is None or dataset.images.shape[1] == size else large
    return GroupedImages(images[index], dataset.groups[index])
