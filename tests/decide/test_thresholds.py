"""Certificates against SciPy's binomial and beta distributions and by simulation; Youden's index; ties."""

import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_curve

from mim_jax.decide.conformal import just_below
from mim_jax.decide.thresholds import certificate, certified_rate, images_needed, youden_threshold

CASES = [(29, 0.1, 0.95), (128, 0.1, 0.95), (128, 0.05, 0.9), (60, 0.3, 0.99), (500, 0.2, 0.5)]


@pytest.mark.parametrize(("count", "miss_rate", "confidence"), CASES)
def test_it_is_the_largest_rank_that_the_binomial_law_allows(count, miss_rate, confidence):
    rank = certificate(count, miss_rate=miss_rate, confidence=confidence)
    # P(Binomial(n, a) >= k) >= c, and no more for k + 1.
    assert scipy.stats.binom.sf(rank - 1, count, miss_rate) >= confidence
    assert scipy.stats.binom.sf(rank, count, miss_rate) < confidence
    bound = certified_rate(count, rank, confidence=confidence)
    assert bound == pytest.approx(scipy.stats.beta.ppf(confidence, rank, count - rank + 1))
    assert bound <= miss_rate < certified_rate(count, rank + 1, confidence=confidence)


def test_the_images_needed_are_the_fewest_that_do():
    assert images_needed(miss_rate=0.1, confidence=0.95) == 29 == math.ceil(math.log(0.05) / math.log(0.9))
    assert images_needed(miss_rate=0.05, confidence=0.95) == 59
    assert images_needed(miss_rate=0.5, confidence=0.75) == 2  # log(1/4) / log(1/2), a whole number
    for miss_rate, confidence in ((0.1, 0.95), (0.03, 0.9), (0.4, 0.99)):
        for rank in (1, 2, 7):
            count = images_needed(miss_rate=miss_rate, confidence=confidence, rank=rank)
            assert certificate(count, miss_rate=miss_rate, confidence=confidence) == rank
            assert scipy.stats.binom.sf(rank - 1, count - 1, miss_rate) < confidence


def test_a_certificate_that_the_images_cannot_carry_is_refused():
    for count in (0, 1, 28):
        with pytest.raises(ValueError, match=rf"{count} calibration images .* use at least 29,"):
            certificate(count, miss_rate=0.1, confidence=0.95)
    assert certificate(29, miss_rate=0.1, confidence=0.95) == 1
    for fields in ({"miss_rate": 0.0, "confidence": 0.9}, {"miss_rate": 0.1, "confidence": 1.0}):
        with pytest.raises(ValueError, match="between 0 and 1"):
            certificate(100, **fields)
    with pytest.raises(ValueError, match="rank must lie between 1 and the 5 scores, got 0"):
        certified_rate(5, 0, confidence=0.9)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        images_needed(miss_rate=0.1, confidence=0.9, rank=0)


@pytest.mark.parametrize(("count", "miss_rate", "confidence"), CASES[:4])
@pytest.mark.parametrize("levels", [0, 20])
def test_as_many_calibration_sets_as_promised_keep_the_miss_rate(count, miss_rate, confidence, levels):
    generator = np.random.default_rng(0)
    trials = 4000
    rank = certificate(count, miss_rate=miss_rate, confidence=confidence)
    scores = generator.random((trials, count))
    if levels:  # uniform on 0, 1/20, ..., 19/20
        scores = np.floor(scores * levels) / levels
    # The share of new scores strictly below the threshold is the threshold itself, in both cases.
    kept = np.mean(np.sort(scores, axis=1)[:, rank - 1] <= miss_rate + 1e-12)
    exact = scipy.stats.binom.sf(rank - 1, count, miss_rate)
    error = 4 * np.sqrt(exact * (1 - exact) / trials)
    assert kept >= exact - error >= confidence - error
    if not levels:
        assert kept <= exact + error


def test_youdens_threshold_is_the_lowest_of_the_largest_index_on_scikit_learns_curve():
    generator = np.random.default_rng(0)
    several = 0
    for trial in range(300):
        positive = np.arange(generator.integers(2, 40)) < generator.integers(1, 2 + trial % 20)
        positive[-1] = False
        levels = int(generator.choice([3, 10, 1000]))  # so that many scores tie, or none
        gap = generator.choice([-0.2, 0, 0.3])
        scores = generator.integers(0, levels, len(positive)) / 7 + positive * gap
        false_rate, true_rate, thresholds = roc_curve(positive, scores, drop_intermediate=False)
        # In integers: shares that are equal may differ in floating point.
        hits, alarms = (true_rate * positive.sum()).round(), (false_rate * (~positive).sum()).round()
        index = hits * (~positive).sum() - alarms * positive.sum()
        best = thresholds[index == index.max()]
        several += len(best) > 1
        assert youden_threshold(scores, positive) == just_below(best.min())
    assert several > 30


@pytest.mark.parametrize(
    ("scores", "positive", "found"),
    [
        ([0.1, np.nan], [True, False], "2 scores of which 1 are of mpox and 1 not finite"),
        ([0.1, 0.2], [True, True], "2 scores of which 2 are of mpox and 0 not finite"),
        ([], [], "0 scores of which 0 are of mpox"),
    ],
)
def test_youdens_threshold_needs_finite_scores_of_both_kinds(scores, positive, found):
    with pytest.raises(ValueError, match=found):
        youden_threshold(np.array(scores), np.array(positive, bool))
