"""Decisions with their reasons, from scores and a calibration alone."""

import dataclasses
import json

import numpy as np
import pytest

from mim_jax.decide.conformal import cross_p_values, miss_rate_threshold
from mim_jax.decide.decision import Calibration, Decision, assess, unusable
from mim_jax.measure.similarity import METRICS

RNG = np.random.default_rng(0)
SCORES = tuple(tuple(np.sort(RNG.normal(0.8, 0.1, 25)).tolist()) for _ in range(3))


def calibration(scores=SCORES, **fields):
    described = {"origin": "fitted here", "promise": "a promise", "band": "a bound"}
    fixed = {"metric": "ssim", "positive": "mpox", "rule": "calibrated", "miss_rate": 0.1}
    return Calibration(**{**fixed, **described, "scores": scores, "lower": 0.7, "upper": None, **fields})


def assessed(scores, found, alpha=0.1):
    """`scores`: `[folds, N]` of SSIM."""
    similarities = {name: np.asarray(scores, float) for name in METRICS}
    return assess(similarities, found, metric="ssim", alpha=alpha)


def test_it_decides_by_the_cross_conformal_p_value():
    new = RNG.normal(0.7, 0.1, (3, 200))
    found = assessed(new, calibration())
    p = cross_p_values(SCORES, list(new))
    np.testing.assert_allclose([one.p_value for one in found], p)
    like = p > 0.1
    assert [one.decision for one in found] == [
        Decision.MPOX_LIKE if each else Decision.NOT_MPOX_LIKE for each in like
    ]
    assert 20 < like.sum() < 180
    np.testing.assert_allclose([one.score for one in found], new.mean(axis=0))
    assert set(found[0].similarities) == set(METRICS)


@pytest.mark.parametrize("alpha", [0.04, 0.1, 0.25])
def test_one_fold_alone_is_decided_by_the_conformal_threshold(alpha):
    known = SCORES[:1]
    new = np.concatenate((known[0], RNG.normal(0.7, 0.1, 100)))[None]
    threshold = miss_rate_threshold(known[0], miss_rate=alpha)
    found = assessed(new, calibration(known), alpha)
    assert [one.decision is Decision.MPOX_LIKE for one in found] == (new[0] >= threshold).tolist()


def test_between_the_thresholds_it_cannot_be_told():
    found = assessed([[0.3, 0.8, 0.9]] * 3, calibration(upper=0.85))
    assert [one.decision for one in found] == ["not_mpox_like", "cannot_tell", "mpox_like"]
    assert "a bound" not in found[0].reasons and "a bound" in found[1].reasons
    crossed = assessed([[0.3, 0.8, 0.9]] * 3, calibration(upper=0.5))
    assert [one.decision for one in crossed] == ["not_mpox_like", "mpox_like", "mpox_like"]


@pytest.mark.parametrize("rule", ["certified", "paper", "youden", "sensitivity"])
def test_other_rules_go_by_their_threshold_strictly(rule):
    found = assessed([[0.7, 0.7001]] * 3, calibration(rule=rule))
    assert [one.decision for one in found] == ["not_mpox_like", "mpox_like"]
    assert "threshold 0.7000" in found[0].reasons[1]
    (none,) = assessed([[0.9]] * 3, calibration(rule=rule, lower=None))
    assert none.decision is Decision.CANNOT_TELL


def test_reasons_name_what_was_found_the_rule_and_its_promise():
    (found,) = assessed([[0.2]] * 3, calibration())
    assert found.reasons == (
        "SSIM is 0.2000; 0 of 75 mpox cases held out of training score no higher, p-value 0.013.",
        "Not like mpox: the p-value is at most 0.1.",
        "Rule: fitted here.",
        "a promise",
    )
    (other,) = assessed([[0.2]] * 3, calibration(), alpha=0.2)
    assert other.reasons[-1].startswith(
        "The expected miss rate is about 20 % for mpox cases exchangeable with the 75"
    )
    assert "the proven bound is 44.1 %" in other.reasons[-1]  # 2 (76 * 0.2 + 2) / 78
    (alone,) = assessed([[0.2]], calibration(SCORES[:1]), alpha=0.2)
    assert alone.reasons[-1].startswith(
        "The expected miss rate is at most 20 % for mpox cases exchangeable with the 25"
    )


def test_too_small_a_calibration_and_none_decide_nothing():
    (few,) = assessed([[0.1]] * 3, calibration(), alpha=0.01)
    assert few.decision is Decision.CANNOT_TELL and "at least 99 are needed" in few.reasons[-2]
    (empty,) = assessed([[0.1]], calibration(((),)))
    assert empty.decision is Decision.CANNOT_TELL and empty.p_value is None
    (none,) = assessed([[0.1]], None)
    assert none.decision is Decision.CANNOT_TELL and none.p_value is None
    assert none.score == pytest.approx(0.1) and "--mode=evaluate" in none.reasons[1]


def test_a_score_that_is_no_number_is_unusable():
    first, second = assessed([[np.nan, 0.9]] * 3, calibration())
    assert (
        first.decision is Decision.UNUSABLE and first.score is None and "no finite score" in first.reasons[0]
    )
    assert second == assessed([[0.9]] * 3, calibration())[0]
    assert unusable("torn").reasons == ("torn",)


def test_a_calibration_survives_json():
    found = calibration(upper=0.9)
    assert Calibration.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "psnr"}, "got 'psnr'"),
        ({"rule": ["paper"]}, r"got 'ssim' and \['paper'\]"),
        ({"origin": None}, "origin of a calibration must be text, got None"),
        ({"miss_rate": 1.5}, "miss_rate of a calibration must lie between 0 and 1 .*, got 1.5"),
        ({"miss_rate": "0.1"}, "cannot be read"),
        ({"lower": float("nan")}, "lower of a calibration must be finite or None, got nan"),
        ({"upper": "0.5"}, "cannot be read"),
        ({"scores": []}, "scores of a calibration must be finite, ascending"),
        ({"scores": [[0.2, 0.1]]}, "scores of a calibration must be finite, ascending"),
        ({"scores": [[float("inf")]]}, "scores of a calibration must be finite, ascending"),
        ({"scores": 1}, "cannot be read"),
        ({"more": 1}, "a calibration has the fields"),
    ],
)
def test_odd_calibrations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_json({**dataclasses.asdict(calibration()), **fields})


def test_slips_are_sentences():
    with pytest.raises(ValueError, match="is for ssim by 3 folds, the scores are ssim by 2"):
        assessed([[0.1]] * 2, calibration())
    with pytest.raises(ValueError, match=r"alpha must lie between 0 and 1 .*, got 0"):
        assessed([[0.1]] * 3, calibration(), alpha=0)
    with pytest.raises(ValueError, match=r"a calibration has the fields .* got 'text'"):
        Calibration.from_json("text")
