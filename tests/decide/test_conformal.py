"""The guarantees of thresholds and p-values, by simulation, and cases too small for a guarantee."""

import numpy as np
import pytest
from crepes import ConformalClassifier

from mim_jax.decide.conformal import (
    allowed_rank,
    cross_p_values,
    false_alarm_threshold,
    least_count,
    miss_rate_threshold,
    proven_rate,
)


def p_values(known, new):
    """The p-values of one fold."""
    return cross_p_values([known], [new])


def missed_share(draw, *, count: int, miss_rate: float, trials: int) -> float:
    """Share of new scores below the threshold from `count` scores, over fresh calibration sets."""
    missed = 0
    for _ in range(trials):
        *known, new = draw(count + 1)
        missed += new < miss_rate_threshold(known, miss_rate=miss_rate)
    return missed / trials


@pytest.mark.parametrize(("count", "miss_rate", "rank"), [(44, 0.05, 2), (19, 0.05, 1), (30, 0.2, 6)])
def test_the_promise_holds_and_is_not_wasteful(count, miss_rate, rank):
    generator = np.random.default_rng(0)
    expected = rank / (count + 1)
    trials = 4000
    error = 4 * np.sqrt(expected * (1 - expected) / trials)
    share = missed_share(lambda n: generator.normal(size=n), count=count, miss_rate=miss_rate, trials=trials)
    assert abs(share - expected) < error
    tied = missed_share(
        lambda n: generator.integers(0, 6, n), count=count, miss_rate=miss_rate, trials=trials
    )
    assert tied <= expected + error


@pytest.mark.parametrize(("count", "rate", "rank"), [(44, 0.05, 2), (19, 0.05, 1), (30, 0.2, 6)])
@pytest.mark.parametrize("levels", [0, 6])
def test_false_alarms_keep_their_rate_in_the_worst_group(count, rate, rank, levels):
    generator = np.random.default_rng(1)
    trials, expected = 4000, rank / (count + 1)
    alarms = np.zeros((trials, 2), bool)
    for trial in range(trials):
        drawn = generator.normal([[0.0], [1.0]], 1, (2, count + 1))
        drawn = np.round(drawn * levels) if levels else drawn
        groups = {"easy": drawn[0, :-1], "hard": drawn[1, :-1]}
        threshold, left_out = false_alarm_threshold(groups, false_alarm_rate=rate)
        assert not left_out
        alarms[trial] = drawn[:, -1] > threshold
    easy, hard = alarms.mean(axis=0)
    error = 4 * np.sqrt(expected * (1 - expected) / trials)
    assert easy < hard <= expected + error
    if not levels:
        # Now and then the easy group sets the threshold, which costs the hard one a little.
        assert hard > expected - error - 0.02


def test_groups_that_are_too_small_are_named():
    scores = np.arange(20) / 20
    assert false_alarm_threshold({"a": scores, "b": [0.99]}, false_alarm_rate=0.1) == (0.9, ["b"])
    assert false_alarm_threshold({"b": [0.99]}, false_alarm_rate=0.1) == (None, ["b"])
    assert false_alarm_threshold({}, false_alarm_rate=0.1) == (None, [])


def test_it_is_the_order_statistic():
    scores = np.random.default_rng(1).permutation(np.arange(1, 101)) / 100
    assert miss_rate_threshold(scores, miss_rate=0.05) == 0.05
    assert miss_rate_threshold(scores[:99], miss_rate=0.29) == np.sort(scores[:99])[28]
    assert miss_rate_threshold([0.9, 0.8, 0.7], miss_rate=0.25) == 0.7


def test_too_few_scores_name_how_many_would_do():
    for count, miss_rate, needed in ((44, 0.01, 99), (18, 0.05, 19), (0, 0.1, 9), (13, 0.07, 14)):
        with pytest.raises(ValueError, match=rf"{count} calibration images .* at least {needed},"):
            miss_rate_threshold(np.zeros(count), miss_rate=miss_rate)
        assert miss_rate_threshold(np.zeros(needed), miss_rate=miss_rate) == 0
        assert (allowed_rank(miss_rate, needed), allowed_rank(miss_rate, needed - 1)) == (1, 0)
        assert least_count(miss_rate) == needed


def test_unfit_arguments_are_named():
    for miss_rate in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            miss_rate_threshold(np.zeros(50), miss_rate=miss_rate)
    with pytest.raises(ValueError, match="1 non-finite values"):
        miss_rate_threshold([0.1, np.nan, 0.3], miss_rate=0.5)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        miss_rate_threshold(np.zeros((2, 3)), miss_rate=0.5)
    with pytest.raises(ValueError, match="calibration_scores is empty"):
        p_values([], [0.5])


