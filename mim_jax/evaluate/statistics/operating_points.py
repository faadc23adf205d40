"""Average precision, sensitivity at a given specificity, and specificity at a given sensitivity.

The thresholds are read off the ROC curve of the evaluated images themselves, so these numbers are only
descriptive. Decision thresholds come from `mim_jax.decide`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import Resamples, checked

LEVELS = (0.8, 0.9, 0.95)  # given levels of specificity or sensitivity


class OperatingPoints(NamedTuple):
    """Average precision and operating points, float64 arrays of the same leading shape.

    average_precision: `[...]`: the mean over the positives of the precision at their scores, as
      scikit-learn's `average_precision_score`. Its chance level is the share of positives among the images.
    sensitivity_at_specificity: `[..., levels]`: the largest sensitivity of any threshold (score >=
      threshold) whose specificity is at least the level; 0 if there is none.
    specificity_at_sensitivity: `[..., levels]`: the largest specificity of any threshold whose sensitivity
      is at least the level.
    """

    average_precision: np.ndarray
    sensitivity_at_specificity: np.ndarray
    specificity_at_sensitivity: np.ndarray


def operating_points(scores: np.ndarray, positive: np.ndarray) -> OperatingPoints:
    """The operating points of one set of scores, with no leading shape; errors as `auroc`."""
    scores, positive = checked(scores, positive)
    positives, negatives = np.array([np.sum(positive)]), np.array([np.sum(~positive)])
    # All images of a side form one group, drawn once.
    true, false = _counts_above(scores, positive, np.zeros(positives, int), np.zeros(negatives, int))
    found = _read(true, false, positives, negatives)
    return OperatingPoints(*(array[0] for array in found))


def resampled_operating_points(
    folds: Sequence[ScoredImages], metric: str, draws: Resamples
) -> OperatingPoints:
    """The operating points of every fold in every resample: leading shape `[folds, resamples]`.

    Only thresholds at the score of a positive can be optimal. For each of these T distinct thresholds, the
    images of each group at or above it are counted once, `[groups, T]`; multiplied by how often each group
    was drawn, they give a resample's counts: whole numbers, exact in float32 up to 16 million images.
    """
    found = []
    for fold, positive_draws, draws_of_others in zip(folds, draws.positive, draws.negative, strict=True):
        scores, positive = checked(fold.similarities[metric], fold.positive)
        own = np.unique(fold.groups[positive], return_inverse=True)[1]
        other = np.unique(fold.groups[~positive], return_inverse=True)[1]
        true, false = _counts_above(scores, positive, own, other)
        positives = positive_draws @ np.bincount(own).astype(np.float32)
        negatives = draws_of_others @ np.bincount(other).astype(np.float32)
        found.append(_read(positive_draws @ true, draws_of_others @ false, positives, negatives))
    return OperatingPoints(*(np.stack(arrays) for arrays in zip(*found, strict=True)))


def _counts_above(
    scores: np.ndarray, positive: np.ndarray, own: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count each group's images at or above each distinct score of a positive, highest score first.

    `own` and `other` are the groups of positives and negatives, numbered from 0. Returns float32
    `[positive groups, T]` and `[negative groups, T]`.
    """
    ascending = np.unique(scores[positive])
    counts = []
    for values, group in ((scores[positive], own), (scores[~positive], other)):
        # The first of the descending thresholds that a score reaches; one past the last if it reaches none.
        first = len(ascending) - np.searchsorted(ascending, values, side="right")
        cells = (int(np.max(group)) + 1, len(ascending) + 1)
        reached = np.bincount(group * cells[1] + first, minlength=cells[0] * cells[1]).reshape(cells)
        counts.append(np.cumsum(reached[:, :-1], axis=1).astype(np.float32))
    return counts[0], counts[1]


def _read(
    true: np.ndarray, false: np.ndarray, positives: np.ndarray, negatives: np.ndarray
) -> OperatingPoints:
    """Operating points `[r, ...]` from cumulative counts `[r, T]` at or above descending thresholds."""
    true, false = true.astype(np.float64), false.astype(np.float64)
    sensitivity = true / positives.astype(np.float64)[:, None]
    specificity = 1 - false / negatives.astype(np.float64)[:, None]
    # Sum over thresholds of precision times gain in recall. If nothing is drawn, the gain is 0.
    precision = true / np.maximum(true + false, 1)
    average = np.sum(precision * np.diff(sensitivity, axis=1, prepend=0), axis=1)
    # No tolerance needed: 4 / 5 and 1 - 1 / 5 are exactly the float64 0.8.
    held = [np.sum(specificity >= level, axis=1) for level in LEVELS]
    missed = [np.sum(sensitivity < level, axis=1) for level in LEVELS]
    padded = np.concatenate([np.zeros((len(true), 1)), sensitivity], axis=1)
    rows = np.arange(len(true))
    return OperatingPoints(
        average,
        np.stack([padded[rows, count] for count in held], axis=1),
        np.stack([specificity[rows, count] for count in missed], axis=1),
    )
