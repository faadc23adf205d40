"""Every image that is ever tested, once, and which fold tests which."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mim_jax.data import augment
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Fold
from mim_jax.evaluate.robustness.conditions import GroupedImages
from mim_jax.evaluate.scores import ScoredImages


@dataclass(frozen=True, eq=False)
class Bank:
    """The test images of all folds with their augmented copies. Arrays of length n.

    Attributes:
      images: uint8 `[n, S, S, 3]`.
      index: position in the dataset.
      copy: 0 = untouched, 1, 2, ... = augmented copies.
      augmented: bool, belongs to the augmented test sets.
      plain: bool, belongs to the plain test sets.
    """

    images: np.ndarray
    index: np.ndarray
    copy: np.ndarray
    augmented: np.ndarray
    plain: np.ndarray


def make_bank(dataset: Dataset, *, mode: str, seed: int) -> Bank:
    """Positives with their five copies each (see `augment.augment_test`), then `dataset.tested_negatives`."""
    positives, negatives = dataset.positives, dataset.tested_negatives
    copies, origin, number = augment.augment_test(dataset.images[positives], mode=mode, seed=seed)
    # The random mode has no untouched original among its five: it stands beside them, for the plain
    # table alone.
    apart = positives if not np.any(number == 0) else positives[:0]
    images = np.concatenate((copies, dataset.images[apart], dataset.images[negatives]))
    copy = np.concatenate((number, np.zeros(len(apart) + len(negatives), int)))
    augmented = np.ones(len(images), bool)
    augmented[len(copies) : len(copies) + len(apart)] = False
    return Bank(images, np.concatenate((positives[origin], apart, negatives)), copy, augmented, copy == 0)


def tested(bank: Bank, dataset: Dataset, fold: Fold) -> np.ndarray:
    """Positions in the bank of the images that `fold` is tested on: its own positives, and all negatives."""
    positive = dataset.labels[bank.index] == dataset.positive
    return np.flatnonzero(~positive | np.isin(bank.index, dataset.positives[fold.test]))


def scored_images(
    dataset: Dataset, bank: Bank, part: np.ndarray, scores: Mapping[str, np.ndarray]
) -> ScoredImages:
    """The images at positions `part` of the bank with their scores, metric -> `[len(part)]`."""
    index = bank.index[part]
    return ScoredImages(
        names=dataset.names[index],
        classes=dataset.labels[index],
        groups=dataset.groups[index],
        copies=bank.copy[part],
        positive=dataset.labels[index] == dataset.positive,
        augmented=bank.augmented[part],
        plain=bank.plain[part],
        similarities=dict(scores),
    )


def grouped(dataset: Dataset, index: np.ndarray) -> GroupedImages:
    """The images at these positions in the dataset with their groups."""
    return GroupedImages(dataset.images[index], dataset.groups[index])
