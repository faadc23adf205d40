"""Thresholds follow from the scores that they name and no others; no group calibrates what judges it."""

import dataclasses

import numpy as np
import pytest

from mim_jax.decide.decision import RULES, Decision
from mim_jax.decide.thresholds import PAPER_THRESHOLD, sensitivity_threshold, youden_threshold
from mim_jax.evaluate import decisions
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.measure.similarity import METRICS

GROUPS = {"skin": ["eczema"]}
ABOUT = {"metric": "ssim", "positive": "mpox", "class_groups": GROUPS}


def scored(positives, groups, negatives=(0.1, 0.2), classes=("eczema", "acne"), other_groups=None):
    """One fold; each positive has an augmented copy with an absurd score, which must not count."""
    values = np.array([*positives, *([-9.0] * len(positives)), *negatives])
    count, others = len(positives), len(negatives)
    positive = np.array([True] * 2 * count + [False] * others)
    other_groups = other_groups or [f"n{i}" for i in range(others)]
    return ScoredImages(
        names=np.array([*(f"{group}{i}.png" for i, group in enumerate([*groups, *groups])), *other_groups]),
        classes=np.array(["mpox"] * 2 * count + [classes[i % len(classes)] for i in range(others)]),
        groups=np.array([*groups, *groups, *other_groups]),
        copies=np.array([0] * count + [1] * count + [0] * others),
        positive=positive,
        augmented=np.ones(len(values), bool),
        plain=np.array([True] * count + [False] * count + [True] * others),
        similarities=dict.fromkeys(METRICS, values),
    )


FOLDS = [
    scored([0.5, 0.7, 0.9], ["a", "a", "b"]),
    scored([0.6, 0.8], ["c", "d"]),
    scored([0.4, 0.95], ["e", "f"]),
]


def calibrate(folds, **rule):
    rule = decisions.Rule(**{"false_alarm_rate": 0.0, **rule})
    return decisions.calibrate(folds, rule=rule, **ABOUT)


def drawn(seed, folds=4, positives=30, negatives=120):
    """Folds whose models score alike; negatives in groups of two, one image of each class."""
    rng = np.random.default_rng(seed)
    latent, shared = rng.normal(0.4, 0.1, negatives), [f"n{i // 2}" for i in range(negatives)]
    return [
        scored(
            rng.normal(0.6, 0.1, positives),
            [f"p{k}_{i // 2}" for i in range(positives)],
            latent + rng.normal(0, 0.02, negatives),
            other_groups=shared,
        )
        for k in range(folds)
    ]


def test_each_fold_is_judged_by_the_lowest_scores_of_the_other_folds_groups():
    found = calibrate(FOLDS, miss_rate=0.25)
    # Groups of folds 2 and 3: 0.6, 0.8, 0.4, 0.95; rank floor(0.25 * 5) = 1.
    assert found.folds[0].lower == np.nextafter(0.4, -1)
    assert found.folds[1].lower == np.nextafter(0.4, -1)  # 0.5, 0.9, 0.4, 0.95
    assert found.folds[2].lower == np.nextafter(0.5, -1)  # 0.5, 0.9, 0.6, 0.8
    assert found.pooled.lower == np.nextafter(0.4, -1)  # six groups: rank floor(0.25 * 7) = 1
    assert found.pooled.scores == ((0.5, 0.9), (0.6, 0.8), (0.4, 0.95))
    assert [each.scores for each in found.alone] == [((0.5, 0.9),), ((0.6, 0.8),), ((0.4, 0.95),)]
    assert found.folds[0].decide(0.4) is Decision.MPOX_LIKE
    assert found.folds[0].decide(0.39) is Decision.NOT_MPOX_LIKE


def test_images_that_a_fold_judges_do_not_change_its_cutoffs():
    """Replace the scores of all images that a fold judges (positives and its negatives) by absurd ones."""
    folds = drawn(0)
    for rule in RULES:
        before = calibrate(folds, name=rule, false_alarm_rate=0.2)
        for k, fold in enumerate(folds):
            judged = before.folds[k].judges(fold)
            assert judged[fold.positive].all() and 0 < judged[~fold.positive].sum() < 60
            moved = {name: np.where(judged, -5.0, values) for name, values in fold.similarities.items()}
            changed = [*folds[:k], dataclasses.replace(fold, similarities=moved), *folds[k + 1 :]]
            after = calibrate(changed, name=rule, false_alarm_rate=0.2).folds[k]
            assert after == before.folds[k], rule
    shares = [each.unseen for each in before.folds]
    assert len(frozenset().union(*shares)) == sum(map(len, shares)) == 60  # every group in one share


def test_the_second_threshold_is_of_the_highest_scores_of_the_worst_group():
    negatives = (0.1, 0.9, 0.2, 0.7, 0.3, 0.8, 0.15, 0.75)  # eczema: 0.1, 0.2, 0.3, 0.15; acne: the others
    folds = [scored([0.5, 0.6, 0.95], [f"{k}a", f"{k}b", f"{k}c"], negatives) for k in range(2)]
    found = calibrate(folds, miss_rate=0.25, false_alarm_rate=0.2)
    assert found.pooled.upper == 0.9  # of four cases floor(0.2 * 5) = 1, the highest
    assert "(skin, other classes)" in found.pooled.band and "20 %" in found.pooled.band
    # Setting a share apart leaves three cases of each kind: too few.
    assert found.folds[0].upper is None
    found = calibrate(folds, miss_rate=0.25, false_alarm_rate=0.45)
    assert found.pooled.upper == 0.8
    assert found.folds[0].upper in (0.75, 0.8, 0.9)
    # Two images a case: of acne y has 0.9 and 0.7, w has 0.8 and 0.75.
    cases = [
        scored([0.5, 0.6], [f"{k}a", f"{k}b"], negatives, other_groups=list("xyxyzwzw")) for k in range(2)
    ]
    assert calibrate(cases, miss_rate=0.25, false_alarm_rate=0.7).pooled.upper == 0.8


