"""AUROC, its bootstrap and the interval over drawn folds: against scikit-learn, DeLong and simulation."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import (
    auroc,
    draw_groups,
    fold_half_width,
    percentile_interval,
    roc,
    sample_aurocs,
    share_estimate,
)
from mim_jax.evaluate.statistics.summary import summarize
from tests.evaluate.delong import delong_variance
from tests.evaluate.invented_folds import scored, simulated


def slow_aurocs(
    fold: ScoredImages, metric: str, positive_draws: np.ndarray, negative_draws: np.ndarray
) -> list[float]:
    """AUROC of every resample, by building the resampled images and asking scikit-learn."""
    result = []
    for positive_weights, negative_weights in zip(positive_draws, negative_draws, strict=True):
        drawn = []
        for positive, weights in ((True, positive_weights), (False, negative_weights)):
            for group, times in zip(np.unique(fold.groups[fold.positive == positive]), weights, strict=True):
                members = np.flatnonzero((fold.groups == group) & (fold.positive == positive))
                drawn += list(members) * int(times)
        result.append(roc_auc_score(fold.positive[drawn], fold.similarities[metric][drawn]))
    return result


def test_auroc_is_scikit_learns_and_the_share_of_pairs_won():
    for seed in range(5):
        fold = scored(seed, positives=20, negatives=30)
        scores, positive = fold.similarities["ssim_hbd"], fold.positive
        difference = scores[positive][:, None] - scores[~positive][None, :]
        assert np.any(difference == 0)
        assert auroc(scores, positive) == pytest.approx(np.mean((np.sign(difference) + 1) / 2), abs=1e-12)
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert auroc(np.array([0.7, 0.7, 0.9, 0.1]), np.array([1, 0, 1, 0])) == 0.875
    assert auroc(np.ones(4), np.array([1, 0, 1, 0])) == 0.5


def test_roc_encloses_the_auroc():
    fold = scored(1)
    false_rate, true_rate = roc(fold.similarities["mae"], fold.positive)
    assert false_rate[0] == true_rate[0] == 0 and false_rate[-1] == true_rate[-1] == 1
    area = np.trapezoid(true_rate, false_rate)
    assert area == pytest.approx(auroc(fold.similarities["mae"], fold.positive), abs=1e-12)


def test_errors_name_what_is_wrong():
    fold = scored(7)
    with pytest.raises(ValueError, match="12 of 12 images are positive"):
        auroc(np.zeros(12), np.ones(12, bool))
    with pytest.raises(ValueError, match="score 1 is inf"):
        auroc(np.array([0.0, np.inf]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        auroc(np.zeros(3), np.array([True, False]))
    with pytest.raises(ValueError, match="fold 1 has no positive"):
        draw_groups([fold, fold.select(~fold.positive)])
    with pytest.raises(ValueError, match="fold 0 has no negative"):
        draw_groups([fold.select(fold.positive)])
    with pytest.raises(ValueError, match="no folds"):
        draw_groups([])


def test_resamples_are_what_slow_resampling_gives():
    folds = [scored(seed, copies=3, negatives_a_group=2) for seed in (1, 2)]
    draws = draw_groups(folds, resamples=60, seed=3)
    samples = sample_aurocs(folds, "ssim_hbd", draws)
    slow = np.array(
        [
            slow_aurocs(fold, "ssim_hbd", draws.positive[index], draws.negative[index])
            for index, fold in enumerate(folds)
        ]
    )
    np.testing.assert_allclose(samples.resampled, slow, atol=1e-12)
    for fold, row, estimate in zip(folds, slow, samples.folds(), strict=True):
        value = roc_auc_score(fold.positive, fold.similarities["ssim_hbd"])
        np.testing.assert_allclose(estimate, (value, *np.percentile(row, [2.5, 97.5])), atol=1e-12)
    np.testing.assert_allclose(samples.mean()[1:], np.percentile(slow.mean(axis=0), [2.5, 97.5]), atol=1e-12)
    # A resample draws as many groups as there are: positives in each fold, negatives once for all folds.
    assert all(np.all(draw.sum(axis=1) == 12) for draw in draws.positive)
    assert draws.negative[0].shape == (60, 20) and np.all(draws.negative[0].sum(axis=1) == 20)
    assert all(draw is draws.negative[0] for draw in draws.negative)


def test_folds_may_test_on_different_negatives_and_share_the_draw_of_those_in_common():
    folds = [scored(seed, copies=3, negatives_a_group=2) for seed in (1, 2)]
    names = [np.unique(fold.groups[~fold.positive]) for fold in folds]
    kept = [own[place:] if place else own[:-3] for place, own in enumerate(names)]
    folds = [f.select(f.positive | np.isin(f.groups, own)) for f, own in zip(folds, kept, strict=True)]
    draws = draw_groups(folds, resamples=60, seed=3)
    fast = sample_aurocs(folds, "ssim_hbd", draws).resampled
    for index, fold in enumerate(folds):
        slow = slow_aurocs(fold, "ssim_hbd", draws.positive[index], draws.negative[index])
        np.testing.assert_allclose(fast[index], slow, atol=1e-12)
    common = [np.isin(own, np.intersect1d(*kept)) for own in kept]
    np.testing.assert_array_equal(*(draw[:, own] for draw, own in zip(draws.negative, common, strict=True)))
    # A fold with so few negatives that they are seldom drawn never gets a resample without any.
    few = [
        f.select(f.positive | (f.groups == own[-i]))
        for i, (f, own) in enumerate(zip(folds, kept, strict=True))
    ]
    assert all(draw.any(axis=1).all() for draw in draw_groups(few, resamples=200, seed=0).negative)


def test_copies_do_not_make_an_interval_narrower():
    def mean(fold):
        draws = draw_groups([fold], resamples=300, seed=1)
        return sample_aurocs([fold], "ssim_hbd", draws).mean()

    fold = scored(5, positives=15)
    five = np.concatenate([np.repeat(np.flatnonzero(fold.positive), 5), np.flatnonzero(~fold.positive)])
    once, copied = mean(fold), fold.select(five)
    assert mean(copied) == once
    # Treated as independent images, they would.
    alone = mean(dataclasses.replace(copied, groups=np.arange(len(copied)).astype(str)))
    assert alone.high - alone.low < 0.75 * (once.high - once.low)


def test_shares_have_the_interval_of_clopper_and_pearson():
    for hits, count in ((0, 7), (3, 20), (13, 128), (9, 9)):
        found = share_estimate(hits, count)
        expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
        assert (found.value, *found[1:]) == pytest.approx((hits / count, expected.low, expected.high))
    with pytest.raises(ValueError, match="got 3 of 2"):
        share_estimate(3, 2)


def test_percentile_intervals():
    assert percentile_interval(np.arange(1001.0), 6) == pytest.approx((25.0, 975.0))
    # The range of n values misses the median with probability 2^(1-n): 0.06 for five, 0.03 for six.
    assert percentile_interval(np.arange(1001.0), 5) == (None, None)
    assert percentile_interval(np.arange(39.0), 6) == (None, None)


@pytest.mark.parametrize(("resamples", "positives", "negatives"), [(1, 12, 40), (200, 5, 40), (200, 12, 5)])
def test_too_few_resamples_or_groups_give_no_interval(resamples, positives, negatives):
    fold = scored(1, positives=positives, negatives=negatives)
    samples = sample_aurocs([fold], "mae", draw_groups([fold], resamples=resamples, seed=0))
    assert samples.mean()[1:] == samples.folds()[0][1:] == (None, None)
    # Each fold has five positive groups, the mean over three folds fifteen.
    folds = [scored(seed, positives=5) for seed in range(3)]
    samples = sample_aurocs(folds, "mae", draw_groups(folds, resamples=40, seed=0))
    assert samples.mean().low < samples.mean().value < samples.mean().high
    assert {each.low for each in samples.folds()} == {None}


@pytest.mark.parametrize("missing", [float("nan"), "nan"])
def test_images_without_a_group_are_not_drawn_as_one(missing):
    fold = scored(1)
    for groups in (np.full(len(fold), missing), np.where(fold.positive, "nan", fold.groups)):
        unknown = dataclasses.replace(fold, groups=groups)
        with pytest.raises(ValueError, match=r"^group \d+ is '?nan'?: give an image"):
            draw_groups([unknown])
        with pytest.raises(ValueError, match=r"^group \d+ is '?nan'?: give an image"):
            summarize({"mim": [unknown]})


def test_without_shared_variance_it_is_students():
    values = np.array([0.7, 0.75, 0.82, 0.66, 0.71])
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(values), scipy.stats.sem(values))
    assert fold_half_width(values, 0.0) == pytest.approx((high - low) / 2, rel=1e-9)


def test_shared_variance_alone_is_normal_and_one_fold_says_nothing():
    assert fold_half_width(np.full(5, 0.5), 0.01) == pytest.approx(
        0.1 * scipy.stats.norm.ppf(0.975), rel=1e-5
    )
    assert fold_half_width(np.full(5, 0.5), 0.0) == 0.0
    assert fold_half_width(np.array([0.5]), 0.01) is None
    between, shared = 0.02**2, 0.01**2
    values = 0.5 + 0.02 * np.array([-1, 1]) * np.sqrt(0.5) * np.sqrt(2)
    freedom = (between + shared) ** 2 / between**2
    assert fold_half_width(values, shared) == pytest.approx(
        scipy.stats.t.ppf(0.975, freedom) * np.sqrt(between + shared), rel=1e-9
    )


def test_shared_variance_is_that_of_the_mean_over_negatives():
    folds = [
        dataclasses.replace(
            fold, groups=np.char.replace(fold.groups, "n1", "n2")
        )  # some groups of two negatives
        for fold in simulated(np.random.default_rng(5), folds=3, spread=0.2)
    ]
    samples = sample_aurocs(folds, "ssim", draw_groups(folds, resamples=40, seed=0))
    negative, values = ~folds[0].positive, samples.values
    wins = [
        fold.similarities["ssim"][fold.positive][:, None] > fold.similarities["ssim"][negative]
        for fold in folds
    ]
    # The mean AUROC is the mean over negatives of the share of positives above each; groups are independent.
    centred = np.mean([each.mean(axis=0) for each in wins], axis=0) - np.mean(values)
    groups = folds[0].groups[negative]
    sums = [centred[groups == group].sum() for group in np.unique(groups)]
    assert 60 < len(sums) < 80
    shared = len(sums) / (len(sums) - 1) * np.sum(np.square(sums)) / np.sum(negative) ** 2
    estimate = samples.mean_over_drawn_folds(least=0.0, most=1.0)
    assert estimate is not None
    half = fold_half_width(values, shared)
    assert estimate == pytest.approx((np.mean(values), np.mean(values) - half, np.mean(values) + half))


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_coverage_of_the_mean_over_folds_is_about_nominal(spread):
    generator = np.random.default_rng(int(10 * spread))
    # A gap that is itself normal widens the difference of two scores: AUROC = Phi(1 / sqrt(2 + spread^2)).
    # 2,000 runs had a coverage of 0.953 at spread 0, 0.960 at 0.15, 0.947 at 0.3 and 0.926 at 0.6, where the
    # folds' AUROCs have a standard deviation of 0.13 and are skewed.
    truth = scipy.stats.norm.cdf(1 / np.sqrt(2 + spread**2))
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
        # The interval for given models leaves out how models vary.
        assert fixed / runs < 0.88


def clustered(seed: int, *, groups: int = 30, size: int = 4, shared: int = 0):
    """Scores correlated within groups and rounded so that many tie, and a second score like them.

    The first `shared` groups have both positives and negatives.
    """
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), generator.integers(1, size + 1, groups))
    positive = np.where(group < shared, generator.random(len(group)) < 0.5, group % 3 == 0)
    common = generator.normal(0, 1, groups)[group] + positive
    scores = np.round(common + generator.normal(0, 0.5, len(group)), 1)
    others = np.round(0.5 * common + generator.normal(0, 0.5, len(group)), 1)
    return scores, others, positive, group


def wins(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return (np.sign(scores[positive][:, None] - scores[~positive][None, :]) + 1) / 2


def obuchowski(psi: np.ndarray, positive: np.ndarray, group: np.ndarray) -> float:
    """The variance as printed by Obuchowski (1997): loops over the groups, sums of psi over all pairs."""
    m, n = psi.shape
    area = psi.mean()
    first, second, both = 0.0, 0.0, 0.0
    for name in np.unique(group):
        own, other = group[positive] == name, group[~positive] == name
        upper = psi[own].mean(axis=1).sum() - own.sum() * area
        lower = psi[:, other].mean(axis=0).sum() - other.sum() * area
        first, second, both = first + upper**2, second + lower**2, both + upper * lower
    a, b = len(np.unique(group[positive])), len(np.unique(group[~positive]))
    c = len(np.unique(group))
    s10, s01, s11 = a / (a - 1) / m * first, b / (b - 1) / n * second, c / (c - 1) * both
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("shared", [0, 6])
def test_the_variance_of_delong_is_the_definition(shared):
    for seed in range(4):
        scores, others, positive, group = clustered(seed, shared=shared)
        first, second = wins(scores, positive), wins(others, positive)
        assert np.any(first == 0.5)
        found = delong_variance(scores, positive, group)
        assert found == pytest.approx(obuchowski(first, positive, group), rel=1e-10)
        found = delong_variance(scores, positive, group, others=others)
        assert found == pytest.approx(obuchowski(first - second, positive, group), rel=1e-10)


def test_the_bootstrap_agrees_with_delong():
    scores, others, positive, group = clustered(3, groups=240)
    total = len(scores)
    fold = ScoredImages(
        names=np.arange(total).astype(str),
        classes=np.where(positive, "mpox", "other"),
        groups=group,
        copies=np.zeros(total, int),
        positive=positive,
        augmented=np.ones(total, bool),
        plain=np.ones(total, bool),
        similarities={"a": scores, "b": others},
    )
    draws = draw_groups([fold], resamples=4000, seed=1)
    a, b = (sample_aurocs([fold], metric, draws) for metric in "ab")
    deviation = np.sqrt(delong_variance(scores, positive, group))
    assert a.resampled.std() == pytest.approx(deviation, rel=0.06)
    for samples, expected, atol in (
        (a, deviation, 0.008),
        (a.minus(b), np.sqrt(delong_variance(scores, positive, group, others=others)), 0.006),
    ):
        value, low, high = samples.mean()
        np.testing.assert_allclose([low, high], value + 1.959964 * expected * np.array([-1, 1]), atol=atol)
    # Treating the images of a group as independent gives a variance that is much too small.
    alone = delong_variance(scores, positive, np.arange(total))
    assert alone < 0.7 * deviation**2
    ungrouped = dataclasses.replace(fold, groups=np.arange(total).astype(str))
    samples = sample_aurocs([ungrouped], "a", draw_groups([ungrouped], resamples=4000, seed=1))
    assert samples.resampled.std() == pytest.approx(np.sqrt(alone), rel=0.06)
