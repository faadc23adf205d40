"""The interval that counts the folds as drawn: its formula, and how often it covers the truth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import draw_groups, fold_half_width, percentile_interval, sample_aurocs


def test_without_shared_variance_it_is_students():
    values = np.array([0.7, 0.75, 0.82, 0.66, 0.71])
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert fold_half_width(values, 0.0) == pytest.approx((high - low) / 2, rel=1e-9)


def test_shared_variance_alone_is_normal_and_one_fold_says_nothing():
    assert fold_half_width(np.full(5, 0.5), 0.01) == pytest.approx(0.1 * stats.norm.ppf(0.975), rel=1e-5)
    assert fold_half_width(np.full(5, 0.5), 0.0) == 0.0
    assert fold_half_width(np.array([0.5]), 0.01) is None
    between, shared = 0.02**2, 0.01**2
    values = 0.5 + 0.02 * np.array([-1, 1]) * np.sqrt(0.5) * np.sqrt(2)
    freedom = (between + shared) ** 2 / between**2
    assert fold_half_width(values, shared) == pytest.approx(
        stats.t.ppf(0.975, freedom) * np.sqrt(between + shared), rel=1e-9
    )


def test_percentile_intervals():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))


def test_what_the_folds_share_is_the_variance_of_their_mean_over_the_negatives():
    folds = [
        replace(fold, groups=np.char.replace(fold.groups, "n1", "n2"))  # some groups of two negatives
        for fold in simulated(np.random.default_rng(5), folds=3, spread=0.2)
    ]
    samples = sample_aurocs(folds, "ssim", draw_groups(folds, resamples=2, seed=0))
    negative, values = ~folds[0].positive, samples.values
    wins = [
        fold.similarities["ssim"][fold.positive][:, None] > fold.similarities["ssim"][negative]
        for fold in folds
    ]
    # The folds' mean is the mean over the negatives of what each wins on average; groups are independent.
    centred = np.mean([each.mean(axis=0) for each in wins], axis=0) - np.mean(values)
    groups = folds[0].groups[negative]
    sums = [centred[groups == group].sum() for group in np.unique(groups)]
    assert 60 < len(sums) < 80
    shared = len(sums) / (len(sums) - 1) * np.sum(np.square(sums)) / np.sum(negative) ** 2
    estimate = samples.mean_over_drawn_folds(least=0.0, most=1.0)
    assert estimate is not None
    half = fold_half_width(values, shared)
    assert estimate == pytest.approx((np.mean(values), np.mean(values) - half, np.mean(values) + half))


def simulated(generator: np.random.Generator, *, folds: int, spread: float) -> list[ScoredImages]:
    """Folds whose models separate the classes by 1 +- spread: own positives, the same negatives."""
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


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_coverage_of_the_mean_over_folds_is_about_nominal(spread):
    generator = np.random.default_rng(int(10 * spread))
    # A gap that is itself normal widens the difference of two scores: AUROC = Phi(1 / sqrt(2 + spread^2)).
    # 2,000 runs had a coverage of 0.953 at spread 0, 0.960 at 0.15, 0.947 at 0.3 and 0.926 at 0.6, where the
    # folds' AUROCs have a standard deviation of 0.13 and are skewed.
    truth = stats.norm.cdf(1 / np.sqrt(2 + spread**2))
    runs, fixed, drawn = 300, 0, 0
    for run in range(runs):
        folds = simulated(generator, folds=5, spread=spread)
        samples = sample_aurocs(folds, "ssim", draw_groups(folds, resamples=200, seed=run))
        _, low, high = samples.mean()
        fixed += low <= truth <= high
        estimate = samples.mean_over_drawn_folds(least=0.0, most=1.0)
        assert estimate is not None and estimate.low <= low <= high <= estimate.high
        drawn += estimate.low <= truth <= estimate.high
    assert 0.92 <= drawn / runs <= 0.985
    if spread:
        # Models that vary are what the interval of given models leaves out.
        assert fixed / runs < 0.88
