"""The test set: every tested image once, and the positions that each fold tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
    table: ScoredImages  # the images, without scores
    parts: list[np.ndarray]  # for each fold, the positions of its test images: its positives, all negatives

    def scored(self, by_fold: Iterable[Mapping[str, np.ndarray]]) -> list[ScoredImages]:
        """Table of each fold's test images with their scores, metric -> one score per image."""
        return [
            replace(self.table.select(part), similarities=dict(scores))
            for part, scores in zip(self.parts, by_fold, strict=True)
        ]


def make_test_set(dataset: Dataset, splits: Sequence[Split], *, mode: str, seed: int) -> TestSet:
    """Make the test set: positives, five copies each (`augment.augment_test`), then the tested negatives."""
    positives, negatives = dataset.positives, dataset.tested_negatives
    whole = dataset.images if dataset.large is None else dataset.large
    copies, origin, number = augment.augment_test(whole[positives], mode=mode, seed=seed)
    # The random mode has no unaugmented original among its five copies: add it, for the plain table only.
    apart = positives if not np.any(number == 0) else positives[:0]
    images = np.concatenate((copies, whole[apart], whole[negatives]))
    index = np.concatenate((positives[origin], apart, negatives))
    copy = np.concatenate((number, np.zeros(len(apart) + len(negatives), int)))
    augmented = np.ones(len(images), bool)
    augmented[len(copies) : len(copies) + len(apart)] = False
    positive = dataset.labels[index] == dataset.positive
    table = ScoredImages(
        names=dataset.names[index],
        classes=dataset.labels[index],
        groups=dataset.groups[index],
        copies=copy,
        positive=positive,
        augmented=augmented,
        plain=copy == 0,
        similarities={},
    )
    parts = [np.flatnonzero(~positive | np.isin(index, split.test)) for split in splits]
    if dataset.large is None:
        return TestSet(images, None, index, table, parts)
    return TestSet(reduce(images, dataset.images.shape[1]), images, index, table, parts)


def grouped(dataset: Dataset, index: np.ndarray, *, size: int) -> GroupedImages:
    """Images at positions `index` of the dataset, `size` pixels wide, with their groups."""
    large = dataset.large
    images = dataset.images if large is None or dataset.images.shape[1] == size else large
    return GroupedImages(images[index], dataset.groups[index])
