"""Average precision and operating points against scikit-learn, for the images and for every resample."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_curve

from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import draw_groups
from mim_jax.evaluate.statistics.operating_points import LEVELS, operating_points, resampled_operating_points


def fold_of(seed: int, *, positives: int = 20, negatives: int = 50) -> ScoredImages:
    """Rounded scores, many tied; groups have two positives, or one or two negatives."""
    generator = np.random.default_rng(seed)
    total = positives + negatives
    positive = np.arange(total) < positives
    order = generator.permutation(total)
    names = np.concatenate(
        [[f"p{seed}-{i // 2}" for i in range(positives)], [f"n{i % 30}" for i in range(negatives)]]
    )
    return ScoredImages(
        names=np.arange(total).astype(str),
        classes=np.where(positive, "mpox", "other")[order],
        groups=names[order],
        copies=np.zeros(total, int),
        positive=positive[order],
        augmented=np.ones(total, bool),
        plain=np.ones(total, bool),
        similarities={"ssim": np.round(generator.normal(0, 1, total) + positive, 1)[order]},
    )


def expected(scores: np.ndarray, positive: np.ndarray) -> tuple[float, list[float], list[float]]:
    """The values from scikit-learn: the best point of the whole curve at each level."""
    false_rate, true_rate, _ = roc_curve(positive, scores, drop_intermediate=False)
    return (
        average_precision_score(positive, scores),
        [true_rate[1 - false_rate >= level].max() for level in LEVELS],
        [(1 - false_rate)[true_rate >= level].max() for level in LEVELS],
    )


def test_points_are_scikit_learns():
    for seed in range(10):
        fold = fold_of(seed)
        found = operating_points(fold.similarities["ssim"], fold.positive)
        for array, value in zip(found, expected(fold.similarities["ssim"], fold.positive), strict=True):
            np.testing.assert_allclose(array, value, atol=1e-12)


def test_resampled_points_are_those_of_the_images_drawn():
    folds = [fold_of(1), fold_of(2)]
    draws = draw_groups(folds, resamples=50, seed=4)
    found = resampled_operating_points(folds, "ssim", draws)
    assert found.average_precision.shape == (2, 50) and found.sensitivity_at_specificity.shape == (2, 50, 3)
    for index, fold in enumerate(folds):
        for resample in range(50):
            drawn: list[int] = []
            for kind, weights in ((True, draws.positive[index]), (False, draws.negative[index])):
                groups = np.unique(fold.groups[fold.positive == kind])
                for group, times in zip(groups, weights[resample], strict=True):
                    drawn += np.flatnonzero((fold.groups == group) & (fold.positive == kind)).tolist() * int(
                        times
                    )
            want = expected(fold.similarities["ssim"][drawn], fold.positive[drawn])
            for array, value in zip(found, want, strict=True):
                np.testing.assert_allclose(array[index, resample], value, atol=1e-12)


def test_points_of_curves_that_are_known():
    positive = np.arange(10) < 5
    perfect = operating_points(np.arange(10.0)[::-1], positive)
    assert perfect.average_precision == 1
    assert np.all(perfect.sensitivity_at_specificity == 1) and np.all(perfect.specificity_at_sensitivity == 1)
    blind = operating_points(np.zeros(10), positive)
    assert blind.average_precision == 0.5
    assert np.all(blind.sensitivity_at_specificity == 0) and np.all(blind.specificity_at_sensitivity == 0)
    # One of five negatives is above the lowest positive: 80 % of both are exactly reached, 90 % are not.
    scores = np.array([9, 8, 7, 6, 3, 5, 2, 1, 0, -1.0])
    found = operating_points(scores, positive)
    np.testing.assert_allclose(found.sensitivity_at_specificity, [1, 0.8, 0.8])
    np.testing.assert_allclose(found.specificity_at_sensitivity, [1, 0.8, 0.8])
    # The levels allow exactly 4, 2 and 1 errors of 20.
    for index, count in enumerate((4, 2, 1)):
        reached = np.arange(3) <= index
        few = np.where(np.arange(20) < count, 2, 0)
        found = operating_points(np.append(np.ones(20), few), np.arange(40) < 20)
        np.testing.assert_array_equal(found.sensitivity_at_specificity, reached)
        found = operating_points(np.append(-few, -np.ones(20)), np.arange(40) < 20)
        np.testing.assert_array_equal(found.specificity_at_sensitivity, reached)
    with pytest.raises(ValueError, match="10 of 10 images are positive"):
        operating_points(scores, np.ones(10, bool))