def test_thresholds_that_cross_leave_no_band():
    folds = [scored([0.5, 0.6, 0.7], [f"{k}a", f"{k}b", f"{k}c"], [0.1, 0.2] * 4) for k in range(2)]
    found = calibrate(folds, miss_rate=0.25, false_alarm_rate=0.2).pooled
    assert found.upper < found.lower and "no image is left undecided" in found.band


def test_a_guarantee_that_needs_more_images_is_not_made():
    found = calibrate(FOLDS, miss_rate=0.05)
    assert [each.lower for each in found.folds] == [None] * 3 and found.pooled.lower is None
    assert "6 calibration images cannot guarantee a miss rate of 0.05" in found.pooled.promise
    assert found.folds[0].decide(0.4) is Decision.CANNOT_TELL
    certified = calibrate(FOLDS, name="certified", miss_rate=0.1).pooled
    assert certified.lower is None and "use at least 29" in certified.promise


def test_the_named_alternatives():
    paper = calibrate(FOLDS, name="paper")
    assert paper.pooled.lower == PAPER_THRESHOLD == 0.8526 and paper.pooled.upper is None
    assert paper.folds[0].decide(0.8526) is Decision.NOT_MPOX_LIKE  # strict
    assert paper.folds[0].decide(0.85261) is Decision.MPOX_LIKE
    assert "guarantees nothing" in paper.pooled.promise
    scores = np.array([0.1, 0.2, 0.35, 0.3, 0.4, 0.5])
    threshold = youden_threshold(scores, np.array([False, False, False, True, True, True]))
    found = [np.mean(scores[3:] > t) - np.mean(scores[:3] > t) for t in (threshold, *scores)]
    assert found[0] == max(found) and 0.2 < threshold < 0.3  # of 0.3 and 0.4, which do as well, the lower
    positives = np.random.default_rng(0).random(40)
    for sensitivity in (0.5, 0.7, 0.9, 0.99):
        threshold = sensitivity_threshold(positives, sensitivity=sensitivity)
        assert np.mean(positives > threshold) >= sensitivity
        assert np.mean(positives > np.nextafter(threshold, 1)) < sensitivity + 1e-9
    with pytest.raises(ValueError, match="0 scores"):
        sensitivity_threshold(np.zeros(0), sensitivity=0.9)


def test_slips_are_sentences():
    with pytest.raises(ValueError, match="unknown decision rule 'best': choose one of calibrated, certified"):
        calibrate(FOLDS, name="best")
    with pytest.raises(ValueError, match="different images of other classes"):
        calibrate([*FOLDS, scored([0.5], ["g"], [0.1, 0.2], other_groups=["x", "y"])])


def test_every_image_is_decided_once():
    folds = drawn(1)
    found = calibrate(folds, miss_rate=0.2, false_alarm_rate=0.2)
    judged = [decisions.judge(fold, cutoffs) for fold, cutoffs in zip(folds, found.folds, strict=True)]
    counts = decisions.count_decisions(judged)
    assert {name: count["n"] for name, count in counts.items()} == {"acne": 60, "eczema": 60, "mpox": 120}
    assert all(sum(count.values()) == 2 * count["n"] for count in counts.values())
    kinds = set(np.concatenate([fold.decisions for fold in judged]).tolist())
    assert kinds == {"", "mpox_like", "cannot_tell", "not_mpox_like"}
    for fold, cutoffs in zip(judged, found.folds, strict=True):
        for score, decision, own in zip(
            fold.similarities["ssim"].tolist(), fold.decisions.tolist(), cutoffs.judges(fold), strict=True
        ):
            assert decision == (cutoffs.decide(score) if own else "")


def test_guarantees_are_kept_on_average_over_runs():
    """Forty runs of four folds: sixty cases of mpox and sixty of others in each, two images a case."""
    rates, runs = (0.05, 0.1, 0.3), 40
    missed, alarms = np.zeros(len(rates)), np.zeros((len(rates), 2))
    for seed in range(runs):
        found = decisions.reliability(
            drawn(seed), metric="ssim", positive="mpox", class_groups=GROUPS, rates=rates
        )
        assert [row["rate"] for row in found] == list(rates)
        missed += [row["missed"]["value"] for row in found]
        alarms += [[each["value"] for each in row["false_alarms"].values()] for row in found]
        assert all(row["missed"]["cases"] == 60 for row in found)
        decided = [row["training"]["decided"] + row["others"]["decided"] for row in found]
        assert decided == sorted(decided)  # the lower the rate, the wider the undecided band
    for place, rate in enumerate(rates):
        error = 4 * np.sqrt(rate * (1 - rate) / (60 * runs))
        assert abs(missed[place] / runs - rate) < error + 0.022  # floor(rate (n + 1)) / (n + 1) is below rate
        assert missed[place] / runs < rate + error
        assert np.all(alarms[place] / runs < rate + error)


def test_rates_that_the_folds_cannot_carry_are_left_out():
    found = decisions.reliability(
        drawn(0, folds=2, positives=10), metric="ssim", positive="mpox", class_groups=GROUPS
    )
    assert min(row["rate"] for row in found) == pytest.approx(0.2)  # five groups of the other fold: 1/6
