"""The sections on clinical test and robustness have the numbers of the results, and so do their figures."""

import pytest
from matplotlib.axes import Axes

from mim_jax.report import figures
from mim_jax.report.figures import charts
from mim_jax.report.report import write_report
from tests.invented import Page, evaluated


def page_of(workdir, monkeypatch, run):
    monkeypatch.setattr(figures, "draw", lambda *_, **__: {})
    return Page(write_report(workdir, run).read_text(encoding="utf-8"))


def test_numbers_of_both_tests_are_those_of_the_results(tmp_path, monkeypatch):
    run = evaluated()
    test, sheet = run.results["clinical"], run.results["robustness"]
    page = page_of(tmp_path, monkeypatch, run)
    rows = page.table("Table. AUROC of the clinical test")
    for name, metric in (("SSIM+HBD", "ssim_hbd"), ("MSE", "mse")):
        area = test["auroc"][metric]
        assert rows[name][0].split() == [
            f"{area['mean']:.4f}",
            f"[{area['low']:.4f},",
            f"{area['high']:.4f}]",
        ]
        assert rows[name][1:] == [f"{value:.4f}" for value in area["folds"]]
    assert f"paper 0.881, this run {test['auroc']['ssim_hbd']['mean']:.4f}" in page.text
    sweep = page.table("Table. The noise sweep")["0.1"]
    assert [cell[:6] for cell in sweep] == [
        f"{test['noise_sweep'][side][2]['mean']:.4f}" for side in ("positives", "both")
    ]
    rows = page.table("Table. Robustness")
    entry = sheet["axes"]["mask_size"]["entries"][1]
    assert rows["0.5"][0].startswith(f"{entry['auroc']['mean']:.4f}")
    assert rows["0.5"][1:] == [f"{100 * entry[side]['mean']:.1f} %" for side in ("missed", "false_alarms")]
    assert rows["untouched"][0].startswith(f"{sheet['plain']['auroc']['mean']:.4f}")


def test_without_thresholds_nothing_is_missed_and_the_page_says_why(tmp_path, monkeypatch):
    run = evaluated()
    sheet = run.results["robustness"]
    sheet["thresholds"] = [None] * 3
    for entry in [sheet["plain"], *(e for axis in sheet["axes"].values() for e in axis["entries"])]:
        entry["missed"] = entry["false_alarms"] = {"mean": None, "folds": [None] * 3}
    page = page_of(tmp_path, monkeypatch, run)
    assert "This run states no thresholds" in page.text
    assert page.table("Table. Robustness")["0.3"][1:] == ["none", "none"]
    assert charts.robustness_figure(sheet).startswith(b"\x89PNG")


@pytest.fixture
def drawn(monkeypatch):
    """Every line that is plotted: label -> (x, y)."""
    lines, plot = [], Axes.plot

    def record(axes, x, y, *args, **style):
        lines.append((style.get("label"), list(x), list(y)))
        return plot(axes, x, y, *args, **style)

    monkeypatch.setattr(Axes, "plot", record)
    return lines


def test_every_panel_begins_with_the_untouched_image(drawn):
    sheet = evaluated().results["robustness"]
    charts.robustness_figure(sheet)
    assert [label for label, _, _ in drawn] == ["AUROC", "mpox missed", "others not ruled out"] * 2
    # Noise comes first, whatever the order of the results; a patch is untouched at its full size.
    assert [x for _, x, _ in drawn[::3]] == [[0.0, 0.02, 0.3], [1.0, 0.9, 0.5]]
    entries = [sheet["plain"], *sheet["axes"]["noise"]["entries"]]
    assert drawn[0][2] == [entry["auroc"]["mean"] for entry in entries]
    assert drawn[1][2] == [entry["missed"]["mean"] for entry in entries]


def test_noise_sweep_shows_both_curves(drawn):
    test = evaluated().results["clinical"]
    charts.noise_sweep_figure(test)
    assert [(label, y) for label, _, y in drawn] == [
        ("noise on mpox alone", [area["mean"] for area in test["noise_sweep"]["positives"]]),
        ("noise on both sides", [area["mean"] for area in test["noise_sweep"]["both"]]),
    ]
