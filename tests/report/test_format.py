"""Names in one order, numbers in one format, verdicts that the intervals support."""

import pytest

from mim_jax.classifiers import ood_scores
from mim_jax.evaluate.method_names import METHOD_CLAUSES, METHOD_NAMES, ordered
from mim_jax.report.format import interval, number, percent, signed, verdict
from mim_jax.report.sections import baselines, positive_share
from tests.invented import evaluated


def test_everything_with_a_name_has_a_clause():
    assert METHOD_NAMES.keys() - {"mim"} == METHOD_CLAUSES.keys()
    assert ood_scores.SCORE_NAMES.keys() == ood_scores.SCORE_CLAUSES.keys()


def test_methods_have_one_order_whatever_order_they_come_in():
    results = evaluated().results
    results["differences"] = dict(sorted(results["differences"].items()))
    assert baselines(results) == ["mean_fill", "harmonic_fill", "autoencoder", "brightness"]
    assert ordered(["zebra", "brightness", "aardvark", "mim"]) == [
        *("mim", "brightness", "aardvark", "zebra"),
    ]


@pytest.mark.parametrize(
    ("images", "folds", "expected"),
    [
        ((0.6, 0.7), (0.55, 0.75), ("better than", "")),
        ((0.3, 0.4), (0.2, 0.49), ("worse than", "")),
        ((0.4, 0.6), (0.4, 0.6), ("not significantly different from", "")),
        (
            (0.6, 0.7),
            (0.45, 0.85),
            ("not significantly different from", "better for these networks, perhaps not after retraining"),
        ),
        (
            (0.3, 0.4),
            (0.1, 0.6),
            ("not significantly different from", "worse for these networks, perhaps not after retraining"),
        ),
        ((0.4, 0.6), (0.51, 0.6), ("not significantly different from", "")),
        ((0.6, 0.7), (None, None), ("better than", "")),
        ((None, None), (None, None), ("not significantly different from", "too few groups for an interval")),
        ((0.5, 0.7), (0.5, 0.7), ("not significantly different from", "")),
    ],
)
def test_verdicts_need_both_intervals(images, folds, expected):
    estimate = {"low": images[0], "high": images[1], "low_folds": folds[0], "high_folds": folds[1]}
    assert verdict(estimate, base=0.5) == expected


def test_numbers():
    assert number(-0.12344) == "\u22120.1234"
    assert signed(0.5) == "+0.5000" and number(None) == number(float("nan")) == "none"
    assert interval({"low_folds": None, "high_folds": None}, "_folds") == "none"
    assert percent(0.125) == "12.5 %" and percent(None) == "none"


def test_share_of_positives_is_that_of_the_augmented_test_sets():
    splits = [{"augmented": 20, "negatives": 60}, {"augmented": 30, "negatives": 30}]
    assert positive_share({"splits": splits}) == pytest.approx((0.25 + 0.5) / 2)
