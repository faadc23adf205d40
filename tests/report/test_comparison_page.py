"""The comparison page says which run is better, with exactly the numbers of the comparison."""

import json
from dataclasses import replace

import pytest

from mim_jax.evaluate.comparison import compare
from mim_jax.evaluate.saved_run import read_run
from mim_jax.report.comparison import write_comparison
from mim_jax.report.format import signed, verdict
from tests.deploy import chromium
from tests.invented import HOSTILE, Page
from tests.invented_runs import FOLDS, RESAMPLES, a_workdir, four_workdirs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [read_run(folder) for folder in four_workdirs(tmp_path_factory.mktemp("runs"))]


@pytest.fixture(scope="module")
def found(runs):
    return compare(runs, resamples=RESAMPLES, seed=0)


def test_page_says_who_wins(tmp_path, runs, found):
    path = write_comparison(tmp_path / "new", found, runs)
    assert path == tmp_path / "new" / "comparison.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "://" not in text and "script" not in {tag for tag, _ in page.elements} and HOSTILE not in text
    assert all("says nothing about mpox" in title for title in page.titles)
    for name, method in found["methods"].items():
        if method["score"] == "probability" or name == found["best_score"]:
            difference = found["views"]["paper"]["differences"][name]["score"]
            said, reservation = verdict(difference)
            aside = f" ({reservation})" if reservation else ""
            assert f"{said} {method['title']}{aside}: {signed(difference['mean'])}" in page.text
    assert "is better than 2, worse than 0 and not significantly different from 1" in page.text
    energy = found["views"]["open"]["auroc"]["augmented"]["swin_b.energy"]["score"]
    shown = page.table("Table. AUROC ± std of known against unknown")
    assert set(shown) == {"", "highest probability", "energy", "Mahalanobis distance", "neighbours"}
    assert shown["energy"][1].startswith(f"{energy['mean']:.4f} ±")
    for title, view in (("of the clinical test", "clinical"), ("against all others", "all")):
        difference = found["views"][view]["differences"]["swin_b.msp"]["score"]["mean"]
        minus = page.table(f"Table. Difference (MIM \u2212 method), {title}")
        assert minus["highest probability"][1].startswith(signed(difference))
    paper = found["views"]["paper"]["auroc"]["augmented"]
    row = page.table("Table. AUROC, augmented")["Swin-B (96 px)"]
    folds = [f"{fold['value']:.4f}" for fold in paper["swin_b.probability"]["score"]["folds"]]
    assert row[:FOLDS] == folds and row[FOLDS].startswith(
        f"{paper['swin_b.probability']['score']['mean']:.4f} ±"
    )
    difference = found["views"]["paper"]["differences"]["swin_b.probability"]["score"]["mean"]
    assert row[FOLDS + 1].startswith(f"+{difference:.4f}")
    assert page.table("Table. Images of the classifiers")["fold 1"] == [
        "8",
        "12 chickenpox 4, hfmd 4, measles 4",
        "4 → 20",
        "6",
        "12",
        "12",
    ]
    assert "They differ in image size: MIM 224" in page.text
    assert "They differ in weights at the start" in page.text and "differ in epochs" not in page.text
    pngs = {file.name for file in (tmp_path / "new" / "figures").iterdir()}
    assert pngs == {"aurocs.png", "roc_best.png", "roc_worst.png", "per_class.png", "per_group.png"}
    assert json.loads((tmp_path / "new" / "comparison.json").read_text()) == found
    again = write_comparison(tmp_path / "new", found, runs, name="report.html")
    assert again.read_bytes() == path.read_bytes()


@chromium.with_axe
def test_the_page_is_accessible(tmp_path, runs, found):
    with chromium.Browser() as browser:
        browser.open(write_comparison(tmp_path, found, runs).as_uri())
        assert browser.findings() == {}


def test_page_of_one_classifier_without_a_clinical_test(tmp_path, runs):
    bare = replace(runs[2], clinical=None)
    found = compare([bare], resamples=RESAMPLES, seed=0)
    page = Page(write_comparison(tmp_path, found, [bare]).read_text(encoding="utf-8"))
    assert "says nothing about mpox" not in page.text and "On the same images" not in page.text
    assert page.table("Table. AUROC, augmented")["Swin-B (96 px)"][-1].startswith("0.")
    assert "These runs have no clinical test in common" in page.text


def test_page_of_detectors_alone_speaks_of_no_classifier(tmp_path, runs):
    frozen = read_run(a_workdir(tmp_path / "frozen", "features", seed=6, gap=2.5))
    found = compare([runs[1], frozen], resamples=RESAMPLES, seed=0)
    page = Page(write_comparison(tmp_path, found, [runs[1], frozen]).read_text(encoding="utf-8"))
    assert "lassifier" not in page.text and "Training and test images" not in page.text
    difference = found["views"]["paper"]["differences"]["features"]["score"]
    assert f"{verdict(difference)[0]} frozen features (open_nsfw)" in page.text
    row = page.table("Table. AUROC, augmented")["frozen features (open_nsfw)"]
    assert row[-1].startswith(signed(difference["mean"]))
