"""Every number in a table is the result that its row and column name."""

import re
from typing import Any

import numpy as np
import pytest

from mim_jax.measure import METRIC_NAMES
from mim_jax.report import figures
from mim_jax.report.report import write_report
from tests.invented import LEVELS, Page, evaluated

BOTH = ("low", "high", "low_folds", "high_folds")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of `evaluated()`; no figure is drawn, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", lambda *_, **__: {})
        return Page(write_report(tmp_path_factory.mktemp("run"), evaluated()).read_text(encoding="utf-8"))


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d\.\d{4}", cell.replace("\u2212", "-"))]


def check(cell: str, estimate: dict[str, Any], *keys: str) -> None:
    np.testing.assert_allclose(numbers(cell), [estimate[key] for key in keys], atol=5.01e-5)


@pytest.mark.parametrize(
    ("kind", "title"),
    [("augmented", "Table. AUROC of MIM on the augmented"), ("plain", "Table. AUROC of MIM on the plain")],
)
def test_table_2_is_mim_beside_the_paper(page, kind, title):
    rows, mim = page.table(title), evaluated().results["auroc"][kind]["mim"]
    for column, metric in enumerate(METRIC_NAMES):
        check(rows["this run, mean ± std"][column], mim[metric], "mean", "std")
        check(rows["95 % by images"][column], mim[metric], "low", "high")
        check(rows["95 % by images and folds"][column], mim[metric], "low_folds", "high_folds")
        for fold in range(3):
            check(rows[f"fold {fold}"][column], mim[metric]["folds"][fold], "value", "low", "high")
    if kind == "augmented":
        assert rows["paper (other data)"][:3] == ["0.8237 ± 0.0101", "0.7582 ± 0.0455", "none"]
        assert "paper 0.8237 ± 0.0101, this run " + rows["this run, mean ± std"][0] in page.text
        assert "this run used folder (12 of mpox, 17 others)" in page.text


def test_panel_holds_every_method_once_and_marks_scores_of_their_own(page):
    results = evaluated().results
    rows = page.table("Table. Detectors, baselines and variants by SSIM+HBD on the augmented")
    assert [row.replace(" *", "") for row in rows][1:] == [
        *("MIM", "Baselines", "mean-colour fill", "harmonic fill", "autoencoder", "darkness"),
        *("Variants of MIM", "several holes, minimum", "hole alone"),
    ]
    for name, method, metric in (
        ("harmonic fill", "harmonic_fill", "ssim_hbd"),
        ("darkness *", "brightness", "score"),
    ):
        auroc, difference, _ = rows[name]
        check(auroc, results["auroc"]["augmented"][method][metric], "mean", "std", *BOTH)
        check(difference, results["differences"][method]["ssim_hbd"], "mean", *BOTH)
    assert "* by the method's own score instead of SSIM+HBD" in page.text


def test_the_other_metrics_are_those_of_the_methods_that_have_them(page):
    results = evaluated().results
    areas = page.table("Table. AUROC ± std by every metric")
    differences = page.table("Table. Difference (MIM \u2212 method) by every metric")
    for column, metric in enumerate(METRIC_NAMES):
        expected = results["auroc"]["augmented"]["harmonic_fill"][metric]
        check(areas["harmonic fill"][column], expected, "mean", "std", *BOTH)
        expected = results["differences"]["autoencoder"][metric]
        check(differences["autoencoder"][column], expected, "mean", *BOTH)
    assert not any("darkness" in row for row in (*areas, *differences))


def test_operating_points_stand_beside_the_share_of_positives(page):
    results = evaluated().results
    rows = page.table("Table. Operating points")
    for name, method in (("MIM", "mim"), ("darkness *", "brightness")):
        operating = results["operating"][method]
        check(rows[name][0], operating["average_precision"], "mean", "low", "high")
        for place, level in enumerate(LEVELS):
            check(
                rows[name][1 + place],
                operating["sensitivity_at_specificity"][level],
                *("mean", "low", "high"),
            )
            check(
                rows[name][4 + place],
                operating["specificity_at_sensitivity"][level],
                *("mean", "low", "high"),
            )
    assert rows[""][1] == "sensitivity at 80 % specificity"
    assert "share of positives is 25.0 %" in page.text  # 20 of 80 in every fold


def test_classes_are_listed_for_every_method(page):
    results = evaluated().results
    rows = page.table("Table. AUROC of SSIM+HBD by class")
    assert rows["class"][1:] == [
        *("MIM", "mean-colour fill", "harmonic fill", "autoencoder", "darkness *"),
        *("several holes, minimum", "hole alone"),
    ]
    for column, method in ((1, "mim"), (5, "brightness"), (7, "mask_region")):
        check(rows["nv"][column], results["per_class"][method]["nv"], "mean", "std", *BOTH)
