"""DeLong's variance against the definition in O(n^2), known values, the bootstrap and simulation."""

import numpy as np
import pytest
from tests.delong import delong, delong_difference, delong_variance

from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import draw_groups, resampled_aurocs


def clustered(seed: int, *, groups: int = 30, size: int = 4, shared: int = 0):
    """Scores that share a part within their group, rounded so that many tie, and a second score like them.

    The first `shared` groups have positives and negatives.
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
def test_variance_is_the_definition(shared):
    for seed in range(4):
        scores, others, positive, group = clustered(seed, shared=shared)
        first, second = wins(scores, positive), wins(others, positive)
        assert np.any(first == 0.5)
        assert delong_variance(scores, positive, groups=group) == pytest.approx(
            obuchowski(first, positive, group), rel=1e-10
        )
        expected = obuchowski(first - second, positive, group)
        found = delong_difference(scores, others, positive, groups=group)
        assert found.value == pytest.approx(first.mean() - second.mean(), abs=1e-12)
        half = 1.959963985 * np.sqrt(expected)
        assert found == pytest.approx((found.value, found.value - half, found.value + half), abs=1e-8)


def test_single_images_have_delongs_covariances():
    scores, others, positive, _ = clustered(7, groups=60)
    first, second = wins(scores, positive), wins(others, positive)
    m, n = first.shape
    upper = np.cov(first.mean(axis=1), second.mean(axis=1))
    lower = np.cov(first.mean(axis=0), second.mean(axis=0))
    covariance = upper / m + lower / n  # DeLong, DeLong and Clarke-Pearson, Eq. 5
    assert delong_variance(scores, positive) == pytest.approx(covariance[0, 0], rel=1e-10)
    contrast = np.array([1, -1])
    half = 1.959963985 * np.sqrt(contrast @ covariance @ contrast)
    found = delong_difference(scores, others, positive)
    assert found.high - found.value == pytest.approx(half, rel=1e-8)


def test_the_cluster_bootstrap_agrees():
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
    a, b = (resampled_aurocs([fold], metric, draws)[0] for metric in "ab")
    assert a.std() == pytest.approx(np.sqrt(delong_variance(scores, positive, groups=group)), rel=0.06)
    difference = delong_difference(scores, others, positive, groups=group)
    np.testing.assert_allclose(difference[1:], np.quantile(a - b, [0.025, 0.975]), atol=0.006)
    np.testing.assert_allclose(
        delong(scores, positive, groups=group)[1:], np.quantile(a, [0.025, 0.975]), atol=0.008
    )
    # Images of a group taken for independent would have a variance much too small.
    assert delong_variance(scores, positive) < 0.7 * delong_variance(scores, positive, groups=group)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Normal scores in groups of three of which two thirds of the variance is shared: AUROC = 0.7602."""
    generator = np.random.default_rng(0)
    truth, hits, runs = 0.7602499389, 0, 400
    positive, group = np.arange(300) < 90, np.arange(300) // 3
    for _ in range(runs):
        common = np.repeat(generator.normal(0, np.sqrt(2 / 3), 100), 3)
        scores = common + generator.normal(0, np.sqrt(1 / 3), 300) + positive
        _, low, high = delong(scores, positive, groups=group)
        hits += low <= truth <= high
    assert 0.915 <= hits / runs <= 0.975


def test_intervals_stay_in_range_and_errors_name_what_is_wrong():
    scores, positive = np.arange(6.0), np.arange(6) >= 3
    assert delong(scores, positive) == (1.0, 1.0, 1.0)
    assert delong(np.array([0, 1, 4, 2, 4, 5.0]), positive).high == 1.0
    assert delong_difference(scores, -scores, positive) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"all 3 positive .* are one group"):
        delong(scores, positive, groups=np.array([0, 1, 2, 3, 3, 3]))
    with pytest.raises(ValueError, match=r"all 1 negative .* are one group"):
        delong(scores, scores > 0)
    with pytest.raises(ValueError, match="5 groups for 6 images"):
        delong(scores, positive, groups=np.arange(5))
    with pytest.raises(ValueError, match="6 of 6 images are positive"):
        delong_variance(scores, np.ones(6, bool))