def test_p_values_count_the_calibration_scores_up_to_the_score():
    rng = np.random.default_rng(10)
    known, scores = rng.integers(0, 9, 30) / 8, rng.integers(-1, 10, 200) / 8  # with ties
    expected = [(1 + sum(c <= score for c in known)) / 31 for score in scores]
    np.testing.assert_array_equal(p_values(known, scores), expected)
    np.testing.assert_array_equal(p_values(np.array([0.5, 0.5]), np.array([0.4, 0.5, 0.6])), [1 / 3, 1, 1])


def test_p_values_and_thresholds_are_those_of_crepes():
    """Other packages for conformal anomaly detection: puncc needs NumPy 1, nonconform Python 3.12."""
    rng = np.random.default_rng(15)
    known, new = rng.integers(0, 20, 59) / 20, np.arange(-1, 22) / 20
    classifier = ConformalClassifier()
    classifier.fit(-known, seed=0)  # nonconformity scores
    expected = classifier.predict_p(-new[:, None], smoothing=False)[:, 0]
    np.testing.assert_allclose(p_values(known, new), expected, atol=1e-12)
    for rate in (0.055, 0.11, 0.31):  # no p-value equals one of these; crepes would keep it
        refused = classifier.predict_set(-new[:, None], confidence=1 - rate, smoothing=False)[:, 0] == 0
        np.testing.assert_array_equal(new < miss_rate_threshold(known, miss_rate=rate), refused)


def test_p_values_of_mpox_are_rarely_small():
    # 19 calibration scores and one new one: P(p <= a) = a where 20 a is whole.
    scores = np.random.default_rng(11).normal(size=(20_000, 20))
    p = np.array([p_values(row[:-1], row[-1:])[0] for row in scores])
    for a in (0.05, 0.2, 0.5, 0.95):
        assert abs(np.mean(p <= a) - a) < 4 * np.sqrt(a * (1 - a) / 20_000)
    coarse = np.round(scores)
    ties = np.array([p_values(row[:-1], row[-1:])[0] for row in coarse])
    assert np.mean(ties <= 0.2) < 0.2


def test_the_threshold_and_the_p_value_refuse_the_same_images():
    rng = np.random.default_rng(12)
    for count, alpha in ((9, 0.1), (44, 0.05), (99, 0.29), (128, 0.1)):
        known = rng.integers(0, 60, count) / 60  # with ties
        new = np.arange(-1, 62) / 60
        refused = new < miss_rate_threshold(known, miss_rate=alpha)
        np.testing.assert_array_equal(refused, p_values(known, new) <= alpha + 1e-12)


@pytest.mark.parametrize("folds", [1, 5])
def test_cross_conformal_p_values_keep_what_is_proven_of_them(folds):
    """Folds score alike except for an offset of each, which makes pooled scores useless."""
    rng = np.random.default_rng(13)
    trials, each = 4000, 10
    offsets = np.arange(folds)[:, None]
    p = np.empty(trials)
    for trial in range(trials):
        known = rng.normal(size=(folds, each)) + offsets
        # One new image, on which the models agree in part: standard normal for each, plus its offset.
        new = 0.8 * rng.normal() + 0.6 * rng.normal(size=(folds, 1)) + offsets
        p[trial] = cross_p_values(list(known), list(new))[0]
    for alpha in (0.1, 0.2, 0.5):
        bound = proven_rate(alpha, count=folds * each, folds=folds)
        assert (bound == alpha) if folds == 1 else (2 * alpha <= bound or bound == 1)
        assert np.mean(p <= alpha) <= bound + 4 * np.sqrt(bound * (1 - bound) / trials)
        if folds > 1:
            assert np.mean(p <= alpha) < 1.3 * alpha


def test_the_proven_rate_follows_from_the_folds_own_p_values():
    rng = np.random.default_rng(14)
    known = [rng.normal(size=n) for n in (7, 12, 9)]
    new = [rng.normal(size=50) for _ in known]
    p = cross_p_values(known, new)
    own = [p_values(k, s) for k, s in zip(known, new, strict=True)]
    count, folds = 28, 3
    weighted = sum((len(k) + 1) * each for k, each in zip(known, own, strict=True)) / (count + folds)
    np.testing.assert_allclose(((count + 1) * p + folds - 1) / (count + folds), weighted)
    # P(weighted mean <= x) <= 2 x, at the x where p is alpha:
    for alpha in (0.05, 0.3):
        x = ((count + 1) * alpha + folds - 1) / (count + folds)
        assert proven_rate(alpha, count=count, folds=folds) == pytest.approx(2 * x)
