"""The page of several seeds: each run's mean, their spread, and links to the runs."""

import copy
import json

import numpy as np
import pytest

from mim_jax.report.report import write_seeds
from tests.invented import HOSTILE, Page, evaluated


def runs(*, notice: str | None = None):
    first = evaluated(notice=notice).results
    second = copy.deepcopy(first)
    for kind in second["auroc"].values():
        for method in kind.values():
            for summary in method.values():
                summary["mean"] /= 2
    return {"seed_0": first, "seed_7": second}


def test_each_run_its_mean_and_their_spread(tmp_path):
    results = runs()
    path = write_seeds(tmp_path, results)
    page = Page(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "report.html" and (tmp_path / "seeds.png").exists()
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == ["seed_0/report.html", "seed_7/report.html"]
    table = page.table("Table. AUROC by SSIM+HBD (or, marked *, the method's own score), augmented")
    for row, method, metric in (("MIM", "mim", "ssim_hbd"), ("darkness *", "brightness", "score")):
        means = [run["auroc"]["augmented"][method][metric]["mean"] for run in results.values()]
        expected = [f"{np.mean(means):.4f} ± {np.std(means):.4f}", min(means), max(means), *means]
        assert table[row] == [x if isinstance(x, str) else f"{x:.4f}" for x in expected]
    assert "darkness *" not in page.table("Table. AUROC by HBD, augmented")
    difference = results["seed_0"]["differences"]["mean_fill"]["ssim_hbd"]["mean"]
    shown = page.table("Table. Difference (MIM \u2212 method)")["mean-colour fill"][1]
    assert float(shown.replace("\u2212", "-")) == pytest.approx(difference, abs=5.01e-5)


def test_the_summary_is_written_as_json_too(tmp_path):
    write_seeds(tmp_path, runs())
    saved = json.loads((tmp_path / "seeds.json").read_text())
    assert saved["runs"] == ["seed_0", "seed_7"]
    first = runs()["seed_0"]["auroc"]["plain"]["mim"]["hbd"]["mean"]
    assert saved["auroc"]["plain"]["mim"]["hbd"]["seeds"] == [first, first / 2]


def test_names_of_folders_become_neither_markup_nor_addresses(tmp_path):
    page = Page(write_seeds(tmp_path, {HOSTILE: runs()["seed_0"]}).read_text(encoding="utf-8"))
    (link,) = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert "script" not in {tag for tag, _ in page.elements} and "<script>alert(1)" in page.text
    assert not set(link) & set('"<>& :') and link.endswith("/report.html")


def test_page_fetches_nothing_is_the_same_again_and_bears_the_notice(tmp_path):
    first = write_seeds(tmp_path, runs(notice="Procedural.")).read_bytes()
    assert first == write_seeds(tmp_path, runs(notice="Procedural.")).read_bytes()
    text = first.decode()
    page = Page(text)
    assert "://" not in text and "script" not in {tag for tag, _ in page.elements}
    assert all("says nothing about mpox" in title for title in page.titles)
    assert "says nothing about mpox" not in write_seeds(tmp_path, runs()).read_text(encoding="utf-8")
