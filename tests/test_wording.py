"""Names in one order, numbers in one form, verdicts that the intervals allow."""

import pytest

from mim_jax import wording
from tests.invented import a_run


def test_every_control_and_variant_with_a_name_has_a_clause():
    assert wording.METHOD_NAMES.keys() - {"mim"} == wording.METHOD_CLAUSES.keys()


def test_methods_have_one_order_whatever_order_they_come_in():
    results = a_run()["results"]
    results["differences"] = dict(sorted(results["differences"].items()))
    assert wording.controls(results) == ["mean_fill", "harmonic_fill", "autoencoder", "brightness"]
    assert wording.variants(results) == ["holes_min", "mask_region"]
    assert wording.ordered(["zebra", "brightness", "aardvark", "mim"]) == [
        *("mim", "brightness", "aardvark", "zebra"),
    ]


@pytest.mark.parametrize(
    ("images", "folds", "expected"),
    [
        ((0.6, 0.7), (0.55, 0.75), ("better than", "")),
        ((0.3, 0.4), (0.2, 0.49), ("worse than", "")),
        ((0.4, 0.6), (0.4, 0.6), ("not distinguishable from", "")),
        ((0.6, 0.7), (0.45, 0.85), ("not distinguishable from", "these networks: better")),
        ((0.3, 0.4), (0.1, 0.6), ("not distinguishable from", "these networks: worse")),
        ((0.4, 0.6), (0.51, 0.6), ("not distinguishable from", "")),
        ((0.6, 0.7), (None, None), ("better than", "")),
        ((0.5, 0.7), (0.5, 0.7), ("not distinguishable from", "")),
    ],
)
def test_verdicts_need_both_intervals(images, folds, expected):
    estimate = {"low": images[0], "high": images[1], "low_folds": folds[0], "high_folds": folds[1]}
    assert wording.verdict(estimate, base=0.5) == expected


def test_numbers():
    assert wording.number(-0.12344) == "\u22120.1234"
    assert wording.signed(0.5) == "+0.5000" and wording.number(None) == wording.number(float("nan")) == "none"
    assert wording.interval({"low_folds": None, "high_folds": None}, "_folds") == "none"
    assert wording.percent(0.125) == "12.5 %" and wording.percent(None) == "none"


def test_share_of_positives_is_that_of_the_augmented_test_sets():
    splits = [{"augmented": 20, "negatives": 60}, {"augmented": 30, "negatives": 30}]
    assert wording.positive_share({"splits": splits}) == pytest.approx((0.25 + 0.5) / 2)
