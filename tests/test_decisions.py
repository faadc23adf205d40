"""Thresholds come from where they say, and from nowhere else."""

import numpy as np
import pytest

from mim_jax import calibration, decisions
from mim_jax.evaluation import ScoredImages
from mim_jax.similarity import METRICS


def scored(positives, groups, negatives=(0.1, 0.2)):
    """One fold; each positive has an augmented copy of absurd score, which must count nowhere."""
    values = np.array([*positives, *([-9.0] * len(positives)), *negatives])
    count, others = len(positives), len(negatives)
    positive = np.array([True] * 2 * count + [False] * others)
    return ScoredImages(
        names=np.array([f"{i}.png" for i in range(len(values))]),
        classes=np.where(positive, "mpox", "eczema"),
        groups=np.array([*groups, *groups, *(f"n{i}" for i in range(others))]),
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


def test_each_fold_is_judged_by_the_lowest_scores_of_the_other_folds_groups():
    thresholds = decisions.calibrate(FOLDS, metric="ssim", miss_rate=0.25)
    # Groups of folds 2 and 3: 0.6, 0.8, 0.4, 0.95; rank floor(0.25 * 5) = 1.
    assert thresholds.folds[0] == np.nextafter(0.4, -1)
    assert thresholds.folds[1] == np.nextafter(0.4, -1)  # 0.5, 0.9, 0.4, 0.95
    assert thresholds.folds[2] == np.nextafter(0.5, -1)  # 0.5, 0.9, 0.6, 0.8
    assert thresholds.pooled == np.nextafter(0.4, -1)  # six groups: rank floor(0.25 * 7) = 1
    assert decisions.decide(0.4, thresholds.pooled) == "mpox_like"


def test_a_promise_the_images_cannot_carry_is_not_made():
    thresholds = decisions.calibrate(FOLDS, metric="ssim", miss_rate=0.05)
    assert thresholds.folds == [None] * 3 and thresholds.pooled is None
    assert "6 groups" in thresholds.origin and "0.05" in thresholds.origin
    assert decisions.decide(0.4, None) == "no_threshold"


def test_the_papers_threshold_is_strict():
    thresholds = decisions.paper_thresholds(2)
    assert thresholds.folds == [calibration.PAPER_THRESHOLD] * 2
    assert decisions.decide(0.8526, thresholds.pooled) == "not_mpox_like"
    assert decisions.decide(0.85261, thresholds.pooled) == "mpox_like"


def test_decisions_are_counted_on_untouched_images():
    thresholds = decisions.calibrate(FOLDS, metric="ssim", miss_rate=0.25)
    table = [row for k, fold in enumerate(FOLDS) for row in decisions.rows(k, "mim", fold, thresholds)]
    counts = decisions.count_decisions(table)
    assert counts == {
        "eczema": {"n": 6, "mpox_like": 0},
        "mpox": {"n": 7, "mpox_like": 6},
    }  # 0.4 is below 0.5
    assert {row["decision"] for row in decisions.rows(0, "mean_fill", FOLDS[0])} == {""}


def test_scores_are_written_as_they_are(tmp_path):
    decisions.write_csv(tmp_path / "scores.csv", decisions.rows(0, "mean_fill", FOLDS[0]))
    header, first, *_ = (tmp_path / "scores.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert list(row)[:4] == ["fold", "method", "name", "class"] and row["decision"] == ""
    assert float(row["ssim"]) == pytest.approx(0.5, abs=0)
