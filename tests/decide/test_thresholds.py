"""Certificates against SciPy's binomial and beta distributions, and by simulation, ties included."""

import math

import numpy as np
import pytest
import scipy.stats

from mim_jax.decide.thresholds import certificate, certified_rate, images_needed
from mim_jax.evaluate.statistics.auroc import share_estimate

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


def test_shares_have_the_interval_of_clopper_and_pearson():
    for hits, count in ((0, 7), (3, 20), (13, 128), (9, 9)):
        found = share_estimate(hits, count)
        expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
        assert (found.value, *found[1:]) == pytest.approx((hits / count, expected.low, expected.high))
    with pytest.raises(ValueError, match="got 3 of 2"):
        share_estimate(3, 2)
